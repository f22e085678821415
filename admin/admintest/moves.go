package admintest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"shardproxy/rebalance"
	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// moved is the journal of moves of a Console. They go on by one phase whenever somebody looks at them.
type moved struct {
	moves    []rebalance.Move
	answers  []string // to the orders
	fails    string   // why moves are aborted, "" where they are not
	misplace string   // key of a row of users that is on the wrong shard
}

// FailMoves makes all moves end aborted.
func (c *Console) FailMoves(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moved.fails = reason
}

// Misplace puts a row of table users on the wrong shard.
func (c *Console) Misplace(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moved.misplace = key
}

// Epoch of the catalog. Console implements admin.Mover.
func (c *Console) Epoch(context.Context) (topology.Epoch, error) { return c.Snapshot().Epoch, nil }

// AddMoves gives them their numbers.
func (c *Console) AddMoves(_ context.Context, records []topology.MoveRecord) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range records {
		records[i].ID = int64(len(c.moved.moves) + 1)
		m, err := rebalance.FromRecord(records[i])
		if err != nil {
			return err
		}
		c.moved.moves = append(c.moved.moves, m)
	}
	return nil
}

// way of a move that is let go on.
var way = []rebalance.State{rebalance.Planned, rebalance.Copying, rebalance.Soak}

// LoadMoves gives the moves as they are, and lets them go on.
func (c *Console) LoadMoves(_ context.Context, all bool) (records []topology.MoveRecord, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.moved.moves {
		m := &c.moved.moves[i]
		if all || !m.State.Terminal() {
			r, err := m.Record()
			if err != nil {
				return nil, err
			}
			records = append(records, r)
		}
		at := slices.Index(way, m.State)
		switch {
		case c.moved.fails != "" && !m.State.Terminal():
			m.State, m.Error = rebalance.Aborted, c.moved.fails
		case m.State == rebalance.Cleaning:
			m.State = rebalance.Cleaned
		case at >= 0 && at+1 < len(way) && !m.Paused:
			m.State = way[at+1]
		}
	}
	return records, nil
}

// AddMoveOrder follows an order at once.
func (c *Console) AddMoveOrder(_ context.Context, move int64, what string, _ topology.Actor) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, answer := &c.moved.moves[move-1], ""
	switch {
	case what == "pause":
		m.Paused = true
	case what == "resume":
		m.Paused = false
	case what == "finish" && m.State == rebalance.Soak:
		m.State = rebalance.Cleaning
	case what == "reverse" && m.State == rebalance.Soak:
		m.State = rebalance.Reversed
	case what == "abort" && m.State < rebalance.Hold:
		m.State = rebalance.Aborted
	default:
		answer = fmt.Sprintf("it is %v", m.State)
	}
	c.moved.answers = append(c.moved.answers, answer)
	return int64(len(c.moved.answers)), nil
}

// MoveOrderAnswer gives what AddMoveOrder has come to.
func (c *Console) MoveOrderAnswer(_ context.Context, id int64) (answered bool, refusal string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return true, c.moved.answers[id-1], nil
}

// Status has none: another proxy coordinates.
func (c *Console) Status(context.Context) ([]rebalance.Status, error) { return nil, nil }

// Preflight finds a long transaction and a table that cannot move.
func (c *Console) Preflight(context.Context, rebalance.Move) (*mover.Report, error) {
	users := topology.TableName{Schema: "public", Name: "users"}
	return &mover.Report{
		Tables:    []mover.TableReport{{Table: users, Bytes: 4e6, Rows: 100, MovingRows: 30, MovingBytes: 1_200_000}},
		Problems:  []mover.Problem{{Side: mover.Target, Table: users, Text: "there is no primary key", Hint: "add one"}},
		FreeSlots: [2]int{5, 6}, FreeSenders: [2]int{3, 4}, MaxSlotWALBytes: -1,
	}, nil
}

// OnNode knows queries that count rows of tables.
func (c *Console) OnNode(_ context.Context, _ topology.Node, run func(topology.Query) error) error {
	c.mu.Lock()
	key := c.moved.misplace
	c.mu.Unlock()
	asked := 0
	return run(func(_ context.Context, sql string) ([][]string, error) {
		asked++
		switch {
		case strings.Contains(sql, "place, def"): // the whole schema
			return nil, nil
		case asked == 3 && key != "": // behind the counts of Names and users
			return [][]string{{key}}, nil
		case asked == 2 && key != "":
			return [][]string{{"10", "1", "0"}}, nil
		}
		return [][]string{{"10", "0", "0"}}, nil
	})
}
