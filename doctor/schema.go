package doctor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"shardproxy/topology"
)

// secondLook is the default of Config.SecondLook: a change of the schema that is under way comes to all shards within that.
const secondLook = 2 * time.Second

func readSum(ctx context.Context, query topology.Query, v *visit) (err error) {
	v.sum, err = topology.ReadFingerprintSum(ctx, query)
	return err
}

// judgeSchemas compares the schemas of all shards with that of the first, which statements are planned with.
func (x *examination) judgeSchemas(ctx context.Context, shards []shardVisit) {
	reference := first(shards)
	if reference == nil {
		return
	}
	var others []*shardVisit
	same := 0
	for i := range shards {
		switch v := &shards[i]; {
		case !v.answers():
		case v.primary.sum == "":
			x.notes.add(checkSchema, Warning, v.Name, "the schema could not be read, perhaps because a table is locked", "Repeat this.")
		case v.primary.sum != reference.primary.sum:
			others = append(others, v)
		default:
			same++
		}
	}
	seen := x.differences(ctx, reference, others)
	if slices.ContainsFunc(seen, func(d []topology.Difference) bool { return len(d) > 0 }) {
		select {
		case <-ctx.Done():
		case <-time.After(x.SecondLook):
		}
		again := x.differences(ctx, reference, others)
		for i := range seen {
			seen[i] = slices.DeleteFunc(seen[i], func(d topology.Difference) bool { return !slices.Contains(again[i], d) })
		}
	}
	for i, v := range others {
		if len(seen[i]) == 0 {
			same++
		}
		for _, d := range seen[i] {
			status := Error
			if d.Lesser() {
				status = Warning
			}
			x.notes.add(checkSchema, status, v.Name, d.String(),
				"Make the shards alike, each by itself: statements are planned with the schema of "+reference.Name+". From now on change tables through a proxy only.")
		}
	}
	x.notes.ok(checkSchema, "%s the same schema", agree(same, "shard", "has", "have"))
}

// differences reads the schemas that are not those of the reference, in the order of others.
func (x *examination) differences(ctx context.Context, reference *shardVisit, others []*shardVisit) [][]topology.Difference {
	list := make([][]topology.Difference, len(others))
	if len(others) == 0 {
		return list
	}
	was, err := x.readSchema(ctx, reference)
	if err != nil {
		x.notes.add(checkSchema, Warning, reference.Name, err.Error(), "Repeat this: a table may have been locked.")
		return list
	}
	var mu sync.Mutex // guards notes
	each(len(others), func(i int) {
		is, err := x.readSchema(ctx, others[i])
		if err == nil {
			list[i] = topology.Differences(was, is)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		x.notes.add(checkSchema, Warning, others[i].Name, err.Error(), "Repeat this: a table may have been locked.")
	})
	return list
}

func (x *examination) readSchema(ctx context.Context, v *shardVisit) (f *topology.Fingerprint, err error) {
	ctx, cancel := context.WithTimeout(ctx, x.ShardTime)
	defer cancel()
	err = x.OnNode(ctx, v.primary.node, func(query topology.Query) (err error) {
		f, err = topology.ReadFingerprint(ctx, query, v.Name)
		return err
	})
	if err == nil && f == nil {
		err = fmt.Errorf("the schema of shard %s was not read", v.Name)
	}
	return f, err
}
