package doctor

import (
	"context"
	"errors"

	"shardproxy/fence"
	"shardproxy/topology"
)

// lookAtFences asks the shards that answer for their fences.
func (x *examination) lookAtFences(ctx context.Context, shards []shardVisit) {
	onShard := func(ctx context.Context, shard topology.ShardID, f func(query topology.Query) error) error {
		if !shards[shard].answers() {
			return errSilent
		}
		return x.OnNode(ctx, shards[shard].primary.node, f)
	}
	x.judgeFences(fence.CheckAll(ctx, x.snap, onShard))
}

// errSilent is of a shard that was a finding already.
var errSilent = errors.New("the shard does not answer")

func (x *examination) judgeFences(results []fence.Result) {
	fenced, bare := 0, 0
	for i := range results {
		switch {
		case results[i].Err != nil:
		case results[i].Epoch == 0:
			bare++
		default:
			fenced++
		}
	}
	if fenced == 0 && bare > 0 {
		x.notes.add(checkFences, Warning, "", "no shard has a fence: a proxy that hears of no changes can write where others do not look",
			"shardctl fence install makes them.")
		return
	}
	for i := range results {
		r := &results[i]
		if r.Err != nil && !errors.Is(r.Err, errSilent) {
			x.notes.add(checkFences, Warning, r.Shard, "the fence could not be looked at: "+r.Err.Error(), "Repeat this; look at the rights of the service user.")
		}
		status := Error
		if r.Epoch > x.snap.Epoch {
			status = Warning // a move may be under way
		}
		for _, p := range r.Problems {
			if t := x.snap.Schema.Tables[p.Table]; t != nil && t.Problem != "" {
				continue // which is told of tables
			}
			x.notes.add(checkFences, status, r.Shard, p.String(), p.Hint)
		}
	}
	x.notes.ok(checkFences, "%s as the map wants it", agree(fenced, "fence", "is", "are"))
}
