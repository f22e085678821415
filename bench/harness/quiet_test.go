package main

import (
	"slices"
	"testing"
)

func TestParseCPUTicks(t *testing.T) {
	idle, all, err := parseCPUTicks("cpu  100 20 30 4000 500 6 7 8 90 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n")
	if err != nil || idle != 4500 || all != 4671 {
		t.Errorf("got %d idle of %d, %v", idle, all, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3 4\n", "cpu 1 2 3 4 5 6 7 x\n"} {
		if _, _, err := parseCPUTicks(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestPreferQuiet(t *testing.T) {
	odd := func(n int) bool { return n%2 == 1 }
	if got := preferQuiet([]int{1, 2, 3, 4}, odd); !slices.Equal(got, []int{2, 4}) {
		t.Errorf("got %v", got)
	}
	if got := preferQuiet([]int{1, 3}, odd); !slices.Equal(got, []int{1, 3}) {
		t.Errorf("all are noisy: got %v", got)
	}
}
