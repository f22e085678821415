package devcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/internal/postgres"
	"shardproxy/topology"
)

// Cluster is a running cluster. Its fields do not change.
type Cluster struct {
	Dir     string
	Shards  []topology.Shard // in the order of their ranges
	Spares  []topology.Node  // primaries in no map, with an empty database each, until one is added as a shard
	Servers int
	Major   int // PostgreSQL's version
	Catalog string
	Found   bool // the data was there already

	folder    *folder
	shape     shape
	primaries []*member
	replicas  []*member
	spares    []*member
	ports     map[string]int // of the last start, by member
	catalog   *member
	log       *slog.Logger
	stop      func() error
}

// Start makes the cluster, or finds it again in the folder, and returns once every server answers.
// The caller must Stop it.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	bin, err := postgres.Find()
	if err != nil {
		return nil, err
	}
	f, err := openFolder(o.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: f.dir, Major: bin.Major, folder: f, log: o.Log}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.stop = sync.OnceValue(c.stopAll)
	if err := c.open(ctx, o, bin); err != nil {
		if f.made {
			err = errors.Join(err, f.remove())
		}
		f.close()
		return nil, err
	}
	if err := c.startServers(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	c.describe()
	return c, nil
}

// open settles the shape and lays out the members. It starts nothing.
func (c *Cluster) open(ctx context.Context, o Options, bin postgres.Binaries) error {
	o.Dir = c.Dir
	st, err := c.folder.readState()
	if err != nil {
		return err
	}
	if st != nil && st.Ephemeral {
		if err := c.layOut(bin, *st); err != nil {
			return err
		}
		if err := c.folder.discard(ctx, c.all()); err != nil {
			return fmt.Errorf("remove the ephemeral cluster left in %s: %w", c.Dir, err)
		}
		st = nil
	}
	if st == nil {
		s, err := newShape(o)
		if err != nil {
			return err
		}
		st = &state{shape: s}
	} else {
		if err := st.admits(o); err != nil {
			return err
		}
		c.Found = true
	}
	if err := c.layOut(bin, *st); err != nil {
		return err
	}
	if err := os.MkdirAll(c.folder.path("log"), 0o755); err != nil {
		return err
	}
	if err := os.Remove(c.folder.path("dev.json")); err != nil && !os.IsNotExist(err) {
		return err
	}
	return c.folder.writeJSON("cluster.json", st, 0o644)
}

func (c *Cluster) layOut(bin postgres.Binaries, st state) (err error) {
	c.shape = st.shape
	l := layout{bin: bin, folder: c.folder, ports: st.Ports, ephemeral: st.Ephemeral}
	c.ports = st.Ports
	c.primaries, c.replicas, c.spares, c.catalog, err = l.members(st.shape)
	return err
}

func (c *Cluster) all() []*member {
	return append(c.takingWrites(), c.replicas...)
}

// takingWrites are all but the replicas.
func (c *Cluster) takingWrites() []*member {
	return slices.Concat([]*member{c.catalog}, c.primaries, c.spares)
}

// startServers starts the primaries and the catalog, then the replicas, a few at a time.
func (c *Cluster) startServers(ctx context.Context) error {
	for _, wave := range [][]*member{c.takingWrites(), c.replicas} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(max(2, runtime.NumCPU()))
		for _, m := range wave {
			g.Go(func() error {
				from := time.Now()
				if err := m.start(ctx); err != nil {
					return err
				}
				c.log.Debug("server started", "server", m.name, "port", m.pg.Port(), "after", time.Since(from))
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	st := state{shape: c.shape, Ports: map[string]int{}}
	for _, m := range c.all() {
		st.Ports[m.name] = m.pg.Port()
	}
	return c.folder.writeJSON("cluster.json", st, 0o644)
}

// describe fills in the fields that need the ports.
func (c *Cluster) describe() {
	c.Servers = c.shape.Servers
	c.Catalog = c.catalog.pg.DSNAs(catalogUser, catalogPassword, catalogDatabase)
	for i := range c.shape.Shards {
		s := topology.Shard{Name: shardName(i)}
		for _, m := range c.membersOf(i) {
			s.Nodes = append(s.Nodes, topology.Node{
				Host: m.pg.Host(), Port: m.pg.Port(), Database: c.shape.database(i), Role: m.role,
			})
		}
		c.Shards = append(c.Shards, s)
	}
	for _, m := range c.spares {
		c.Spares = append(c.Spares, topology.Node{Host: m.pg.Host(), Port: m.pg.Port(), Database: Database})
	}
}

// membersOf a shard: the primary first.
func (c *Cluster) membersOf(shard int) []*member {
	p := c.primaries[c.shape.serverOf(shard)]
	members := []*member{p}
	for _, r := range c.replicas {
		if r.primary == p {
			members = append(members, r)
		}
	}
	return members
}

// Watch logs each server that ends by itself, until ctx is done.
func (c *Cluster) Watch(ctx context.Context) {
	var wg sync.WaitGroup
	for _, m := range c.all() {
		wg.Go(func() {
			select {
			case <-ctx.Done():
			case <-m.pg.Ended():
				c.log.Warn("a server has ended", "server", m.name, "port", m.pg.Port(), "pid", m.pg.PID())
			}
		})
	}
	wg.Wait()
}

// Stop ends all servers, primaries first, so that the replicas get all that was written. An ephemeral
// cluster is removed. Further calls wait for the first and return its error.
func (c *Cluster) Stop() error { return c.stop() }

func (c *Cluster) stopAll() error {
	defer c.folder.close()
	var mu sync.Mutex
	var errs []error
	stop := func(members []*member) {
		var wg sync.WaitGroup
		for _, m := range members {
			wg.Go(func() {
				err := m.stop(c.shape.Ephemeral)
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			})
		}
		wg.Wait()
	}
	stop(c.takingWrites())
	stop(c.replicas)
	if err := os.Remove(c.folder.path("dev.json")); err != nil && !os.IsNotExist(err) {
		errs = append(errs, err)
	}
	if c.shape.Ephemeral {
		errs = append(errs, c.folder.remove())
	}
	return errors.Join(errs...)
}

// stop also ends a server that somebody started by hand on the same data.
func (m *member) stop(immediately bool) error {
	end := m.pg.Stop
	if immediately {
		end = m.pg.StopImmediately
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := errors.Join(end(), m.pg.EndStale(ctx)); err != nil {
		return fmt.Errorf("server %s: %w", m.name, err)
	}
	return nil
}
