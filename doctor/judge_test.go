package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shardproxy/fence"
	"shardproxy/topology"
)

// ward is an examination of a cluster that was asked before: what there is to judge is made by hand.
func ward(t *testing.T, shards int) (*examination, []shardVisit) {
	t.Helper()
	content := topology.Content{Cluster: "shop", Epoch: 7, Ranges: topology.EqualRanges(shards)}
	for i := range shards {
		node := topology.Node{Host: fmt.Sprintf("h%d", i/2), Port: 5432, Database: fmt.Sprintf("app%d", i)}
		content.Shards = append(content.Shards, topology.Shard{Name: fmt.Sprintf("s%d", i+1), Nodes: []topology.Node{node}})
	}
	snap, err := topology.New(content)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]shardVisit, shards)
	for i := range list {
		list[i] = shardVisit{Shard: &snap.Shards[i], id: topology.ShardID(i), primary: visit{node: snap.Shards[i].Nodes[0], facts: facts{
			version: 150_003, preparedMax: 100, walLevel: "logical", connections: 97, server: fmt.Sprint(i), identity: fmt.Sprint(i),
			encoding: "UTF8", collation: "c en_US.UTF-8 en_US.UTF-8", settings: settingsOf(make([]string, len(comparedSettings))),
		}}}
	}
	return &examination{Config: &Config{Cluster: "shop"}, snap: snap}, list
}

func (x *examination) lines() string {
	var lines []string
	for _, f := range x.notes.told() {
		lines = append(lines, fmt.Sprintf("%s %v [%s] %s", f.Check, f.Status, f.Subject, f.Detail))
	}
	return strings.Join(lines, "\n")
}

func TestJudgeServers(t *testing.T) {
	for _, test := range []struct {
		name  string
		make  func(x *examination, shards []shardVisit)
		wants string
	}{
		{"well", func(*examination, []shardVisit) {}, "primaries ok [] 4 primaries answer and take writes"},
		{"old", func(_ *examination, s []shardVisit) { s[1].primary.version = 130_011 }, "primaries error [s2] PostgreSQL 13.11 is too old\nprimaries warning [s2] PostgreSQL 13 here, 15 on s1"},
		{"very old", func(_ *examination, s []shardVisit) { s[0].primary.version = 90_624; s[1].primary.version = 90_624 }, `primaries error [s1, s2] PostgreSQL 9.6 is too old
primaries warning [s3, s4] PostgreSQL 15 here, 9 on s1`},
		{"no two-phase commit", func(_ *examination, s []shardVisit) { s[2].primary.preparedMax = 0 }, "primaries error [s3] max_prepared_transactions is 0: no transaction can write on this shard and another one"},
		{"no moves", func(_ *examination, s []shardVisit) {
			for i := range s {
				s[i].primary.walLevel = "replica"
			}
		}, "primaries warning [s1, s2, s3, s4] wal_level is replica: no key range can be moved away from this shard"},
		{"clocks", func(_ *examination, s []shardVisit) {
			s[0].primary.skew, s[0].primary.skewError = 2*time.Second, 1500*time.Millisecond // may be less
			s[1].primary.skew, s[1].primary.skewError = 90*time.Second, 20*time.Millisecond
			s[2].primary.skew = -3 * time.Second
		}, "primaries warning [s2] the clock is 1m30s ahead of this proxy's\nprimaries warning [s3] the clock is 3s behind this proxy's"},
		{"twice", func(_ *examination, s []shardVisit) { s[3].primary.identity = "1" }, "primaries error [s4] h1:5432 is the same database as that of shard s2"},
		{"partly", func(_ *examination, s []shardVisit) { s[3].primary.partly = errors.New("permission\ndenied") }, "primaries warning [s4] not all could be looked at: permission denied"},
		{"connections", func(x *examination, s []shardVisit) {
			x.Connections = func(shards int) int { return 20 * shards }
			x.Peers = func() []topology.Peer {
				return []topology.Peer{{}, {Status: topology.PeerSuspect}, {Status: topology.PeerDead}}
			}
			s[2].primary.connections, s[3].primary.connections = 120, 120
		}, "primaries warning [h0:5432] takes 97 connections, and 3 proxies may open 120"},
		{"away", func(_ *examination, s []shardVisit) {
			s[0].primary = visit{node: s[0].primary.node, err: errors.New("refused")}
			s[1].primary.recovery = true
		}, "primaries error [s1] the primary h0:5432 does not answer: refused\nprimaries error [s2] the primary h0:5432 is in recovery: it is a replica"},
	} {
		t.Run(test.name, func(t *testing.T) {
			x, shards := ward(t, 4)
			test.make(x, shards)
			x.judgePrimaries(shards)
			if diff := cmp.Diff(test.wants, x.lines()); diff != "" {
				t.Error(diff)
			}
		})
	}
	x, shards := ward(t, 1)
	shards[0].primary.preparedMax = 0
	if x.judgePrimaries(shards); x.lines() != "primaries ok [] 1 primary answers and takes writes" {
		t.Errorf("a single shard needs no two-phase commit: %s", x.lines())
	}
}

