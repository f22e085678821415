package main

import (
	"context"
	"errors"
	"time"

	"shardproxy/fence"
	"shardproxy/topology"
)

// fences are those of the shards of the map that the proxy goes by now, for the console.
type fences struct{ *service }

// Install also makes the proxies read the schema, so that they fence the tables that are created from now on.
func (f fences) Install(ctx context.Context) []fence.Result {
	snap := f.server.Snapshot()
	for end := time.Now().Add(fenceHoldTime); snap.AnyHeld() && time.Now().Before(end) && ctx.Err() == nil; snap = f.server.Snapshot() {
		time.Sleep(fenceHoldAgain)
	}
	if snap.AnyHeld() {
		return []fence.Result{{Shard: "all", Err: errors.New("key ranges are being cut over, and their shards do not own yet what the map says: try again")}}
	}
	results := fence.InstallAll(ctx, snap, f.onShard(snap))
	f.server.SchemaChanged()
	if f.keeper != nil {
		f.keeper.SchemaChanged()
	}
	return results
}

// Check compares with the map.
func (f fences) Check(ctx context.Context) []fence.Result {
	snap := f.server.Snapshot()
	return fence.CheckAll(ctx, snap, f.onShard(snap))
}

// onShard asks the primaries of one map, whatever comes after it: a number of a shard means another one there.
func (f fences) onShard(snap *topology.Snapshot) fence.OnShard {
	return func(ctx context.Context, shard topology.ShardID, run func(topology.Query) error) error {
		return f.server.OnNode(ctx, snap.Shards[shard].Nodes[0], run)
	}
}

// fenceHoldTime is more than a cutover takes that nothing has gone wrong with.
const (
	fenceHoldTime  = 10 * time.Second
	fenceHoldAgain = 50 * time.Millisecond
)

// devFenceTime is more than the fences of a dev cluster take on a slow machine.
const devFenceTime = time.Minute

// serveFenced is serve of a dev cluster, whose shards get their fences before the first client comes.
func serveFenced(ctx context.Context, file string, ready func()) error {
	return serveAfter(ctx, file, func(ctx context.Context, s *service) { s.installFences(ctx) }, ready)
}

// installFences tells of what goes wrong and goes on: without fences, all works but for a proxy that is cut off.
func (s *service) installFences(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, devFenceTime)
	defer cancel()
	for _, r := range (fences{s}).Install(ctx) {
		if ctx.Err() == context.Canceled {
			return // it is being stopped
		}
		if r.Err != nil {
			s.log.Warn("a shard has no fence; shardctl fence install tries again", "shard", r.Shard, "error", r.Err)
		}
		for _, p := range r.Problems {
			s.log.Warn("a fence is not complete", "shard", r.Shard, "problem", p.String(), "hint", p.Hint)
		}
	}
}
