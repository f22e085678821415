package rebalance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/topology"
)

const (
	// leaseTime is how long the lease of a coordinator lasts that is not renewed, and so what a crash of it costs a move.
	leaseTime  = 6 * time.Second
	leaseRenew = 2 * time.Second
	// leaseMargin is how long before its end a coordinator stops to act on a lease that it could not renew.
	leaseMargin = time.Second
	// lookAgain is how often the journal is looked at for new moves and orders.
	lookAgain = 250 * time.Millisecond
)

// CoordinatorConfig of a Coordinator.
type CoordinatorConfig struct {
	Name    string // of this proxy: the holder of the lease
	Cluster string
	Catalog *topology.Catalog
	Keeper  *topology.Keeper
	Schema  func() *topology.Schema // that the shards have
	// DSN says how a node is reached: directly, as a role that may move rows (docs/moves.md).
	DSN func(topology.Node) string
	// Limits of copies, as they are now; nil for none.
	Limits func() CopyLimits
	Log    *slog.Logger
}

// CopyLimits keep a copy from taking too much of the shards; 0 is no limit.
type CopyLimits struct {
	BytesPerSecond  int64 // of each move
	ReplicaLagBytes int64 // of the target's log that a streaming replica of it may not have replayed yet
}

// Coordinator carries out the moves of the journal while it holds the lease. All proxies run one, and one of them acts.
//
//	Run ── lease ──► lead ── journal, orders ──► runner of each move: Step, and its effects
type Coordinator struct {
	cfg CoordinatorConfig

	mu      sync.Mutex // guards the fields below
	runners map[MoveID]*runner
	cutover MoveID // the move that has been granted an epoch, 0 for none
}

// NewCoordinator makes a Coordinator; Run starts it.
func NewCoordinator(cfg CoordinatorConfig) *Coordinator {
	if cfg.Limits == nil {
		cfg.Limits = func() CopyLimits { return CopyLimits{} }
	}
	return &Coordinator{cfg: cfg, runners: make(map[MoveID]*runner)}
}

// Run takes the lease whenever it is free, and acts on it, until ctx ends.
func (c *Coordinator) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		asked := time.Now()
		lease, err := c.cfg.Catalog.TakeLease(ctx, c.cfg.Name, leaseTime)
		if err == nil {
			c.cfg.Log.Info("this proxy coordinates moves", "token", lease.Token)
			err = c.lead(ctx, lease, asked)
			c.cfg.Log.Info("this proxy no longer coordinates moves", "reason", err)
		}
		var held topology.ErrLeaseHeld
		pause := lookAgain * 4
		if errors.As(err, &held) {
			pause = min(max(held.For, lookAgain), leaseTime)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return ctx.Err()
}

// lead carries out moves until the lease, asked for at the given time, cannot be renewed any more.
func (c *Coordinator) lead(ctx context.Context, lease topology.Lease, asked time.Time) error {
	g, leading := errgroup.WithContext(ctx)
	g.Go(func() error { return c.renew(leading, lease, asked) })
	g.Go(func() error {
		if err := c.upToDate(leading); err != nil {
			return err
		}
		return c.follow(leading, lease, g)
	})
	err := g.Wait()
	if ctx.Err() != nil { // going on purpose: nobody need wait for the end of the lease
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseMargin)
		defer cancel()
		_ = c.cfg.Catalog.EndLease(ending, lease)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.runners)
	c.cutover = 0
	return err
}

// upToDate waits until this proxy goes by the newest map: by an older one, what the coordinator before has told of a move would
// look as if it had not. From then on nobody else changes what the map tells of moves.
func (c *Coordinator) upToDate(ctx context.Context) error {
	for {
		epoch, err := c.cfg.Catalog.Epoch(ctx)
		if err == nil && c.cfg.Keeper.Snapshot().Epoch >= epoch {
			return nil
		}
		if err == nil {
			c.cfg.Keeper.Behind(epoch)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(cutoverPause):
		}
	}
}

// renew keeps the lease, and ends with an error in time before it runs out.
func (c *Coordinator) renew(ctx context.Context, lease topology.Lease, asked time.Time) error {
	for {
		until := asked.Add(leaseTime - leaseMargin)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(leaseRenew, time.Until(until))):
		}
		attempt, cancel := context.WithDeadline(ctx, until)
		now := time.Now()
		err := c.cfg.Catalog.RenewLease(attempt, lease, leaseTime, c.progress())
		cancel()
		switch {
		case err == nil:
			asked = now
		case errors.Is(err, topology.ErrLeaseLost), !time.Now().Before(until):
			return fmt.Errorf("the lease could not be renewed: %w", err)
		}
	}
}