func TestJudgeSettings(t *testing.T) {
	x, shards := ward(t, 4)
	shards[0].primary.err = errors.New("away")
	shards[2].primary.encoding = "SQL_ASCII"
	shards[3].primary.collation = "i und"
	shards[3].primary.settings = settingsOf(append([]string{"UTC"}, make([]string, len(comparedSettings)-1)...))
	x.judgeSettings(shards)
	want := `settings error [s3] the encoding is SQL_ASCII here, UTF8 on s2
settings error [s4] the default collation is i und here, c en_US.UTF-8 en_US.UTF-8 on s2
settings warning [s4] TimeZone is UTC here, empty on s2`
	if diff := cmp.Diff(want, x.lines()); diff != "" {
		t.Error(diff)
	}
}

func TestJudgeLeftovers(t *testing.T) {
	x, shards := ward(t, 2)
	x.moves = moves{known: true, open: map[int64]bool{7: true}}
	shards[0].primary.slots = []slot{{"replication slot", "shardproxy_move_7", "16 MB"}, {"publication", "shardproxy_move_7_back", ""}, {"publication", "shardproxy_move_17", ""}}
	shards[1].primary.prepared = []prepared{{"shop", 2, "00:05:00"}, {"bank", 1, "3 days"}}
	x.judgeCommits(shards)
	x.judgeMoves(shards)
	want := `commits error [s2] 2 prepared transactions are waiting for the end of a commit, the oldest for 00:05:00: they hold locks, and VACUUM back
commits warning [s2] 1 prepared transaction of another cluster, bank, the oldest for 3 days
moves warning [s1] publication shardproxy_move_17 belongs to no move that is under way`
	if diff := cmp.Diff(want, x.lines()); diff != "" {
		t.Error(diff)
	}
	x.notes, x.moves = nil, moves{}
	x.judgeMoves(shards)
	if !strings.Contains(x.lines(), "moves warning [s1] replication slot shardproxy_move_7: the catalog cannot be asked whether a move needs it") {
		t.Error(x.lines())
	}
}

