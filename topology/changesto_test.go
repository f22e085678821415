package topology

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func nodeAt(host string, role Role) Node {
	return Node{Host: host, Port: 5432, Database: "app", Role: role}
}

// pairOf is a map of s1, with a replica, and s2.
func pairOf(edit func(*Content)) *Snapshot {
	c := Content{
		Cluster: "shop", Epoch: 7, Ranges: EqualRanges(2), Rules: DefaultKeyRules(),
		Shards: []Shard{
			{Name: "s1", Nodes: []Node{nodeAt("h1", Primary), nodeAt("h2", Replica)}},
			{Name: "s2", Nodes: []Node{nodeAt("h3", Primary)}},
		},
	}
	if edit != nil {
		edit(&c)
	}
	s, err := New(c)
	if err != nil {
		panic(err)
	}
	return s
}

func TestChangesTo(t *testing.T) {
	orders := TableName{"public", "orders"}
	for _, test := range []struct {
		name   string
		want   func(*Content)
		ranges bool
		text   string
	}{
		{"nothing", nil, true, ""},
		{"another epoch and order of shards", func(c *Content) {
			c.Epoch = 3
			slices.Reverse(c.Shards)
			c.Ranges = []KeyRange{{End: 1 << 63, Shard: 1}, {Start: 1 << 63, Shard: 0}}
		}, true, ""},
		{"a shard that owns nothing", func(c *Content) {
			c.Shards = append(c.Shards, Shard{Name: "s3", State: ShardDraining, Nodes: []Node{nodeAt("h4", Primary)}})
		}, true, "add shard s3 (primary h4:5432/app)"},
		{"nodes", func(c *Content) {
			c.Shards[0].Nodes = []Node{nodeAt("h9", Primary), nodeAt("h1", Replica), nodeAt("h8", Replica)}
			c.Shards[1].State = ShardDraining
		}, true, "remove node h2:5432/app from shard s1; add replica h9:5432/app to shard s1; add replica h8:5432/app to shard s1; " +
			"make h9:5432/app the primary of shard s1; drain shard s2"},
		{
			"another primary alone", func(c *Content) { c.Shards[1].Nodes[0] = nodeAt("h7", Primary) }, true,
			"add replica h7:5432/app to shard s2; make h7:5432/app the primary of shard s2; remove node h3:5432/app from shard s2",
		},
		{"a replica goes to another shard", func(c *Content) {
			c.Shards[0].Nodes = c.Shards[0].Nodes[:1]
			c.Shards[1].Nodes = append(c.Shards[1].Nodes, nodeAt("h2", Replica))
		}, true, "remove node h2:5432/app from shard s1; add replica h2:5432/app to shard s2"},
		{"borders", func(c *Content) {
			c.Ranges = []KeyRange{{End: 5}, {Start: 5, End: 1 << 62}, {Start: 1 << 62, End: 1 << 63}, {Start: 1 << 63, Shard: 1}}
		}, true, "split at 0000000000000005; split at 4000000000000000"},
		{"ranges that say nothing", func(c *Content) { c.Ranges = []KeyRange{{Shard: 1}} }, false, ""},
		{"tables", func(c *Content) {
			c.Rules.Explicit = map[TableName]string{orders: "customer"}
			c.Rules.Reference = map[TableName]bool{{"public", "plans"}: true}
		}, true, "shard table public.orders by customer; make public.plans a reference table"},
		{"general rules", func(c *Content) { c.Rules.RefuseUnlisted = true }, true, "set the rules of all tables: 0 sharded, 0 reference, 2 columns"},
	} {
		batch, err := pairOf(nil).ChangesTo(pairOf(test.want), test.ranges)
		if err != nil || batch.String() != test.text {
			t.Errorf("%s: %v, %v, want %s", test.name, batch, err, test.text)
		}
	}
	back, err := pairOf(func(c *Content) {
		c.Rules.Explicit = map[TableName]string{orders: "customer"}
		c.Ranges = []KeyRange{{End: 5}, {Start: 5, End: 1 << 63}, {Start: 1 << 63, Shard: 1}}
	}).ChangesTo(pairOf(nil), true)
	if want := "merge at 0000000000000005; remove the rule of table public.orders"; err != nil || back.String() != want {
		t.Errorf("%v, %v", back, err)
	}
}

