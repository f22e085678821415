package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/postgres"
	"shardproxy/topology"
)

// nodesOf a shard: a primary and two replicas.
const nodesOf = 3

// result is what one size costs.
type result struct {
	shards    int
	init      time.Duration // the cluster is created in the catalog
	load      time.Duration // the map is read from the catalog
	writeFile time.Duration // the state file
	readFile  time.Duration
	file      int           // bytes of it, and of a map that a peer sends, before it is packed
	held      uint64        // bytes of memory
	lookup    time.Duration // of one key hash
	apply     time.Duration // of a change of one range
	addShard  time.Duration
	commit    time.Duration // of a change of one range, in the catalog
	delta     int           // bytes of that change on its way
}

// catalogServer is a PostgreSQL that ends with this program.
type catalogServer struct {
	pg  *postgres.Server
	dir string
}

func startCatalog(ctx context.Context) (*catalogServer, error) {
	binaries, err := postgres.Find()
	if err != nil {
		return nil, err
	}
	dir, err := postgres.TempDir("shardproxy-scale")
	if err != nil {
		return nil, err
	}
	s := &catalogServer{dir: dir}
	s.pg, err = postgres.New(postgres.Config{Binaries: binaries, Name: "catalog", Dir: filepath.Join(dir, "data"), Log: filepath.Join(dir, "server.log")})
	if err == nil {
		err = s.pg.Init(ctx)
	}
	if err == nil {
		err = s.pg.Start(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func (s *catalogServer) stop() {
	if err := errors.Join(s.pg.StopImmediately(), os.RemoveAll(s.dir)); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
	}
}

func (s *catalogServer) database(ctx context.Context, name string) (*topology.Catalog, error) {
	conn, err := pgx.Connect(ctx, s.pg.DSN("postgres"))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, err
	}
	return topology.OpenCatalog(s.pg.DSN(name))
}

// content is a map of n shards as an operator would name them.
func content(n int) topology.Content {
	c := topology.Content{
		Cluster: "production", Epoch: 1, Rules: topology.DefaultKeyRules(),
		Shards: make([]topology.Shard, n), Ranges: topology.EqualRanges(n),
	}
	for i := range c.Shards {
		s := topology.Shard{Name: fmt.Sprintf("s%06d", i)}
		for j := range nodesOf {
			role := topology.Replica
			if j == 0 {
				role = topology.Primary
			}
			host := fmt.Sprintf("pg-%06d-%c.db.example.com", i, 'a'+j)
			s.Nodes = append(s.Nodes, topology.Node{Host: host, Port: 5432, Database: "app", Role: role})
		}
		c.Shards[i] = s
	}
	return c
}

func measure(ctx context.Context, server *catalogServer, database string, n, rounds int) (*result, error) {
	snap, err := topology.New(content(n))
	if err != nil {
		return nil, err
	}
	r := &result{shards: n, delta: len(topology.Delta{Change: move(snap, 0)}.Encode())}
	catalog, err := server.database(ctx, database)
	if err != nil {
		return nil, err
	}
	if r.init, err = best(1, func() error {
		_, err := catalog.Init(ctx, snap, topology.Actor{User: "bench"})
		return err
	}); err != nil {
		return nil, err
	}
	if r.load, err = best(rounds, func() error {
		_, err := catalog.Load(ctx)
		return err
	}); err != nil {
		return nil, err
	}
	if err := r.files(filepath.Join(server.dir, database), snap, rounds); err != nil {
		return nil, err
	}
	if err := r.changes(snap, rounds); err != nil {
		return nil, err
	}
	r.lookup = lookup(snap)
	last := snap
	i := 0
	r.commit, err = best(rounds, func() error {
		i++
		last, err = catalog.Commit(ctx, last, move(snap, i), topology.Actor{User: "bench"})
		return err
	})
	return r, err
}

// files measures the state file, and what the map read from it holds.
func (r *result) files(path string, snap *topology.Snapshot, rounds int) (err error) {
	if r.writeFile, err = best(rounds, func() error { return topology.WriteStateFile(path, snap) }); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	r.file = int(info.Size())
	if r.readFile, err = best(rounds, func() error {
		_, err := topology.ReadStateFile(path, snap.Cluster)
		return err
	}); err != nil {
		return err
	}
	before := heap()
	read, err := topology.ReadStateFile(path, snap.Cluster)
	if err != nil {
		return err
	}
	r.held = heap() - before
	runtime.KeepAlive(read)
	return nil
}

// changes measures how long a proxy needs for a change that it has heard of.
func (r *result) changes(snap *topology.Snapshot, rounds int) (err error) {
	i := 0
	if r.apply, err = best(5*rounds, func() error {
		i++
		_, err := snap.Apply(move(snap, i))
		return err
	}); err != nil {
		return err
	}
	r.addShard, err = best(5*rounds, func() error {
		_, err := snap.Apply(topology.AddShard{Shard: topology.Shard{Name: "new", Nodes: []topology.Node{{Host: "new", Port: 5432, Database: "app"}}}})
		return err
	})
	return err
}

// move gives a part of a range to another shard.
func move(snap *topology.Snapshot, i int) topology.Change {
	r := snap.Ranges()[(i*7919)%len(snap.Ranges())]
	to := snap.Shards[(int(r.Shard)+1)%len(snap.Shards)].Name
	return topology.MoveRange{Start: r.Start, End: r.Start + 1<<20 + topology.KeyHash(i), Shard: to}
}

// lookup is the time for the owner of one key, over keys in no order.
func lookup(snap *topology.Snapshot) time.Duration {
	const keys, laps = 1 << 16, 64
	hashes := make([]topology.KeyHash, keys)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range hashes {
		hashes[i] = topology.KeyHash(rng.Uint64())
	}
	least := time.Duration(1<<63 - 1)
	var sum topology.ShardID // so that the calls are not left out
	for range 3 {
		from := time.Now()
		for range laps {
			for _, h := range hashes {
				sum += snap.Owner(h)
			}
		}
		least = min(least, time.Since(from))
	}
	runtime.KeepAlive(sum)
	return least / (keys * laps)
}

// heap gives the bytes in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// best is the shortest time that f takes: what else runs on the machine can only add to it.
func best(rounds int, f func() error) (time.Duration, error) {
	var took []time.Duration
	for range rounds {
		runtime.GC()
		from := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(from))
	}
	return slices.Min(took), nil
}
