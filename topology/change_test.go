package topology

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestChanges holds testdata/changes.txt, which says what each line means.
func TestChanges(t *testing.T) {
	const path = "testdata/changes.txt"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	var snap *Snapshot
	changes := 0
	for line := range strings.Lines(string(text)) {
		command := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(command, "start "):
			snap = textSnapshot(t, command[len("start "):])
			out.WriteString(line)
		case strings.HasPrefix(command, "> "):
			changes++
			change, err := parseChange(command[2:])
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			out.WriteString(line)
			snap = applyText(t, &out, snap, change)
		case !strings.HasPrefix(command, "= ") && !strings.HasPrefix(command, "! "):
			out.WriteString(line)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(text), out.String()); diff != "" {
		t.Errorf("(-file +now; -update writes it)\n%s", diff)
	}
	if changes < 60 {
		t.Errorf("only %d changes were tried", changes)
	}
}

// applyText writes what became of a change, and checks what must hold of every one.
func applyText(t *testing.T, out *strings.Builder, snap *Snapshot, change Change) *Snapshot {
	t.Helper()
	before := snap.Encode()
	next, err := snap.Apply(change)
	if !slices.Equal(before, snap.Encode()) {
		t.Errorf("%v changed the snapshot it was applied to", change)
	}
	if err != nil {
		fmt.Fprintf(out, "! %v\n", err)
		return snap
	}
	checkApplied(t, snap, next, change)
	fmt.Fprintf(out, "= %v\n= %d %s\n", change, next.Epoch, textRanges(next))
	if shards := textShards(next); shards != textShards(snap) {
		fmt.Fprintf(out, "= shards %s\n", shards)
	}
	if !sameRules(&snap.Rules, &next.Rules) {
		fmt.Fprintf(out, "= tables %s\n", textRules(&next.Rules))
	}
	return next
}

// checkApplied holds that a snapshot made by Apply is the one that New makes of its content, and that the change makes it again
// after a journey in bytes.
func checkApplied(t testing.TB, base, next *Snapshot, change Change) {
	t.Helper()
	fresh, err := New(next.Content())
	if err != nil {
		t.Fatalf("%v made a bad snapshot: %v", change, err)
	}
	if fresh.Checksum() != next.Checksum() {
		t.Fatalf("%v: checksum %016x, anew %016x", change, next.Checksum(), fresh.Checksum())
	}
	fresh.Schema = next.Schema
	fresh.ranges = slices.Clip(fresh.ranges)
	if diff := cmp.Diff(fresh, next, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Fatalf("%v (-anew +applied):\n%s", change, diff)
	}
	_, batch := change.(Batch) // which may end where it began
	if next.Epoch != base.Epoch+1 || next.Checksum() == base.Checksum() && !batch {
		t.Fatalf("%v: epoch %d, checksum %016x, after epoch %d, %016x", change, next.Epoch, next.Checksum(), base.Epoch, base.Checksum())
	}
	delta, err := DecodeDelta(next.Delta(change).Encode())
	if err != nil {
		t.Fatalf("%v: %v", change, err)
	}
	followed, err := base.Follow(delta)
	if err != nil || followed.Checksum() != next.Checksum() {
		t.Fatalf("%v after decoding: %v", change, err)
	}
}

