package join

import (
	"context"
	"time"

	"shardproxy/topology"
)

const (
	watchEvery  = time.Second
	abandonedAt = 15 * time.Second // more than finishTime and takeBackTime
)

// Watch takes shards out of the map that were left joining by somebody who was killed, until ctx ends. Every proxy does so; the
// first one's change counts.
func (j *Joiner) Watch(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var since time.Time
	var was topology.Node
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		shard := joining(j.Keeper.Snapshot())
		switch {
		case shard == nil:
			since = time.Time{}
		case since.IsZero() || was != shard.Nodes[0]:
			since, was = time.Now(), shard.Nodes[0]
		case time.Since(since) > abandonedAt:
			limited, cancel := context.WithTimeout(ctx, takeBackTime)
			_, err := j.Keeper.Apply(limited, topology.RemoveShard{Name: shard.Name}, topology.Actor{User: "shardproxy", From: "a shard was left joining"})
			cancel()
			j.Log.Warn("a shard was left joining and is taken out of the map", "shard", shard.Name, "error", err)
		}
	}
}

func joining(snap *topology.Snapshot) *topology.Shard {
	for i := range snap.Shards {
		if snap.Shards[i].State == topology.ShardJoining {
			return &snap.Shards[i]
		}
	}
	return nil
}
