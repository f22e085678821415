package mover

import (
	"testing"

	"shardproxy/internal/pgtest"
)

// TestServersRestart ends the source and the target, in good order and by a kill, while a stream runs.
func TestServersRestart(t *testing.T) {
	durable := map[string]string{"synchronous_commit": "on"}
	w := newWorldOn(t, [2]*pgtest.Server{
		pgtest.Start(t, pgtest.Options{Settings: durable}), pgtest.Start(t, pgtest.Options{Settings: durable}),
	}, replicaRole, zooSchema, zooTables()...)
	w.fence(Target)
	ws := w.write(Source, newSeed(t), 3, 200, 0)
	ws.await(t, 300)
	w.copy(CopyOptions{})
	s := start(t, w.m, StreamOptions{})
	for _, side := range []Side{Source, Target, Source, Target} {
		ws.await(t, 200)
		if side == Target {
			// A killed server loses nothing that was confirmed to the slot.
			if err := w.server[side].Kill(); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.server[side].Restart(); err != nil {
			t.Fatal(err)
		}
	}
	ws.await(t, 200)
	ws.stop(t)
	s.catchUp()
	w.same()
}
