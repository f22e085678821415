package rebalance

import "fmt"

// State of a move. A state is journalled before its first effect, so it says what may have been done, not what has.
//
//	planned            → prepared aborting
//	prepared           → copying prepared aborting
//	copying            → streaming prepared aborting
//	streaming          → hold prepared aborting
//	hold               → fenced returning
//	fenced             → drained returning
//	drained            → opened returning
//	opened             → flipped returning
//	returning          → streaming prepared aborting reversing soak
//	flipped            → released
//	released           → verified failed-verification reversing
//	verified           → soak cleaning reversing
//	failed-verification → verified reversing
//	soak               → cleaning reversing
//	reversing          → hold soak
//	cleaning           → cleaned reversed
//	aborting           → aborted
//	cleaned            → -
//	aborted            → -
//	reversed           → -
//
// What goes back by `reverse` passes hold to cleaning a second time, with the roles of the shards exchanged, and ends reversed.
type State uint8

const (
	Planned            State = iota // nothing was done yet but looking
	Prepared                        // slot and publication on the source; the target's progress row
	Copying                         // rows are copied under the slot's snapshot
	Streaming                       // the target follows the source
	Hold                            // proxies keep new work of the ranges waiting
	Fenced                          // the source is narrowed, then its position is read and waited for
	Drained                         // the target has all; nobody writes
	Opened                          // the target is widened
	Returning                       // the cutover is taken back: the epoch is burnt, then all goes back to the old owner
	Flipped                         // the catalog says that the target owns the ranges
	Released                        // proxies go on; both sides are compared
	Verified                        // they are equal; the stream back is started
	FailedVerification              // they differ: an alarm, and the old owner's rows are kept until somebody decides
	Soak                            // the old owner follows the new one, so that it can take over again
	Reversing                       // the old owner is to take over again
	Cleaning                        // leases run out, then slots and rows go
	Aborting                        // slots and copied rows go
	Cleaned                         // the end: the target owns the ranges, and nothing is left
	Aborted                         // the end: the source owns the ranges, and nothing is left
	Reversed                        // the end: as Aborted, but after the target had owned them
	statesMax
)

var stateNames = [statesMax]string{
	"planned", "prepared", "copying", "streaming", "hold", "fenced", "drained", "opened", "returning", "flipped", "released",
	"verified", "failed-verification", "soak", "reversing", "cleaning", "aborting", "cleaned", "aborted", "reversed",
}

// moves of the table above.
var allowed = [statesMax]stateSet{
	Planned:            set(Prepared, Aborting),
	Prepared:           set(Copying, Prepared, Aborting),
	Copying:            set(Streaming, Prepared, Aborting),
	Streaming:          set(Hold, Prepared, Aborting),
	Hold:               set(Fenced, Returning),
	Fenced:             set(Drained, Returning),
	Drained:            set(Opened, Returning),
	Opened:             set(Flipped, Returning),
	Returning:          set(Streaming, Prepared, Aborting, Reversing, Soak),
	Flipped:            set(Released),
	Released:           set(Verified, FailedVerification, Reversing),
	Verified:           set(Soak, Cleaning, Reversing),
	FailedVerification: set(Verified, Reversing),
	Soak:               set(Cleaning, Reversing),
	Reversing:          set(Hold, Soak),
	Cleaning:           set(Cleaned, Reversed),
	Aborting:           set(Aborted),
}

type stateSet uint32

func set(states ...State) (s stateSet) {
	for _, state := range states {
		s |= 1 << state
	}
	return s
}

func (s stateSet) has(state State) bool { return s>>state&1 != 0 }

func (s State) String() string {
	if s < statesMax {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", s)
}

// ParseState is the inverse of String.
func ParseState(name string) (State, error) {
	for s := range statesMax {
		if stateNames[s] == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%q is no state of a move", name)
}

// MarshalText writes the name: the journal is read by people.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(text []byte) (err error) {
	*s, err = ParseState(string(text))
	return err
}

// Terminal says that nothing more will happen.
func (s State) Terminal() bool { return set(Cleaned, Aborted, Reversed).has(s) }

// InCutover says that the move has claimed the next epoch. No other move may be granted one meanwhile.
func (s State) InCutover() bool { return set(Hold, Fenced, Drained, Opened, Returning).has(s) }

// Flipped says that the shard which the move goes to owns the ranges. (After the way back that is the move's source.)
func (s State) afterFlip() bool {
	return set(Flipped, Released, Verified, FailedVerification, Soak, Cleaning, Cleaned, Reversed).has(s)
}
