package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReadLog(t *testing.T) {
	const log = `0 1 150 0 1700000000 999999
1 1 160 0 1700000001 0
0 2 failed 0 1700000001 10
0 3 170 0 1700000001 999999
1 2 180 0 1700000002 0
`
	w := interval{from: time.Unix(1700000001, 0), to: time.Unix(1700000002, 0)}
	got, err := readLog(strings.NewReader(log), w, []int64{7})
	if err != nil {
		t.Fatal(err)
	}
	if want := []int64{7, 160, 170}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, bad := range []string{"0 1 150 0 1700000000\n", "0 1 150 0 now 5\n"} {
		if _, err := readLog(strings.NewReader(bad), w, nil); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestFailures(t *testing.T) {
	tests := []struct {
		out  string
		want int
	}{
		{"number of failed transactions: 0 (0.000%)\n", 0},
		{"number of failed transactions: 12 (0.100%)\n", 12},
		{`pgbench: error: client 3 script 0 aborted in command 1 query 0: ERROR:  x
pgbench: error: client 4 aborted in command 1 (SQL) of script 0; perhaps the backend died while processing
number of failed transactions: 1 (0.001%)
`, 3},
	}
	for _, test := range tests {
		if got := failures([]byte(test.out)); got != test.want {
			t.Errorf("%q: got %d, want %d", test.out, got, test.want)
		}
	}
}
