package topology

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// richContent uses every field.
func richContent() Content {
	return Content{
		Cluster: "prod", Epoch: 77,
		Shards: []Shard{
			{Name: "s1", Nodes: []Node{{"s1-a.example.com", 5432, "app", Primary}, {"s1-b.example.com", 5432, "app", Replica}, {"::1", 6000, "other", Replica}}},
			{Name: "s10", Nodes: []Node{{"/var/run/postgresql", 5432, "app", Primary}}, State: ShardDraining},
			{Name: "ü 2", Nodes: []Node{{"ü", 1, "app", Primary}, {"ü", 65535, "a", Replica}}},
		},
		Ranges: []KeyRange{{0, 1, 2}, {1, 2, 0}, {2, 1 << 63, 1}, {1 << 63, ^KeyHash(0), 2}, {^KeyHash(0), 0, 0}},
		Rules: KeyRules{
			Explicit:  map[TableName]string{{"public", "users"}: "id", {"a.b", `q"x`}: "c d"},
			Reference: map[TableName]bool{{"public", "countries"}: true},
			Columns:   []string{"user_id", "creator_user_id"},
			Named:     map[TableName]string{{"", "users"}: "id", {"s", "t"}: "x"}, RefuseUnlisted: true,
		},
		Moving: []Moving{
			{ID: 3, Source: "s10", Target: "ü 2", Ranges: []KeyRange{{Start: 1, End: 2}, {Start: 1 << 63, End: 0}}},
			{ID: 1 << 40, Source: "ü 2", Target: "s10", Ranges: []KeyRange{{Start: 2, End: 1 << 62}}, Hold: 78},
		},
	}
}

