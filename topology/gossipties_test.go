package topology

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// Whoever asks for ties gets those of all peers that answer.
func TestGossipTies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		one, two := Process{"shard-1:5432", 11}, Process{"[::1]:5433", 12}
		var asked atomic.Pointer[[]Process]
		of := map[string][]Tie{
			"b": {{Session: 7, Processes: []Process{one, two}}},
			"c": {{Session: 8}, {Session: 1 << 31, Processes: []Process{two}}},
		}
		var list []*fakeProxy
		for _, name := range []string{"a", "b", "c", "d"} {
			cfg := simConfig(n, name)
			cfg.Keys = [][]byte{keyOf(1)}
			if name != "d" {
				cfg.OnTies = func(p []Process) []Tie {
					asked.Store(&p)
					return of[name]
				}
			}
			if list != nil {
				cfg.Seeds = []string{list[0].g.Address()}
			}
			list = append(list, startProxy(t, MapState{1, 1}, cfg))
		}
		for _, p := range list {
			p.until(t, "members", func(peers []Peer) bool { return len(peers) == 3 })
		}
		ask := func(of ...Process) []Tie {
			ties := list[0].g.Ties(t.Context(), of)
			slices.SortFunc(ties, func(a, b Tie) int { return int(int64(a.Session) - int64(b.Session)) })
			return ties
		}
		if diff := cmp.Diff([]Tie{of["b"][0], of["c"][0], of["c"][1]}, ask(two, one)); diff != "" {
			t.Errorf("ties: %s", diff)
		}
		if diff := cmp.Diff([]Process{two, one}, *asked.Load()); diff != "" {
			t.Errorf("asked for: %s", diff)
		}
		long := make([]Process, 2*tiesMax)
		for i := range long {
			long[i] = Process{strings.Repeat("x", 2*processName), uint32(i)}
		}
		of["b"] = slices.Repeat([]Tie{{Session: 1, Processes: long}}, 2*tiesMax)
		of["c"] = nil
		if got := ask(long...); len(got) != tiesMax || len(got[0].Processes) != tiesMax || len(*asked.Load()) != tiesMax {
			t.Errorf("%d ties", len(got))
		}
	})
}
