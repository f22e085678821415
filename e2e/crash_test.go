package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// crashEnv names cells of the table to run, such as "source-after-hold", or is "all". With a comma between them cells are of one life,
// with a blank of two.
const crashEnv = "SHARDPROXY_CRASH"

// crashCell is one cell of the table: who is killed, and when.
type crashCell struct {
	victim string
	before bool   // what is written of the state is not committed; else it has just been
	state  string // of a move; with "-back" on the way back
}

func (c crashCell) String() string { return fmt.Sprintf("%s-%s-%s", c.victim, c.moment(), c.state) }

func (c crashCell) moment() string {
	if c.before {
		return "before"
	}
	return "after"
}

// crashVictims are those who are killed: the proxy that coordinates moves, another one, a shard of the move, or the catalog.
var crashVictims = []string{"coordinator", "proxy", "source", "target", "catalog"}

// crashWay is a way that a move can go.
type crashWay struct {
	order  string // that leads to its end
	end    string
	states []string // that no way before has, in their order
}

// crashWays have all states that are written down but failed-verification, to which nothing leads. Those between hold and flipped are
// not: kills after hold and before flipped are at their beginning and end. On the way back nothing is to be done in verified.
var crashWays = []crashWay{
	{"finish", "cleaned", []string{
		"planned", "prepared", "copying", "streaming", "hold", "returning", "flipped", "released", "verified", "soak", "cleaning",
	}},
	{"reverse", "reversed", []string{
		"reversing", "hold-back", "returning-back", "flipped-back", "released-back", "cleaning-back",
	}},
	{"abort", "aborted", []string{"aborting"}},
}

// crashCells of a way. The end of a move is only looked at before it is written: then all is over.
func (w crashWay) cells() (list []crashCell) {
	for _, victim := range crashVictims {
		for _, state := range w.states {
			list = append(list, crashCell{victim, true, state}, crashCell{victim, false, state})
		}
		end := w.end
		if w.order == "reverse" {
			end += "-back"
		}
		list = append(list, crashCell{victim, true, end})
	}
	return list
}

// crashLife is one move, in which all of its cells come to pass.
type crashLife struct {
	way   crashWay
	cells []crashCell
}

func (l crashLife) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(l.cells), " ", ","), "[]")
}

const crashCellsMax = 5 // of one life: each costs a cutover or the copy

// crashLives puts all cells into lives, in an order that the seed says. No life has two cells at the same moment.
func crashLives(seed uint64) (lives []crashLife) {
	random := rand.New(rand.NewPCG(seed, 3))
	for _, way := range crashWays {
		cells := way.cells()
		random.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
		var of []crashLife
		for _, cell := range cells {
			i := slices.IndexFunc(of, func(l crashLife) bool {
				return len(l.cells) < crashCellsMax && !slices.ContainsFunc(l.cells, func(c crashCell) bool { return c.state == cell.state && c.before == cell.before })
			})
			if i < 0 {
				i, of = len(of), append(of, crashLife{way: way})
			}
			of[i].cells = append(of[i].cells, cell)
		}
		lives = append(lives, of...)
	}
	random.Shuffle(len(lives), func(i, j int) { lives[i], lives[j] = lives[j], lives[i] })
	return lives
}

// chosenLives are all that there are with soakEnv, those that are asked for, or one life of each way.
func chosenLives(t *testing.T, seed uint64) (lives []crashLife) {
	t.Helper()
	all := crashLives(seed)
	names := strings.Fields(os.Getenv(crashEnv))
	switch {
	case slices.Equal(names, []string{"all"}) || len(names) == 0 && os.Getenv(soakEnv) != "":
		return all
	case len(names) == 0:
		for _, way := range crashWays {
			i := slices.IndexFunc(all, func(l crashLife) bool { return l.way.order == way.order && len(l.cells) > 2 })
			lives = append(lives, all[i])
		}
		return lives
	}
	for _, text := range names {
		lives = append(lives, parseLife(t, strings.Split(text, ",")))
	}
	return lives
}

// parseLife finds the way on which all cells are.
func parseLife(t *testing.T, names []string) crashLife {
	t.Helper()
	for _, way := range crashWays {
		life := crashLife{way, slices.DeleteFunc(way.cells(), func(c crashCell) bool { return !slices.Contains(names, c.String()) })}
		if len(life.cells) == len(names) {
			return life
		}
	}
	t.Fatalf("%s: there is no life with %v", crashEnv, names)
	return crashLife{}
}

// TestMoveCrashes kills, at every state of a move, each of those who take part in it, and starts them again, while clients write
// through all proxies. The move comes to its end all the same, nothing is left of it, and the book of the clients is right.
//
// It runs a life of each way that a move can go, of those that a seed says; make soak runs all of them.
func TestMoveCrashes(t *testing.T) {
	needCluster(t)
	l := newLedgerTest(t)
	defer l.tellStory(t)
	lives := make(chan crashLife, 1000)
	cells := 0
	for _, life := range chosenLives(t, l.seed) {
		cells += len(life.cells)
		lives <- life
	}
	close(lives)
	l.putStops(t)
	b := l.openBook(t)
	b.progress(t, "all write and read before anybody is killed")
	from := time.Now()
	t.Run("Lanes", func(t *testing.T) {
		for number := range shardCount / 2 {
			lane := &crashLane{ledgerTest: l, number: number}
			t.Run(lane.shard(0)+lane.shard(1), func(t *testing.T) {
				t.Parallel()
				lane.run(t, lives)
			})
		}
	})
	took, left := time.Since(from).Round(time.Second), 0
	for life := range lives { // where lanes have failed
		left += len(life.cells)
	}
	t.Logf("%d of %d cells took %v", cells-left, cells, took)
	l.awaitHealth(t)
	b.progress(t, "all write and read at the end")
	l.end(t, b)
}
