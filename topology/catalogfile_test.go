package topology

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFileRoundTrip(t *testing.T) {
	for _, c := range []Content{richContent(), modelContent(), scaleContent(100)} {
		c.Moving = nil // what is under way is not for another cluster
		s := mustNew(t, c)
		f := s.File()
		content, err := f.Content()
		if err != nil {
			t.Fatal(err)
		}
		sameContent(t, s, mustNew(t, content))
		if got := mustNew(t, content).Epoch; got != s.Epoch {
			t.Errorf("epoch %d, want %d", got, s.Epoch)
		}
	}
}

// TestFileByHand holds the defaults: equal ranges, the first epoch, active shards, schema public.
func TestFileByHand(t *testing.T) {
	f := File{Cluster: FileCluster{Name: "c"}, Tables: FileTables{Explicit: []string{"orders.customer"}, Reference: []string{"a.b"}, Named: []string{"users.id"}}}
	for _, name := range []string{"b", "a"} {
		f.Shards = append(f.Shards, FileShard{Name: name, Nodes: []FileNode{{name, 5432, "app", "primary"}}})
	}
	content, err := f.Content()
	if err != nil {
		t.Fatal(err)
	}
	s := mustNew(t, content)
	if s.Epoch != 1 || textRanges(s) != "b:0-8 a:8-" || textShards(s) != "(b primary b:5432/app) (a primary a:5432/app)" {
		t.Errorf("%d %s %s", s.Epoch, textRanges(s), textShards(s))
	}
	if got := textRules(&s.Rules); got != "public.orders.customer =a.b users.id" {
		t.Error(got)
	}
}

func TestFileRefuses(t *testing.T) {
	for want, edit := range map[string]func(*File){
		`shards[1].state: "gone"`:                  func(f *File) { f.Shards[1].State = "gone" },
		`shards[0].nodes[1].role: "leader"`:        func(f *File) { f.Shards[0].Nodes[1].Role = "leader" },
		`ranges[2].shard: "s9"`:                    func(f *File) { f.Ranges[2].Shard = "s9" },
		`ranges[0].end: "1" is not 16`:             func(f *File) { f.Ranges[0].End = "1" },
		`ranges[0].start: "000000000000000g"`:      func(f *File) { f.Ranges[0].Start = "000000000000000g" },
		`ranges[0].start: "+000000000000001"`:      func(f *File) { f.Ranges[0].Start = "+000000000000001" },
		`tables.unlisted: "copy"`:                  func(f *File) { f.Tables.Unlisted = "copy" },
		`tables.explicit[0]: "t" is not of the`:    func(f *File) { f.Tables.Explicit[0] = "t" },
		`tables.explicit[2]: table a.b is listed`:  func(f *File) { f.Tables.Explicit = []string{"a.b.c", "x.c", "a.b.d"} },
		`tables.reference[0]: "a.b.c" is not of`:   func(f *File) { f.Tables.Reference[0] = "a.b.c" },
		`tables.named[0]: "\"a" is not a name`:     func(f *File) { f.Tables.Named[0] = `"a` },
		`tables.named[0]: "a." is not a name`:      func(f *File) { f.Tables.Named[0] = `a.` },
		`tables.named[0]: "\"a\"b.c" is not a nam`: func(f *File) { f.Tables.Named[0] = `"a"b.c` },
	} {
		f := mustNew(t, richContent()).File()
		edit(&f)
		if _, err := f.Content(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, parts := range [][]string{{"a"}, {"a", "b"}, {"a.b", "c"}, {`"`, `a"b`, "."}, {`""`}, {"ü ", "B"}} {
		got, err := splitName(joinName(parts...))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(parts, got); diff != "" {
			t.Error(diff)
		}
	}
}
