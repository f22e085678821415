package rebalance

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shardproxy/topology"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestSteps holds testdata/*.txt. A line "> EVENT" is followed by what Step made of it: a line "=" with the state, the task and
// what else changed, and a line for each effect.
func TestSteps(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) < 5 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) { holdSteps(t, path) })
	}
}

func holdSteps(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	var s script
	for line := range strings.Lines(string(text)) {
		command, is := strings.CutPrefix(strings.TrimSpace(line), "> ")
		if !is {
			if !strings.HasPrefix(line, "=") && !strings.HasPrefix(line, "  ") {
				out.WriteString(line)
			}
			continue
		}
		out.WriteString(line)
		s.run(t, &out, command)
	}
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(text), out.String()); diff != "" {
		t.Errorf("(-file +now; -update writes it)\n%s", diff)
	}
}

// script is a move under test, and what the journal has of it.
type script struct {
	move, journal Move
	token         uint64
}

func (s *script) run(t *testing.T, out *strings.Builder, command string) {
	fields := strings.Fields(command)
	var effects []Effect
	before := s.move
	switch fields[0] {
	case "new": // a move that a coordinator takes up
		m, err := NewMove(KindMove, "a", "b", []Range{{0, 1 << 62}}, "dba")
		if err != nil {
			t.Fatal(err)
		}
		m.ID, s.token, m.Primaries = 7, 1, [2]Primary{{1, 5}, {2, 5}}
		before = Move{}
		s.move, effects = Resume(m, s.token)
	case "crash": // another coordinator takes it up from the journal
		s.token++
		before = s.journal
		s.move, effects = Resume(s.journal, s.token)
	case "until": // all goes well up to a task, or a state that has ended
		for s.move.Task.String() != fields[1] && s.move.State.String() != fields[1] {
			if s.move.State.Terminal() {
				t.Fatalf("%s: the move is %v", command, s.move.State)
			}
			s.move, effects = Step(s.move, s.luck())
			s.save(t, effects)
		}
		before = Move{}
	default:
		s.move, effects = Step(s.move, s.event(t, fields[0], fields[1:]))
	}
	s.save(t, effects)
	fmt.Fprintf(out, "= %s\n", describe(&before, &s.move))
	for _, e := range effects {
		fmt.Fprintf(out, "  %v\n", e)
	}
}

// luck is the best answer to what is awaited.
func (s *script) luck() Event {
	switch {
	case s.move.Waiting, s.move.Task == TaskSoak, s.move.Task == TaskLeases, s.move.Task == TaskSettle:
		return TimedOut{s.move.Seq}
	}
	return Done{Seq: s.move.Seq, LSN: 100, Epoch: max(s.move.Epoch, s.move.Return) + 2, Pause: 20 * time.Millisecond}
}

// save keeps what the journal would, in the form of the journal.
func (s *script) save(t *testing.T, effects []Effect) {
	flipped := s.journal.Flips < s.move.Flips
	if i := slices.Index(effects, Effect(Journal{})); i > 0 {
		t.Errorf("%v: effects come before the journal", effects)
	} else if i < 0 && !flipped {
		return
	}
	kept := s.move
	kept.Waiting, kept.Failures = false, 0
	r, err := kept.Record()
	if err != nil {
		t.Fatal(err)
	}
	if s.journal, err = FromRecord(r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept, s.journal); diff != "" {
		t.Errorf("the journal keeps something else:\n%s", diff)
	}
}

