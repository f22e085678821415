package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"shardproxy/topology"
)

// The background check of schemas compares every shard with the first of the map that answers: statements are planned with
// its schema. It must cost next to nothing.
const (
	driftPause      = 100 * time.Millisecond // between two shards: each look is a connection, and some 0.1 ms a table on the shard
	driftAgain      = 5 * time.Minute        // between two looks at a shard: what is made behind our back is no matter of seconds
	driftSettle     = 10 * time.Second       // after a change of the schema through a proxy
	driftConfirm    = 20 * time.Second       // before a second look: longer than a commit that lost its proxy waits for recovery
	driftTime       = 10 * time.Second       // for one look
	driftPoll       = time.Second            // for a change of the schema, or of the map
	driftReferences = 3                      // shards that are tried as the one to compare with
	driftMost       = 100                    // differences of a shard that are kept: with an empty database, all objects are missing
)

// ShardDrift is what this proxy knows of the schema of one shard.
type ShardDrift struct {
	Shard       string
	Checked     time.Time             // when it was last looked at
	Err         error                 // why its schema is not known
	Differences []topology.Difference // from the shard that statements are planned with; none: its schema is the same
}

// driftKeeper knows the schemas of the shards.
type driftKeeper struct {
	schedule driftSchedule         // of the goroutine that looks, as the three below
	sum      string                // of the schema to compare with
	version  uint64                // of the schema when it was last looked at
	first    map[string]ShardDrift // what a first look has found, until the second

	mu     sync.Mutex // guards shards
	shards map[string]ShardDrift
}

// Drift gives what is known of the shards that this proxy looks after, by name. A difference counts when it was seen twice, some
// time apart: a change of the schema does not come to all shards at once.
func (s *Server) Drift() []ShardDrift {
	s.drift.mu.Lock()
	list := make([]ShardDrift, 0, len(s.drift.shards))
	for _, d := range s.drift.shards {
		list = append(list, d)
	}
	s.drift.mu.Unlock()
	slices.SortFunc(list, func(a, b ShardDrift) int { return cmp.Compare(a.Shard, b.Shard) })
	return list
}

// watchDrift looks at one shard after the other until ctx ends.
func (s *Server) watchDrift(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-s.learned:
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(s.driftStep(ctx))
	}
}

// driftStep looks at one shard, if one is due, and says how long to wait before the next step.
func (s *Server) driftStep(ctx context.Context) time.Duration {
	d, snap := &s.drift, s.snapshot.Load()
	if v := snap.Schema.Version; v != d.version { // also at the start
		d.version = v
		d.schedule.change(time.Now())
	}
	for ctx.Err() == nil {
		shard, again, newLap, wait := d.schedule.next(time.Now(), len(snap.Shards))
		if wait > 0 {
			return min(wait, driftPoll)
		}
		if newLap {
			d.sum = ""
			d.forget(snap)
		}
		id := topology.ShardID(shard)
		if again != "" {
			named, known := snap.ShardByName(again)
			if !known {
				continue
			}
			id = named
		}
		if name := snap.Shards[id].Name; !s.looksAfter(name) {
			d.leave(name)
			continue
		}
		s.lookAfter(ctx, snap, id)
		return driftPause
	}
	return driftPoll
}

// looksAfter says whether the shard is this proxy's to look at.
func (s *Server) looksAfter(shard string) bool { return s.cfg.Checks == nil || s.cfg.Checks(shard) }

// lookAfter looks at a shard and takes note of what it has found.
func (s *Server) lookAfter(ctx context.Context, snap *topology.Snapshot, shard topology.ShardID) {
	limited, cancel := context.WithTimeout(ctx, driftTime)
	defer cancel()
	found := ShardDrift{Shard: snap.Shards[shard].Name}
	found.Differences, found.Err = s.compareSchema(limited, snap, shard)
	if ctx.Err() != nil {
		return
	}
	found.Checked, found.Differences = time.Now(), found.Differences[:min(len(found.Differences), driftMost)]
	was, counts := s.drift.note(found)
	if counts {
		s.tellDrift(was, found)
	}
}