func TestJudgeFences(t *testing.T) {
	x, _ := ward(t, 3)
	odd := topology.TableName{Schema: "public", Name: "odd"}
	x.snap = x.snap.WithSchema(&topology.Schema{Tables: map[topology.TableName]*topology.Table{odd: {TableName: odd, Problem: "no key"}}})
	x.judgeFences([]fence.Result{
		{Shard: "s1", Epoch: 7, Problems: []fence.Problem{{Table: odd, What: "it has no fence", Hint: "x"}}},
		{Shard: "s2", Epoch: 8, Problems: []fence.Problem{{What: "the fence is ahead", Hint: "x"}}},
		{Shard: "s3", Err: errors.New("locked")},
	})
	if got, want := x.lines(), "fences warning [s2] the fence is ahead\nfences warning [s3] the fence could not be looked at: locked"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestLookAtCatalog(t *testing.T) {
	at := func(x *examination, change func(c *topology.Content)) *topology.Snapshot {
		c := topology.Content{Cluster: "shop", Epoch: 7, Shards: x.snap.Shards, Ranges: x.snap.Ranges()}
		change(&c)
		s, err := topology.New(c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, test := range []struct {
		change  func(c *topology.Content)
		err     error
		trouble string
		want    string
	}{
		{func(*topology.Content) {}, nil, "", "catalog ok [] it answers, its content is sound, and this proxy is at its epoch 7"},
		{func(*topology.Content) {}, nil, "serving from the file", "catalog warning [] serving from the file"},
		{func(c *topology.Content) { c.Epoch = 9 }, nil, "", "catalog warning [] the catalog is at epoch 9, this proxy at 7"},
		{func(c *topology.Content) { c.Epoch = 3 }, nil, "", "catalog error [] the catalog is at epoch 3, behind this proxy, which is at 7"},
		{func(c *topology.Content) { c.Cluster = "bank" }, nil, "", `catalog error [] the catalog holds the cluster "bank", this proxy serves "shop"`},
		{func(c *topology.Content) { c.Rules = topology.DefaultKeyRules() }, nil, "", "catalog error [] the map of epoch 7 is another one in the catalog than in this proxy"},
		{nil, errors.New("connection refused"), "away", "catalog error [] the catalog cannot be read: connection refused"},
		{nil, fmt.Errorf("%w: a gap", topology.ErrDamaged), "", "catalog error [] " + topology.ErrDamaged.Error() + ": a gap"},
	} {
		x, _ := ward(t, 2)
		x.Catalog = &Catalog{
			Load: func(context.Context) (*topology.Snapshot, error) {
				if test.err != nil {
					return nil, test.err
				}
				return at(x, test.change), nil
			},
			Trouble: func() string { return test.trouble },
			Moves:   func(context.Context) ([]topology.MoveRecord, error) { return []topology.MoveRecord{{ID: 7}}, test.err },
		}
		x.lookAtCatalog(t.Context())
		if diff := cmp.Diff(test.want, x.lines()); diff != "" {
			t.Error(diff)
		}
		if x.moves.known != (test.err == nil) || !x.moves.known == x.moves.open[7] && test.err == nil {
			t.Errorf("moves: %+v", x.moves)
		}
	}
}

func TestLookAtPeers(t *testing.T) {
	x, _ := ward(t, 2)
	ours := topology.MapState{Epoch: 7, Checksum: x.snap.Checksum()}
	x.Peers = func() []topology.Peer {
		return []topology.Peer{
			{Name: "p2", Map: ours},
			{Name: "p3", Addr: "h3:1", Status: topology.PeerSuspect, Map: ours},
			{Name: "p4", Addr: "h4:1", Status: topology.PeerDead, Map: ours},
			{Name: "p5", Status: topology.PeerLeft},
			{Name: "p6", Map: topology.MapState{Epoch: 6}},
			{Name: "p7", Map: topology.MapState{Epoch: 8}},
			{Name: "p8", Map: topology.MapState{Epoch: 7, Checksum: 1}},
		}
	}
	x.lookAtPeers()
	want := `peers error [p8] has another map of epoch 7 than this proxy
peers warning [p3] the peer at h3:1 is suspect
peers warning [p4] the peer at h4:1 is dead
peers warning [p6] is at epoch 6, this proxy at 7
peers warning [p7] is at epoch 8, ahead of this proxy, which is at 7`
	if diff := cmp.Diff(want, x.lines()); diff != "" {
		t.Error(diff)
	}
}

// TestBounds holds that the bounds tell the same of a hash as the map, moves included.
func TestBounds(t *testing.T) {
	content := topology.Content{Cluster: "shop", Epoch: 1, Shards: []topology.Shard{
		{Name: "s1", Nodes: []topology.Node{{Host: "a", Port: 1, Database: "x"}}},
		{Name: "s2", Nodes: []topology.Node{{Host: "b", Port: 1, Database: "x"}}},
		{Name: "s3", Nodes: []topology.Node{{Host: "c", Port: 1, Database: "x"}}},
	}}
	cuts := []topology.KeyHash{0, 1, 100, 1 << 62, 1 << 63, 1<<63 + 5, 3 << 62, 1<<64 - 1}
	for i, start := range cuts {
		end := topology.KeyHash(0)
		if i+1 < len(cuts) {
			end = cuts[i+1]
		}
		content.Ranges = append(content.Ranges, topology.KeyRange{Start: start, End: end, Shard: topology.ShardID([]int{0, 0, 1, 0, 1, 1, 0, 1}[i])})
	}
	snap, err := topology.New(content)
	if err != nil {
		t.Fatal(err)
	}
	moving := topology.SetMoving{Moving: topology.Moving{ID: 1, Source: "s1", Target: "s3", Ranges: []topology.KeyRange{{Start: 3 << 62, End: 1<<64 - 1}}}}
	if snap, err = snap.Apply(moving); err != nil {
		t.Fatal(err)
	}
	x := &examination{Config: &Config{}, snap: snap}
	bounds := x.bounds()
	may := func(shard topology.ShardID, h topology.KeyHash) bool {
		return snap.Owner(h) == shard || shard == 2 && h >= 3<<62 && h < 1<<64-1
	}
	for shard, list := range bounds {
		for _, cut := range cuts {
			for _, h := range []topology.KeyHash{cut - 1, cut, cut + 1} {
				below := 0
				for b := range strings.SplitSeq(list, ",") {
					var n int64
					if _, err := fmt.Sscan(b, &n); err == nil && n <= h.Signed() {
						below++
					}
				}
				if got, want := below%2 == 1, may(topology.ShardID(shard), h); got != want {
					t.Errorf("shard %d, hash %x: %v, want %v, by %s", shard, uint64(h), got, want, list)
				}
			}
		}
	}
}

// TestTold holds how many findings are told.
func TestTold(t *testing.T) {
	var n notes
	n.ok(checkSchema, "well")
	for i := range 12 {
		n.add(checkSchema, Warning, fmt.Sprintf("s%d", i), "odd", "h")
	}
	for i := range 150 {
		n.add(checkSchema, Error, "s1", fmt.Sprintf("table %d\n is missing", i), "h")
	}
	n.ok(checkFences, "well")
	told := n.told()
	if len(told) != findingsMax+2 || told[0].Detail != "table 0 is missing" || told[findingsMax].Detail != "and 51 findings more" || told[findingsMax+1].Check != checkFences {
		t.Errorf("%d: %v … %v", len(told), told[0], told[findingsMax:])
	}
	n = n[1:13]
	if told := n.told(); len(told) != 1 || told[0].Subject != "s0, s1, s2, s3, s4 and 7 more" {
		t.Errorf("%v", told)
	}
}