// textSnapshot reads "a:0-8 b:8- | c": ranges in hexadecimal digits from the left, and shards that own nothing.
func textSnapshot(t testing.TB, text string) *Snapshot {
	t.Helper()
	c := Content{Cluster: "test", Epoch: 1, Rules: KeyRules{Explicit: map[TableName]string{}, Reference: map[TableName]bool{}, Named: map[TableName]string{}}}
	ids := map[string]ShardID{}
	owned, idle, _ := strings.Cut(text, "|")
	id := func(name string) ShardID {
		if _, ok := ids[name]; !ok {
			ids[name] = ShardID(len(ids))
			c.Shards = append(c.Shards, Shard{Name: name, Nodes: []Node{{Host: name + "1", Port: 1, Database: "d"}}})
		}
		return ids[name]
	}
	for _, field := range strings.Fields(owned) {
		name, borders, _ := strings.Cut(field, ":")
		start, end, _ := strings.Cut(borders, "-")
		c.Ranges = append(c.Ranges, KeyRange{Start: digits(start), End: digits(end), Shard: id(name)})
	}
	for _, name := range strings.Fields(idle) {
		id(name)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// digits reads the leading hexadecimal digits of a hash; "-" and "" are 0.
func digits(s string) KeyHash {
	h, _ := strconv.ParseUint((s + strings.Repeat("0", 16))[:16], 16, 64)
	return KeyHash(h)
}

func textRanges(s *Snapshot) string {
	fields := make([]string, len(s.ranges))
	for i, r := range s.ranges {
		start, end := strings.TrimRight(hexHash(r.Start), "0"), strings.TrimRight(hexHash(r.End), "0")
		if start == "" {
			start = "0"
		}
		fields[i] = s.Shards[r.Shard].Name + ":" + start + "-" + end
	}
	return strings.Join(fields, " ")
}

func textShards(s *Snapshot) string {
	var fields []string
	for _, shard := range s.Shards {
		field := shard.Name
		if shard.State != ShardActive {
			field += " " + shard.State.String()
		}
		for _, n := range shard.Nodes {
			field += fmt.Sprintf(" %v %v", n.Role, n)
		}
		fields = append(fields, "("+field+")")
	}
	return strings.Join(fields, " ")
}

func textRules(r *KeyRules) string {
	fields := append(columnNames(r.Explicit), r.Columns...)
	for _, name := range slices.SortedFunc(maps.Keys(r.Reference), compareTables) {
		fields = append(fields, "="+joinName(name.Schema, name.Name))
	}
	return strings.Join(append(fields, columnNames(r.Named)...), " ")
}

// parseChange reads the commands of testdata/changes.txt.
func parseChange(s string) (Change, error) {
	if parts := strings.Split(s, " ; "); len(parts) > 1 {
		var batch Batch
		for _, part := range parts {
			c, err := parseChange(part)
			if err != nil {
				return nil, err
			}
			batch = append(batch, c)
		}
		return batch, nil
	}
	f := strings.Fields(s)
	verb, arg := f[0], append(f[1:], "", "", "")
	switch verb {
	case "move":
		return MoveRange{digits(arg[0]), digits(arg[1]), arg[2]}, nil
	case "split":
		return SplitRange{digits(arg[0])}, nil
	case "merge":
		return MergeRange{digits(arg[0])}, nil
	case "add":
		return AddShard{Shard{Name: arg[0], Nodes: textNodes(f[2:])}}, nil
	case "remove":
		return RemoveShard{arg[0]}, nil
	case "drain":
		return SetShardState{arg[0], ShardDraining}, nil
	case "activate":
		return SetShardState{arg[0], ShardActive}, nil
	case "add-node":
		return AddNode{arg[0], textNodes(f[1:])[1]}, nil
	case "add-primary":
		return AddNode{arg[0], textNodes(f[2:])[0]}, nil
	case "remove-node":
		return RemoveNode{arg[0], textNodes(f[2:])[0]}, nil
	case "promote":
		return SetPrimary{arg[0], textNodes(f[2:])[0]}, nil
	case "shard-table":
		t, err := ParseTableName(arg[0], "public")
		return SetTable{Table: t, Column: arg[1]}, err
	case "reference":
		t, err := ParseTableName(arg[0], "public")
		return SetTable{Table: t, Reference: true}, err
	case "unlist":
		t, err := ParseTableName(arg[0], "public")
		return SetTable{Table: t}, err
	case "columns":
		return SetRules{KeyRules{Columns: f[1:]}}, nil
	}
	return nil, fmt.Errorf("unknown command %q", verb)
}

// textNodes reads host:port/database; the first is the primary.
func textNodes(fields []string) []Node {
	var nodes []Node
	for i, f := range fields {
		address, database, _ := strings.Cut(f, "/")
		host, port, _ := strings.Cut(address, ":")
		number, _ := strconv.Atoi(port)
		nodes = append(nodes, Node{Host: host, Port: number, Database: database, Role: Role(min(i, 1))})
	}
	return nodes
}

// TestApplyAgreesWithModel draws changes and compares with a map that is kept hash by hash, for the hashes that matter.
func TestApplyAgreesWithModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap, err := New(modelContent())
		if err != nil {
			t.Fatal(err)
		}
		owner := map[KeyHash]string{} // of the cells 0, 1 … f of the ring
		for cell := range KeyHash(16) {
			owner[cell] = snap.Shards[snap.Owner(cell<<60)].Name
		}
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			change := drawChange(t)
			next, err := snap.Apply(change)
			if err != nil {
				continue
			}
			checkApplied(modelTB{t: t}, snap, next, change)
			if m, ok := change.(MoveRange); ok {
				for cell := m.Start >> 60; cell <= (m.End-1)>>60; cell++ {
					owner[cell] = m.Shard
				}
			}
			snap = next
			checkMovingIndex(t, snap)
			for cell, name := range owner {
				for _, h := range []KeyHash{cell << 60, cell<<60 + 1<<60 - 1} {
					if got := snap.Shards[snap.Owner(h)].Name; got != name {
						t.Fatalf("after %v: %016x is owned by %s, not %s", change, uint64(h), got, name)
					}
				}
			}
		}
	})
}