func TestChangesToRefuses(t *testing.T) {
	var moves ErrNeedsMoves
	_, err := pairOf(nil).ChangesTo(pairOf(func(c *Content) { c.Ranges = []KeyRange{{End: 5, Shard: 1}, {Start: 5}} }), true)
	if !errors.As(err, &moves) || moves.Parts != 2 || !strings.Contains(moves.First, "those from 0000000000000000 on from shard s1 to shard s2") {
		t.Errorf("keys of another shard: %v", err)
	}
	one := func(c *Content) { c.Shards, c.Ranges = c.Shards[:1], EqualRanges(1) }
	if _, err := pairOf(nil).ChangesTo(pairOf(one), true); !errors.As(err, &moves) || moves.Parts != 1 {
		t.Errorf("a shard goes that owns keys: %v", err)
	}
	if _, err := pairOf(nil).ChangesTo(pairOf(one), false); err == nil || !strings.Contains(err.Error(), "remove shard s2: it owns key ranges") {
		t.Errorf("a shard goes that owns keys, and the file does not say whose they are: %v", err)
	}
	var other ErrExists
	if _, err := pairOf(nil).ChangesTo(pairOf(func(c *Content) { c.Cluster = "bank" }), true); !errors.As(err, &other) {
		t.Errorf("another cluster: %v", err)
	}
}

// TestChangesToAny goes from any map to any other that gives the keys to the same shards, and arrives there.
func TestChangesToAny(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	content := func(t *rapid.T, label string) Content {
		c := Content{Cluster: "shop", Epoch: 1, Rules: DefaultKeyRules()}
		c.Rules.Explicit, c.Rules.Reference = map[TableName]string{}, map[TableName]bool{}
		for _, name := range names {
			if name != "a" && rapid.Bool().Draw(t, label+name) {
				continue
			}
			s := Shard{Name: name, State: ShardState(rapid.IntRange(0, 1).Draw(t, label+"state"))}
			for i := range rapid.IntRange(1, 3).Draw(t, label+"nodes") {
				role := Replica
				if i == 0 {
					role = Primary
				}
				host := name + string(rune('0'+(i+rapid.IntRange(0, 2).Draw(t, label+"host"))%9))
				if !slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Host == host }) {
					s.Nodes = append(s.Nodes, nodeAt(host, role))
				}
			}
			c.Shards = append(c.Shards, s)
		}
		cuts := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 9), 0, 5, rapid.ID).Draw(t, label+"cuts")
		slices.Sort(cuts)
		from := KeyHash(0)
		for _, at := range cuts {
			c.Ranges = append(c.Ranges, KeyRange{Start: from, End: KeyHash(at)})
			from = KeyHash(at)
		}
		c.Ranges = append(c.Ranges, KeyRange{Start: from}) // all of shard a, which each map has
		for _, table := range rapid.SliceOfDistinct(rapid.SampledFrom(names), rapid.ID).Draw(t, label+"tables") {
			if name := (TableName{"public", table}); rapid.Bool().Draw(t, label+"sharded") {
				c.Rules.Explicit[name] = "id"
			} else {
				c.Rules.Reference[name] = true
			}
		}
		return c
	}
	rapid.Check(t, func(t *rapid.T) {
		from, err := New(content(t, "from"))
		if err != nil {
			t.Fatal(err)
		}
		to, err := New(content(t, "to"))
		if err != nil {
			t.Fatal(err)
		}
		batch, err := from.ChangesTo(to, true)
		if err != nil {
			t.Fatal(err)
		}
		if len(batch) == 0 {
			if from.Checksum() != to.Checksum() {
				t.Fatal("there is a difference, and no change")
			}
			return
		}
		next, err := from.Apply(batch)
		if err != nil || next.Checksum() != to.Checksum() {
			t.Fatalf("%v: %v", batch, err)
		}
		if more, err := next.ChangesTo(to, true); err != nil || len(more) != 0 {
			t.Fatalf("%v, %v is left", more, err)
		}
	})
}
