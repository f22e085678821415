package rebalance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"shardproxy/topology"
)

// MoveID is the number of a move in the journal.
type MoveID int64

// LSN is a position in the log of one PostgreSQL server.
type LSN uint64

// String is PostgreSQL's own form.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }

// Side of a move.
type Side uint8

const (
	Source Side = iota
	Target
)

func (s Side) String() string {
	if s == Target {
		return "target"
	}
	return "source"
}

func (s Side) other() Side { return 1 - s }

// Primary tells the primary of a shard from any other, and from itself before another took over from it for a while.
type Primary struct {
	System   uint64 `json:"system"`   // identifier of the server's data
	Timeline uint32 `json:"timeline"` // grows with each promotion
}

// Guard orders what is done for one move. Each shard keeps the highest one that it has seen of the move, and every effect on
// rows, slots and streams checks and raises it in its own transaction: what was overtaken must do nothing any more. That may be
// another coordinator's, or a statement that was left behind when its connection broke.
type Guard struct {
	Token uint64 // of the coordinator's lease
	Stage int    // of the move; raised where streams that run must come to nothing
	Seq   uint64 // of the effect; 0 for a stream, which others do not overtake within its stage
}

// Refuses says that a shard which has seen g must not let o act any more.
func (g Guard) Refuses(o Guard) bool {
	if o.Token != g.Token {
		return o.Token < g.Token
	}
	if o.Stage != g.Stage {
		return o.Stage < g.Stage
	}
	return o.Seq < g.Seq && o.Seq != 0
}

// Raise gives what a shard that has seen g keeps when it has let o act.
func (g Guard) Raise(o Guard) Guard {
	if o.Token == g.Token && o.Stage == g.Stage {
		o.Seq = max(o.Seq, g.Seq)
	}
	return o
}

// Move is one move at one moment: exactly what is journalled. It is a value; its lists are never changed.
type Move struct {
	ID     MoveID  `json:"-"`
	Rev    int64   `json:"-"` // of the journalled row: it is written only over the one before
	Kind   Kind    `json:"-"`
	Source string  `json:"-"` // names of shards
	Target string  `json:"-"`
	Ranges []Range `json:"-"` // in order, apart from each other
	Who    string  `json:"-"` // asked for it

	State  State  `json:"-"`
	Task   Task   `json:"task"`
	Token  uint64 `json:"token"` // of the lease under which it was last taken up
	Seq    uint64 `json:"seq"`   // of the effect whose answer is awaited
	Stage  int    `json:"stage"`
	Paused bool   `json:"paused,omitempty"`

	Announced   bool `json:"announced,omitempty"`    // everybody plans with a map that tells of the move
	Reverse     bool `json:"reverse,omitempty"`      // the ranges go, or went, back to the source
	ReverseLost bool `json:"reverse_lost,omitempty"` // the stream back is broken; only a new move leads back
	ViewsLost   bool `json:"views_lost,omitempty"`   // the snapshots for the verification are gone

	Primaries [2]Primary `json:"primaries"` // of both sides, as they were seen last; zero: not yet
	Refence   [2]bool    `json:"refence"`   // another server has become the primary of a side, and must be told of the fence

	Unverified bool `json:"unverified,omitempty"` // the old owner's rows could not be compared any more

	Attempt  int            `json:"attempt"`  // of the copy, from 1 to attemptsMax
	Cutovers int            `json:"cutovers"` // begun since the last flip
	Epoch    topology.Epoch `json:"-"`        // of the last cutover; each epoch is used once
	Return   topology.Epoch `json:"return,omitempty"`
	Fence    FenceState     `json:"fence"`
	Then     Then           `json:"then"`                // what follows Returning
	L        LSN            `json:"lsn,omitempty"`       // of the owner before, after it was narrowed
	OpenedAt LSN            `json:"opened_at,omitempty"` // position on the target before which nothing of the stream back counts
	// ReopenedAt is that of the source, which the ranges came back to.
	ReopenedAt LSN `json:"reopened_at,omitempty"`
	Flips      int `json:"flips"`

	Waiting  bool          `json:"-"` // for a timer, after a failure
	Failures int           `json:"-"` // of the task, one after the other
	Alarmed  bool          `json:"alarmed,omitempty"`
	Error    string        `json:"-"`
	Blockers []string      `json:"blockers,omitempty"`
	Pause    time.Duration `json:"pause,omitempty"`     // that clients waited in the last cutover
	PauseAll time.Duration `json:"pause_all,omitempty"` // in all of them, those that were taken back included
	Rows     int64         `json:"rows,omitempty"`
	Bytes    int64         `json:"bytes,omitempty"`
}

// FenceState says how far a cutover may have come with the fences.
type FenceState uint8

const (
	FenceUntouched FenceState = iota
	FenceNarrowed             // the owner before may be narrowed
	FenceOpened               // the owner after may be widened too
)

// Then is what follows when a cutover was taken back.
type Then uint8

const (
	ThenAgain   Then = iota // another cutover, after a while
	ThenRestart             // the copy anew
	ThenAbort
	ThenSoak // what was to be reversed stays where it is
)