// follow looks at the journal again and again: each open move gets a runner in g, and each order its move.
func (c *Coordinator) follow(ctx context.Context, lease topology.Lease, g *errgroup.Group) error {
	for {
		if err := c.look(ctx, lease, g); err != nil {
			if errors.Is(err, topology.ErrLeaseLost) {
				return err
			}
			c.cfg.Log.Debug("the journal of moves cannot be read", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

func (c *Coordinator) look(ctx context.Context, lease topology.Lease, g *errgroup.Group) error {
	orders, err := c.cfg.Catalog.MoveOrders(ctx) // before the moves: the move of each is there, or has ended
	if err != nil {
		return err
	}
	records, err := c.cfg.Catalog.LoadMoves(ctx, false)
	if err != nil {
		return err
	}
	moves := make([]Move, 0, len(records))
	for _, r := range records {
		m, err := FromRecord(r)
		if err != nil {
			c.cfg.Log.Error("a move in the journal cannot be read", "error", err)
			continue
		}
		moves = append(moves, m)
	}
	if orders, err = c.waiting(ctx, lease, moves, orders); err != nil {
		return err
	}
	for _, r := range c.fresh(lease, moves, orders) {
		g.Go(func() error { return r.run(ctx) })
	}
	return c.orders(ctx, lease, orders)
}

// fresh makes runners for the moves that have none, and may begin, or have an order to follow.
func (c *Coordinator) fresh(lease topology.Lease, moves []Move, orders []topology.MoveOrder) (list []*runner) {
	startable := Startable(moves, LimitsDefault)
	for _, o := range orders {
		startable = append(startable, MoveID(o.Move))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// One whose move has just ended is still in a list that was read before. One whose move has not is begun anew.
	for id, r := range c.runners {
		if r.ended() && !r.m.State.Terminal() || r.ended() && !slices.ContainsFunc(moves, func(m Move) bool { return m.ID == id }) {
			delete(c.runners, id)
			if c.cutover == id {
				c.cutover = 0
			}
		}
	}
	for _, m := range moves {
		if c.runners[m.ID] != nil || !m.Begun() && !slices.Contains(startable, m.ID) {
			continue
		}
		r := newRunner(c, lease, m)
		c.runners[m.ID] = r
		if m.State.InCutover() {
			c.cutover = m.ID
		}
		list = append(list, r)
	}
	return list
}

// orders hands each order to its move, and refuses those for moves that have ended.
func (c *Coordinator) orders(ctx context.Context, lease topology.Lease, orders []topology.MoveOrder) error {
	for _, o := range orders {
		var err error
		r := c.runner(MoveID(o.Move))
		order, known := parseOrder(o.What)
		switch {
		case !known:
			err = c.cfg.Catalog.AnswerMoveOrder(ctx, lease, o.ID, "there is no such order")
		case r != nil && r.ended() && !r.m.State.Terminal(): // it is taken up again in a moment
		case r == nil || r.ended():
			err = c.cfg.Catalog.AnswerMoveOrder(ctx, lease, o.ID, "the move has ended")
		default:
			c.cfg.Log.Info("order for a move", "move", o.Move, "order", o.What, "user", o.Who.User, "from", o.Who.From)
			r.order(ctx, order, o.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// waiting follows the orders for moves that nothing was done for yet, and that an order must not make begin. It gives the others.
func (c *Coordinator) waiting(ctx context.Context, lease topology.Lease, moves []Move, orders []topology.MoveOrder) (rest []topology.MoveOrder, err error) {
	for _, o := range orders {
		order, known := parseOrder(o.What)
		i := slices.IndexFunc(moves, func(m Move) bool { return int64(m.ID) == o.Move })
		if !known || order == OrderAbort || i < 0 || moves[i].Begun() || c.runner(moves[i].ID) != nil {
			rest = append(rest, o)
			continue
		}
		next, effects := Step(moves[i], order)
		refusal := ""
		for _, e := range effects {
			switch e := e.(type) {
			case Refuse:
				refusal = e.Why
			case Journal:
				record, err := next.Record()
				if err == nil {
					err = c.cfg.Catalog.SaveMove(ctx, lease, record)
				}
				if err != nil {
					return nil, err
				}
			}
		}
		moves[i] = next
		if err := c.cfg.Catalog.AnswerMoveOrder(ctx, lease, o.ID, refusal); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

func (c *Coordinator) runner(id MoveID) *runner {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runners[id]
}

func parseOrder(what string) (Order, bool) {
	for i, name := range orderNames {
		if name == what {
			return Order(i), true
		}
	}
	return 0, false
}

// grant waits until no other move is in its cutover, and claims it for this one.
func (c *Coordinator) grant(ctx context.Context, id MoveID) error { return c.claim(ctx, id, id) }

// quiet waits until no other move is in its cutover.
func (c *Coordinator) quiet(ctx context.Context, id MoveID) error { return c.claim(ctx, id, 0) }

// claim waits until no other move than id is in its cutover, and sets who is, unless that is 0.
func (c *Coordinator) claim(ctx context.Context, id, who MoveID) error {
	for !c.free(id, who) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(cutoverPause):
		}
	}
	return nil
}

// free says whether no other move than id is in its cutover; then it sets who is, unless that is 0.
func (c *Coordinator) free(id, who MoveID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	free := c.cutover == 0 || c.cutover == id
	if free && who != 0 {
		c.cutover = who
	}
	return free
}

// settle gives the cutover back where the move is not in it.
func (c *Coordinator) settle(m *Move) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cutover == m.ID && !m.State.InCutover() {
		c.cutover = 0
	}
}
