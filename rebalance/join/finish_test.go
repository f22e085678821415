package join

import (
	"log/slog"
	"testing"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

// TestAnnounceAboveHolds: who goes by the map of a hold, which does not know the new shard, must not pass the fence that is raised for it.
func TestAnnounceAboveHolds(t *testing.T) {
	who := topology.Actor{User: "test"}
	node := func(name string) []topology.Node { return []topology.Node{{Host: name, Port: 1, Database: "d"}} }
	first, err := topology.New(topology.Content{
		Cluster: "c", Epoch: 1, Ranges: topology.EqualRanges(2), Rules: topology.DefaultKeyRules(),
		Shards: []topology.Shard{{Name: "s1", Nodes: node("s1")}, {Name: "s2", Nodes: node("s2")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := topology.OpenCatalog(pgtest.Start(t).DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Init(t.Context(), first, who); err != nil {
		t.Fatal(err)
	}
	keeper := topology.NewKeeper(topology.KeeperConfig{Catalog: catalog, Cluster: "c", Log: slog.New(slog.DiscardHandler)}, func(*topology.Snapshot) {})
	if err := keeper.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, held := range []bool{false, true} {
		before := keeper.Snapshot()
		moving := topology.Moving{ID: 1, Source: "s1", Target: "s2", Ranges: first.Ranges()[:1]}
		if held {
			moving.Hold = before.Epoch + 2
		}
		if before, err = keeper.Apply(t.Context(), topology.SetMoving{Moving: moving}, who); err != nil {
			t.Fatal(err)
		}
		a := &addition{Joiner: &Joiner{Keeper: keeper}, who: who, shard: topology.Shard{Name: "s3", Nodes: node("s3"), State: topology.ShardJoining}}
		joining, err := a.announce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if id, there := joining.ShardByName("s3"); !there || joining.Shards[id].State != topology.ShardJoining {
			t.Error("the shard is not joining")
		}
		if joining.Epoch <= before.Stamp() {
			t.Errorf("held %v: raised to %d, and the map before is stamped %d", held, joining.Epoch, before.Stamp())
		}
		if err := a.takeBack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