// Range is [Start, End); End == 0 is the end of the ring.
type Range struct {
	Start topology.KeyHash `json:"start"`
	End   topology.KeyHash `json:"end"`
}

func (r Range) String() string { return topology.KeyRange{Start: r.Start, End: r.End}.String() }

// last is the highest hash of r.
func (r Range) last() topology.KeyHash { return r.End - 1 }

// Has says that h lies in r.
func (r Range) Has(h topology.KeyHash) bool { return r.Start <= h && h <= r.last() }

// overlaps says that some hash lies in both.
func (r Range) overlaps(o Range) bool { return r.Start <= o.last() && o.Start <= r.last() }

// rangesMax bounds the owner function and the statements of one move.
const rangesMax = 1 << 14

// NewMove is a move that nothing was done for yet. Its ranges are put in order.
func NewMove(kind Kind, source, target string, ranges []Range, who string) (Move, error) {
	m := Move{Kind: kind, Source: source, Target: target, Who: who, Ranges: slices.Clone(ranges), Task: TaskPreflight, Attempt: 1}
	slices.SortFunc(m.Ranges, func(a, b Range) int { return compareHash(a.Start, b.Start) })
	return m, m.check()
}

func compareHash(a, b topology.KeyHash) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (m *Move) check() error {
	switch {
	case m.Source == "" || m.Target == "":
		return errors.New("a move needs a source and a target")
	case m.Source == m.Target:
		return fmt.Errorf("the ranges are on shard %q already", m.Target)
	case len(m.Ranges) == 0 || len(m.Ranges) > rangesMax:
		return fmt.Errorf("a move has 1 to %d ranges, not %d", rangesMax, len(m.Ranges))
	}
	for i, r := range m.Ranges {
		if r.End <= r.Start && r.End != 0 {
			return fmt.Errorf("range %v is empty", r)
		}
		if i > 0 && m.Ranges[i-1].overlaps(r) {
			return fmt.Errorf("ranges %v and %v overlap", m.Ranges[i-1], r)
		}
	}
	return nil
}

// Guard of an effect with this Seq, 0 for a stream.
func (m *Move) Guard(seq uint64) Guard { return Guard{m.Token, m.Stage, seq} }

// From is the side that owns the ranges until the next flip, or did until the last.
func (m *Move) From() Side {
	if m.Reverse {
		return Target
	}
	return Source
}

// To is the side that the ranges go to.
func (m *Move) To() Side { return m.From().other() }

// Shard names the shard of a side.
func (m *Move) Shard(s Side) string {
	if s == Target {
		return m.Target
	}
	return m.Source
}

// Has says that the move concerns h.
func (m *Move) Has(h topology.KeyHash) bool {
	return slices.ContainsFunc(m.Ranges, func(r Range) bool { return r.Has(h) })
}

// Overlaps says that some hash is moved by both.
func (m *Move) Overlaps(o *Move) bool {
	return slices.ContainsFunc(m.Ranges, func(r Range) bool { return slices.ContainsFunc(o.Ranges, r.overlaps) })
}

// Reasons why somebody must look at a move.
const (
	alarmDiffers   = "failed-verification"
	alarmNoWayBack = "no-way-back"
	alarmStuck     = "stuck"
)

// Alarms gives all that Alarm may say.
func Alarms() []string { return []string{alarmDiffers, alarmNoWayBack, alarmStuck} }

// Alarm says why somebody must look at the move, "" if nobody must.
func (m *Move) Alarm() string {
	switch {
	case !m.Alarmed || m.State.Terminal():
		return ""
	case m.State == FailedVerification:
		return alarmDiffers
	case m.ReverseLost:
		return alarmNoWayBack
	}
	return alarmStuck
}

// Change is what the flip makes of the topology.
func (m *Move) Change() topology.Change {
	batch := make(topology.Batch, len(m.Ranges))
	for i, r := range m.Ranges {
		batch[i] = topology.MoveRange{Start: r.Start, End: r.End, Shard: m.Shard(m.To())}
	}
	if len(batch) == 1 {
		return batch[0]
	}
	return batch
}

// String is for logs.
func (m *Move) String() string {
	ranges := make([]string, len(m.Ranges))
	for i, r := range m.Ranges {
		ranges[i] = r.String()
	}
	return fmt.Sprintf("move %d of %s from %s to %s, %v", m.ID, strings.Join(ranges, " "), m.Source, m.Target, m.State)
}

// Kind says what a move was asked as.
type Kind uint8

const (
	KindMove Kind = iota
	KindSplit
	KindIsolate
	KindMerge
	KindRebalance
	KindDrain
	kindsMax
)

var kindNames = [kindsMax]string{"move", "split", "isolate", "merge", "rebalance", "drain"}

func (k Kind) String() string {
	if k < kindsMax {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", k)
}

// MarshalText writes the name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (k *Kind) UnmarshalText(text []byte) error {
	for known := range kindsMax {
		if kindNames[known] == string(text) {
			*k = known
			return nil
		}
	}
	return fmt.Errorf("%q is no kind of move", text)
}