// compareSchema compares the schema of a shard with that of the reference. Mostly two checksums do.
func (s *Server) compareSchema(ctx context.Context, snap *topology.Snapshot, shard topology.ShardID) ([]topology.Difference, error) {
	d := &s.drift
	if d.sum == "" {
		if _, err := s.readReference(ctx, snap); err != nil {
			return nil, err
		}
	}
	var here *topology.Fingerprint
	same := false
	err := s.OnNode(ctx, snap.Shards[shard].Nodes[0], func(query topology.Query) error {
		sum, err := topology.ReadFingerprintSum(ctx, query)
		if same = sum == d.sum; err != nil || same {
			return err
		}
		here, err = topology.ReadFingerprint(ctx, query, snap.Shards[shard].Name)
		return err
	})
	if err != nil || same {
		return nil, err
	}
	reference, err := s.readReference(ctx, snap) // which may have been changed meanwhile
	if err != nil {
		return nil, err
	}
	return topology.Differences(reference, here), nil
}

// readReference reads the schema that the others are compared with.
func (s *Server) readReference(ctx context.Context, snap *topology.Snapshot) (f *topology.Fingerprint, err error) {
	var errs []error
	for i := range min(driftReferences, len(snap.Shards)) {
		shard := &snap.Shards[i]
		err := s.OnNode(ctx, shard.Nodes[0], func(query topology.Query) (err error) {
			f, err = topology.ReadFingerprint(ctx, query, shard.Name)
			return err
		})
		if err == nil {
			s.drift.sum = f.Sum
			return f, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("there is no schema to compare with: %w", errors.Join(errs...))
}

// note takes a finding. Where it is as before, or all is well, it counts at once; else a second look must find it too.
func (d *driftKeeper) note(found ShardDrift) (was ShardDrift, counts bool) {
	d.mu.Lock()
	was = d.shards[found.Shard]
	d.mu.Unlock()
	first, seen := d.first[found.Shard]
	delete(d.first, found.Shard)
	switch well := found.Err == nil && len(found.Differences) == 0; {
	case well, found.Err != nil && was.Err != nil, found.Err == nil && slices.Equal(found.Differences, was.Differences):
	case seen && found.Err != nil && first.Err != nil:
	case seen && found.Err == nil && first.Err == nil && common(first.Differences, found.Differences) != nil:
		found.Differences = common(first.Differences, found.Differences)
	default:
		if d.first == nil {
			d.first = make(map[string]ShardDrift)
		}
		d.first[found.Shard] = found
		d.schedule.lookAgain(found.Shard, found.Checked)
		return was, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shards == nil {
		d.shards = make(map[string]ShardDrift)
	}
	d.shards[found.Shard] = found
	return was, true
}

// common gives the differences that both looks have found.
func common(first, second []topology.Difference) (both []topology.Difference) {
	seen := make(map[topology.Difference]bool, len(first))
	for _, f := range first {
		seen[f] = true
	}
	for _, s := range second {
		if seen[s] {
			both = append(both, s)
		}
	}
	return both
}

// leave forgets a shard that another proxy looks after now.
func (d *driftKeeper) leave(shard string) {
	delete(d.first, shard)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.shards, shard)
}

// forget forgets the shards that have left the map.
func (d *driftKeeper) forget(snap *topology.Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for shard := range d.shards {
		if _, ok := snap.ShardByName(shard); !ok {
			delete(d.shards, shard)
		}
	}
}

// tellDrift logs that something is otherwise than at the last look. Expressions of the schema, which may hold literals, are not
// logged.
func (s *Server) tellDrift(was, is ShardDrift) {
	log := s.cfg.Log.With("shard", is.Shard)
	well := func(d ShardDrift) bool { return d.Err == nil && len(d.Differences) == 0 }
	switch {
	case is.Err != nil && was.Err == nil:
		log.Warn("the schema of a shard cannot be read", "error", is.Err)
	case len(is.Differences) > 0 && !slices.Equal(is.Differences, was.Differences):
		d := is.Differences[0]
		log.Warn("the schema of a shard differs from the one that statements are planned with: see shardctl doctor",
			"differences", len(is.Differences), "first", d.Kind+" "+d.Name)
	case well(is) && !well(was):
		log.Info("the schema of a shard is as it should be again")
	}
}