func mustNew(t testing.TB, c Content) *Snapshot {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sameContent compares what two snapshots say.
func sameContent(t testing.TB, want, got *Snapshot) {
	t.Helper()
	if diff := cmp.Diff(want.Content(), got.Content(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if want.Checksum() != got.Checksum() {
		t.Errorf("checksum %016x, want %016x", got.Checksum(), want.Checksum())
	}
}

func TestSnapshotSurvivesEncoding(t *testing.T) {
	for _, c := range []Content{richContent(), modelContent(), scaleContent(2000)} {
		s := mustNew(t, c)
		got, err := DecodeSnapshot(s.Encode())
		if err != nil {
			t.Fatal(err)
		}
		sameContent(t, s, got)
	}
}

// TestEncodingIsWhole fails when a field is added that would be forgotten on the way.
func TestEncodingIsWhole(t *testing.T) {
	for _, v := range []struct {
		value  any
		fields int
	}{{KeyRules{}, 5}, {Shard{}, 3}, {Node{}, 4}, {KeyRange{}, 3}, {Content{}, 6}, {Moving{}, 5}} {
		if n := reflect.TypeOf(v.value).NumField(); n != v.fields {
			t.Errorf("%T has %d fields, not %d: extend Encode, the checksum, the catalog and File, and then this test", v.value, n, v.fields)
		}
	}
}

// TestChecksumSeesEveryField changes one thing at a time.
func TestChecksumSeesEveryField(t *testing.T) {
	seen := map[uint64]string{}
	for name, edit := range map[string]func(*Content){
		"nothing":        func(*Content) {},
		"cluster":        func(c *Content) { c.Cluster = "prod2" },
		"shard name":     func(c *Content) { c.Shards[0].Name = "s2" },
		"shard state":    func(c *Content) { c.Shards[0].State = ShardDraining },
		"node host":      func(c *Content) { c.Shards[0].Nodes[1].Host = "x" },
		"node port":      func(c *Content) { c.Shards[0].Nodes[1].Port = 5433 },
		"node database":  func(c *Content) { c.Shards[0].Nodes[1].Database = "x" },
		"primary":        func(c *Content) { c.Shards[0].Nodes[0].Role, c.Shards[0].Nodes[1].Role = Replica, Primary },
		"fewer nodes":    func(c *Content) { c.Shards[0].Nodes = c.Shards[0].Nodes[:2] },
		"border":         func(c *Content) { c.Ranges[0].End, c.Ranges[1].Start = 2, 2; c.Ranges[1].End, c.Ranges[2].Start = 3, 3 },
		"owner":          func(c *Content) { c.Ranges[0].Shard = 1 },
		"owners swapped": func(c *Content) { c.Ranges[0].Shard, c.Ranges[1].Shard = c.Ranges[1].Shard, c.Ranges[0].Shard },
		"explicit":       func(c *Content) { c.Rules.Explicit[TableName{"public", "users"}] = "x" },
		"reference":      func(c *Content) { delete(c.Rules.Reference, TableName{"public", "countries"}) },
		"columns":        func(c *Content) { c.Rules.Columns = []string{"creator_user_id", "user_id"} },
		"named":          func(c *Content) { c.Rules.Named[TableName{"", "users"}] = "x" },
		"move":           func(c *Content) { c.Moving[0].ID = 4 },
		"moves":          func(c *Content) { c.Moving = c.Moving[:1] },
		"source":         func(c *Content) { c.Moving[0].Source = "s1" },
		"target":         func(c *Content) { c.Moving[0].Target = "s1" },
		"hold":           func(c *Content) { c.Moving[0].Hold = 78 },
		"moving range":   func(c *Content) { c.Moving[0].Ranges[1].Start++ },
		"unlisted":       func(c *Content) { c.Rules.RefuseUnlisted = false },
	} {
		c := richContent()
		edit(&c)
		sum := mustNew(t, c).Checksum()
		if other, ok := seen[sum]; ok {
			t.Errorf("%q and %q have one checksum", name, other)
		}
		seen[sum] = name
	}
	c := richContent()
	c.Epoch++
	c.Shards[0], c.Shards[1] = c.Shards[1], c.Shards[0]
	for i, r := range c.Ranges {
		c.Ranges[i].Shard = []ShardID{1, 0, 2}[r.Shard]
	}
	if mustNew(t, c).Checksum() != mustNew(t, richContent()).Checksum() {
		t.Error("the checksum depends on the epoch or the numbers of the shards")
	}
}

// TestDecodeRefusesDamage flips every bit and cuts at every byte.
func TestDecodeRefusesDamage(t *testing.T) {
	s := mustNew(t, richContent())
	delta := s.Delta(AddShard{s.Shards[0]})
	for name, c := range map[string]struct {
		data   []byte
		decode func([]byte) error
	}{
		"snapshot": {s.Encode(), func(b []byte) error { _, err := DecodeSnapshot(b); return err }},
		"delta":    {delta.Encode(), func(b []byte) error { _, err := DecodeDelta(b); return err }},
	} {
		if err := c.decode(c.data); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range c.data {
			if err := c.decode(c.data[:i]); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s of %d bytes: %v", name, i, err)
			}
			for bit := range 8 {
				c.data[i] ^= 1 << bit
				if err := c.decode(c.data); !errors.Is(err, ErrDamaged) {
					t.Errorf("%s with byte %d bit %d: %v", name, i, bit, err)
				}
				c.data[i] ^= 1 << bit
			}
		}
		if err := c.decode(append(c.data[:len(c.data):len(c.data)], 0)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s with a byte more: %v", name, err)
		}
	}
}

func TestDecodeNamesAForeignVersion(t *testing.T) {
	data := mustNew(t, modelContent()).Encode()
	data[1] = 9
	if _, err := DecodeSnapshot(appendCRC(data[:len(data)-crcSize])); err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Error(err)
	}
}

func TestFollowRefuses(t *testing.T) {
	s := mustNew(t, modelContent())
	next, err := s.Apply(SplitRange{1})
	if err != nil {
		t.Fatal(err)
	}
	good := next.Delta(SplitRange{1})
	for name, d := range map[string]Delta{
		"skipped epoch": {Epoch: good.Epoch + 1, Checksum: good.Checksum, Change: good.Change},
		"old epoch":     {Epoch: s.Epoch, Checksum: s.Checksum(), Change: good.Change},
		"checksum":      {Epoch: good.Epoch, Checksum: good.Checksum + 1, Change: good.Change},
		"impossible":    {Epoch: good.Epoch, Checksum: good.Checksum, Change: SplitRange{0}},
		"none":          {Epoch: good.Epoch, Checksum: good.Checksum},
	} {
		if _, err := s.Follow(d); !errors.Is(err, ErrOutOfStep) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := s.Follow(good); err != nil || got.Epoch != 2 {
		t.Error(err)
	}
}

func TestNewRefuses(t *testing.T) {
	long := strings.Repeat("x", 64)
	for want, edit := range map[string]func(*Content){
		"cluster's name is empty":         func(c *Content) { c.Cluster = "" },
		"at least one shard":              func(c *Content) { c.Shards = nil },
		"at least one shard and":          func(c *Content) { c.Ranges = nil },
		`two shards "s1"`:                 func(c *Content) { c.Shards[1].Name = "s1" },
		"a shard's name is empty":         func(c *Content) { c.Shards[1].Name = "" },
		"longer than 63":                  func(c *Content) { c.Shards[1].Name = long },
		"not printable":                   func(c *Content) { c.Shards[1].Name = "a\nb" },
		`"\xff", is not printable`:        func(c *Content) { c.Shards[1].Name = "\xff" },
		"unknown state 3":                 func(c *Content) { c.Shards[1].State = 3 },
		`"s10" has 0 primaries`:           func(c *Content) { c.Shards[1].Nodes = nil },
		`"s1" has 2 primaries`:            func(c *Content) { c.Shards[0].Nodes[1].Role = Primary },
		"more than 16":                    func(c *Content) { c.Shards[0].Nodes = make([]Node, 17) },
		"unknown role 2":                  func(c *Content) { c.Shards[0].Nodes[1].Role = 2 },
		`twice, for shards "s1" and "s1"`: func(c *Content) { c.Shards[0].Nodes[1].Host = "s1-a.example.com" },
		"is listed twice, for shards":     func(c *Content) { c.Shards[1].Nodes[0].Host = "s1-a.example.com" },
		"does not start at":               func(c *Content) { c.Ranges[1].Start = 5 },
		"unknown shard 3":                 func(c *Content) { c.Ranges[1].Shard = 3 },
		"both sharded by id and":          func(c *Content) { c.Rules.Reference[TableName{"public", "users"}] = true },
		"schema is empty":                 func(c *Content) { c.Rules.Reference[TableName{"", "users"}] = true },
		"listed as no reference":          func(c *Content) { c.Rules.Reference[TableName{"public", "z"}] = false },
		"a table's name is empty":         func(c *Content) { c.Rules.Named[TableName{"public", ""}] = "x" },
		"shard key of table public.z is":  func(c *Content) { c.Rules.Explicit[TableName{"public", "z"}] = "" },
		"a shard key is empty":            func(c *Content) { c.Rules.Columns[0] = "" },
	} {
		c := richContent()
		edit(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestShardByName(t *testing.T) {
	s := mustNew(t, scaleContent(300))
	for i := range s.Shards {
		if id, ok := s.ShardByName(s.Shards[i].Name); !ok || id != ShardID(i) {
			t.Fatalf("%q: %d, %v", s.Shards[i].Name, id, ok)
		}
	}
	for _, name := range []string{"", "s", "s000300", "z"} {
		if id, ok := s.ShardByName(name); ok || id != -1 {
			t.Errorf("%q: %d, %v", name, id, ok)
		}
	}
}

func TestSchemaFits(t *testing.T) {
	s := mustNew(t, modelContent())
	if !s.SchemaFits() {
		t.Error("a new snapshot's schema does not fit")
	}
	next, err := s.Apply(SetTable{Table: TableName{"public", "t"}, Column: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if next.SchemaFits() || !next.WithSchema(&Schema{Rules: next.Rules}).SchemaFits() {
		t.Error("the schema of other rules fits")
	}
}

func FuzzDecodeSnapshot(f *testing.F) {
	f.Add(mustNew(f, richContent()).Encode()[2:])
	f.Add(mustNew(f, modelContent()).Encode()[2:])
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append([]byte{snapshotMark, encodeVersion}, body...)
		if len(data) >= 2+crcSize { // behind the CRC, where the faults are
			data = appendCRC(data[:len(data)-crcSize])
		}
		s, err := DecodeSnapshot(data)
		if err != nil {
			return
		}
		again, err := DecodeSnapshot(s.Encode())
		if err != nil {
			t.Fatal(err)
		}
		sameContent(t, s, again)
	})
}

func FuzzDecodeDelta(f *testing.F) {
	c := richContent()
	s := mustNew(f, c)
	for _, change := range []Change{
		AddShard{c.Shards[0]},
		RemoveShard{"x"},
		SetShardState{"s1", ShardDraining},
		AddNode{"s1", c.Shards[1].Nodes[0]},
		RemoveNode{"s1", c.Shards[0].Nodes[1]},
		SetPrimary{"s1", c.Shards[0].Nodes[1]},
		SetTable{Table: TableName{"a", "b"}, Column: "c"},
		SetRules{DefaultKeyRules()},
		MoveRange{1 << 62, 1 << 63, "s1"},
		SplitRange{99},
		Batch{SplitRange{99}, MergeRange{99}},
	} {
		f.Add(s.Delta(change).Encode()[2:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		data := append([]byte{deltaMark, encodeVersion}, body...)
		if len(data) >= 2+crcSize {
			data = appendCRC(data[:len(data)-crcSize])
		}
		d, err := DecodeDelta(data)
		if err != nil {
			return
		}
		again, err := DecodeDelta(d.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
		if next, err := s.Apply(d.Change); err == nil {
			checkApplied(t, s, next, d.Change)
		}
	})
}