func modelContent() Content {
	c := Content{Cluster: "model", Epoch: 1, Ranges: EqualRanges(4), Rules: DefaultKeyRules()}
	for i := range 4 {
		name := string(rune('a' + i))
		c.Shards = append(c.Shards, Shard{Name: name, Nodes: []Node{{Host: name, Port: 1, Database: "d"}}})
	}
	return c
}

func drawChange(t *rapid.T) Change {
	border := func(name string) KeyHash { return KeyHash(rapid.IntRange(0, 15).Draw(t, name)) << 60 }
	name := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "shard")
	node := Node{Host: name, Port: rapid.IntRange(1, 3).Draw(t, "port"), Database: "d", Role: Replica}
	table := TableName{"public", name}
	switch rapid.IntRange(0, 15).Draw(t, "kind") {
	case 0:
		return SplitRange{border("at")}
	case 1:
		return MergeRange{border("at")}
	case 2:
		return AddShard{Shard{Name: name, Nodes: []Node{{Host: name, Port: node.Port, Database: "d"}, {Host: name + "2", Port: 1, Database: "d", Role: Replica}}}}
	case 3:
		return RemoveShard{name}
	case 4:
		return SetShardState{name, ShardState(rapid.IntRange(0, 1).Draw(t, "state"))}
	case 5:
		return AddNode{name, node}
	case 6:
		return RemoveNode{name, node}
	case 7:
		return SetPrimary{name, node}
	case 8:
		return SetTable{Table: table, Column: rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "column")}
	case 9:
		return SetTable{Table: table, Reference: true}
	}
	id := int64(rapid.IntRange(1, 3).Draw(t, "move"))
	switch rapid.IntRange(0, 5).Draw(t, "of moves") {
	case 0:
		return EndMoving{id}
	case 1, 2:
		m := Moving{ID: id, Source: name, Target: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "target")}
		m.Ranges = []KeyRange{{Start: border("start"), End: border("end")}}
		if rapid.Bool().Draw(t, "held") {
			m.Hold = Epoch(rapid.IntRange(1, 40).Draw(t, "hold"))
		}
		return SetMoving{m}
	}
	return MoveRange{border("start"), border("end"), name}
}

// modelTB lets rapid see the faults of a helper.
type modelTB struct {
	testing.TB
	t *rapid.T
}

func (m modelTB) Helper()                      {}
func (m modelTB) Fatalf(f string, args ...any) { m.t.Fatalf(f, args...) }

func TestBatchRefuses(t *testing.T) {
	s := mustNew(t, modelContent())
	for want, b := range map[string]Batch{
		"not 0":                             {},
		"not 10001":                         make(Batch, BatchMax+1),
		"change 2 of the batch is a batch":  {SplitRange{1}, Batch{SplitRange{2}}},
		"change 1 of the batch is a batch ": {nil},
	} {
		if _, err := s.Apply(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := s.Apply(nil); err == nil {
		t.Error("no change was applied")
	}
	nested := Delta{Epoch: 2, Change: Batch{Batch{SplitRange{1}}}}
	if _, err := DecodeDelta(nested.Encode()); err == nil || !strings.Contains(err.Error(), "a batch holds a batch") {
		t.Error(err)
	}
}