func (s *script) event(t *testing.T, name string, args []string) Event {
	option := func(key string) (value uint64) {
		for i, arg := range args {
			if text, ok := strings.CutPrefix(arg, key+"="); ok {
				value, _ = strconv.ParseUint(text, 0, 64)
				args = slices.Delete(slices.Clone(args), i, i+1)
				return value
			}
		}
		return 0
	}
	final := len(args) > 0 && args[len(args)-1] == "final"
	if final {
		args = args[:len(args)-1]
	}
	seq := s.move.Seq - option("old")
	switch name {
	case "done":
		pause := time.Duration(option("pause")) * time.Millisecond
		return Done{Seq: seq, LSN: LSN(option("lsn")), Epoch: topology.Epoch(option("epoch")), Pause: pause}
	case "fail":
		return Failed{Seq: seq, Fence: topology.Epoch(option("fence")), Err: strings.Join(args, " "), Final: final}
	case "blocked":
		return Blocked{seq, args}
	case "differs":
		return Differs{seq, strings.Join(args, " ")}
	case "timeout":
		return TimedOut{seq}
	case "budget":
		return BudgetOver{s.move.Epoch - topology.Epoch(option("old"))}
	case "lost":
		return StreamLost{s.move.Guard(0), strings.Join(args, " "), final}
	case "failover", "old-primary":
		side := Source
		if args[0] == "target" {
			side = Target
		}
		found := s.move.Primaries[side]
		if found.Timeline++; name == "old-primary" {
			found.Timeline -= 2
		}
		return Looked{side, found}
	case "progress":
		return Progress{int64(option("rows")), int64(option("bytes"))}
	}
	if i := slices.Index(orderNames[:], name); i >= 0 {
		return Order(i)
	}
	t.Fatalf("unknown event %q", name)
	return nil
}

// describe says where a move is, and what else has changed.
func describe(before, m *Move) string {
	text := fmt.Sprintf("%v %v", m.State, m.Task)
	if m.Waiting {
		text += " waiting"
	}
	a, b := reflect.ValueOf(*before), reflect.ValueOf(*m)
	for i := range a.NumField() {
		switch name := a.Type().Field(i).Name; name {
		case "State", "Task", "Seq", "Rev", "Waiting", "Failures", "ID", "Kind", "Source", "Target", "Ranges", "Who":
		case "Primaries":
			if before.Primaries != m.Primaries && before.Attempt > 0 {
				text += fmt.Sprintf(" primaries=%v", m.Primaries)
			}
		default:
			if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				text += fmt.Sprintf(" %s=%v", strings.ToLower(name), b.Field(i).Interface())
			}
		}
	}
	return text
}

// TestStateTable holds that the comment of State says what the code allows.
func TestStateTable(t *testing.T) {
	source, err := os.ReadFile("state.go")
	if err != nil {
		t.Fatal(err)
	}
	said := map[State]stateSet{}
	for line := range strings.Lines(string(source)) {
		from, to, ok := strings.Cut(strings.TrimPrefix(line, "//\t"), "→")
		if !ok || !strings.HasPrefix(line, "//\t") {
			continue
		}
		state, err := ParseState(strings.TrimSpace(from))
		if err != nil {
			t.Fatal(err)
		}
		said[state] = 0
		for _, name := range strings.Fields(to) {
			if name == "-" {
				continue
			}
			next, err := ParseState(name)
			if err != nil {
				t.Fatal(err)
			}
			said[state] |= set(next)
		}
	}
	for s := range statesMax {
		if set, ok := said[s]; !ok || set != allowed[s] {
			t.Errorf("%v: the comment and the code do not agree", s)
		}
		if s.Terminal() != (allowed[s] == 0) || s.Terminal() != (len(programs[s]) == 0) {
			t.Errorf("%v: a state either ends the move, or has a program and leads on", s)
		}
	}
}

// TestMoveAsJSON holds what is refused in the journal.
func TestMoveAsJSON(t *testing.T) {
	for text, v := range map[string]any{`"nowhere"`: new(State), `"nothing"`: new(Task), `"none"`: new(Kind)} {
		if err := json.Unmarshal([]byte(text), v); err == nil {
			t.Errorf("%s was read as %v", text, v)
		}
	}
}

func TestNewMoveRefuses(t *testing.T) {
	for name, args := range map[string]struct {
		source, target string
		ranges         []Range
	}{
		"no shard":    {"", "b", []Range{{0, 1}}},
		"same shard":  {"a", "a", []Range{{0, 1}}},
		"no range":    {"a", "b", nil},
		"empty range": {"a", "b", []Range{{5, 5}}},
		"backwards":   {"a", "b", []Range{{5, 4}}},
		"overlap":     {"a", "b", []Range{{5, 0}, {1, 6}}},
	} {
		if m, err := NewMove(KindMove, args.source, args.target, args.ranges, "dba"); err == nil {
			t.Errorf("%s: %v was taken", name, &m)
		}
	}
}
