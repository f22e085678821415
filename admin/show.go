package admin

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"shardproxy/backend"
	"shardproxy/proxy"
)

// none is 0 in a column of PgBouncer's for something that shardproxy does not have.
const none = int64(0)

func (c *Console) showVersion() [][]any { return [][]any{{"shardproxy " + c.cfg.Version}} }

func (c *Console) showPools() [][]any {
	live := c.src.Live()
	var rows [][]any
	for _, p := range pools(c.src) {
		wait := p.LongestWait.Microseconds()
		rows = append(rows, []any{
			p.Key.Database, p.Key.User, int64(p.active), int64(p.Waiting), none, none,
			int64(p.active), none, none, int64(p.Idle), none, none, int64(p.connecting),
			wait / 1e6, wait % 1e6, poolMode(live, p.Key.User), nil, orNull(p.shard), p.Key.Address,
		})
	}
	return rows
}

// poolMode is that of the users who work as a role: of both kinds where they differ, for they share its connections.
func poolMode(live *proxy.Live, role string) string {
	modes := make(map[proxy.PoolMode]bool)
	for _, u := range live.Users {
		if u.ServerUser == role {
			modes[u.Pooling] = true
		}
	}
	switch len(modes) {
	case 0: // users that were looked up, and the proxy's own
		return live.Pooling.String()
	case 1:
		for m := range modes {
			return m.String()
		}
	}
	return "mixed"
}

func (c *Console) showClients() [][]any {
	var rows [][]any
	for _, s := range c.clients() {
		host, port := hostPort(s.Address)
		rows = append(rows, []any{
			"C", s.User, s.Database, "none", s.State, host, port, nil, nil, timeText(s.Connected), nil,
			nil, nil, none, strconv.FormatUint(uint64(s.ID), 10), "", nil, tlsText(s.TLS), s.Application, nil, int64(s.ID),
		})
	}
	return rows
}

// serviceName is the application_name of a connection that works for the proxy itself; it does not count in the pools.
const serviceName = "service"

func (c *Console) showServers() [][]any {
	at := placesOf(c.src.Snapshot())
	list := c.src.Backends()
	slices.SortStableFunc(list, func(a, b backend.ConnInfo) int {
		if n := comparePlaces(at.of(a.Key), at.of(b.Key), a.Key, b.Key); n != 0 {
			return n
		}
		return a.Born.Compare(b.Born)
	})
	var rows [][]any
	for _, s := range list {
		host, port := hostPort(s.Key.Address)
		state := "idle"
		if s.Active {
			state = "active"
		}
		var name any
		if s.Service {
			name = serviceName
		}
		rows = append(rows, []any{
			"S", s.Key.User, s.Key.Database, "none", state, host, port, nil, nil, timeText(s.Born), nil,
			nil, nil, number(s.Outdated), nil, "", int64(s.PID), tlsText(s.TLS), name, nil, nil, orNull(at.of(s.Key).shard), s.Key.Address,
		})
	}
	return rows
}

func (c *Console) showDatabases() [][]any {
	open := make(map[backend.Key]int64)
	for _, p := range c.src.Pools() {
		open[backend.Key{Address: p.Key.Address, Database: p.Key.Database}] += int64(p.Idle + p.Used)
	}
	live := c.src.Live()
	l := live.Pools
	clients := int64(len(c.src.Clients()))
	var rows [][]any
	for _, shard := range c.src.Snapshot().Shards {
		if len(shard.Nodes) == 0 {
			continue
		}
		n := shard.Nodes[0]
		rows = append(rows, []any{
			c.src.Database(), n.Host, int64(n.Port), n.Database, nil, int64(l.Max), int64(l.Min), none,
			int64(l.Lifetime.Seconds()), live.Pooling.String(), nil,
			int64(l.Total), open[backend.Key{Address: n.Address(), Database: n.Database}], int64(live.MaxClients), clients,
			number(c.src.Paused(shard.Name)), none, shard.Name,
		})
	}
	return rows
}

func (c *Console) showUsers() [][]any {
	clients, servers := make(map[string]int64), make(map[string]int64)
	for _, s := range c.clients() {
		clients[s.User]++
	}
	for _, p := range c.src.Pools() {
		servers[p.Key.User] += int64(p.Idle + p.Used)
	}
	users := c.src.Live().Users
	var rows [][]any
	for _, name := range slices.Sorted(maps.Keys(users)) {
		u := users[name]
		rows = append(rows, []any{
			name, nil, nil, u.Pooling.String(), nil, servers[u.ServerUser], int64(u.MaxConnections), clients[name], u.ServerUser,
		})
	}
	return rows
}

func (c *Console) showLists() [][]any {
	var waiting, idle, used int64
	list := c.src.Pools()
	for _, p := range list {
		waiting += int64(p.Waiting)
		idle += int64(p.Idle)
		used += int64(p.Used)
	}
	snap := c.src.Snapshot()
	nodes := 0
	for _, s := range snap.Shards {
		nodes += len(s.Nodes)
	}
	return [][]any{
		{"databases", int64(2)}, // that clients can name: theirs, and this one
		{"users", int64(len(c.src.Live().Users))},
		{"pools", int64(len(list))},
		{"used_clients", int64(len(c.clients()))},
		{"waiting_clients", waiting},
		{"used_servers", used},
		{"idle_servers", idle},
		{"shards", int64(len(snap.Shards))},
		{"nodes", int64(nodes)},
		{"ranges", int64(len(snap.Ranges()))},
		{"tables", int64(len(snap.Schema.Tables))},
	}
}

func number(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// hostPort takes an address apart; a Unix socket has no port.
func hostPort(address string) (host, port any) {
	h, p, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseInt(p, 10, 64)
	if err != nil || portErr != nil || h == "" {
		return "unix", nil
	}
	return h, n
}

func timeText(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(timeLayout)
}

func tlsText(on bool) string {
	if on {
		return "TLS"
	}
	return ""
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// rates are averages of one period: counts and bytes per second, times in microseconds.
type rates struct {
	transactions, rounds, received, sent int64
	roundTime                            int64 // of one round
	waited                               int64 // by all sessions, per second
}

func ratesOf(from, to proxy.Counters, period time.Duration) *rates {
	seconds := max(period.Seconds(), 1)
	perSecond := func(n int64) int64 { return int64(float64(max(n, 0)) / seconds) }
	r := &rates{
		transactions: perSecond(to.Transactions - from.Transactions),
		rounds:       perSecond(to.Rounds - from.Rounds),
		received:     perSecond(to.Received - from.Received),
		sent:         perSecond(to.Sent - from.Sent),
		waited:       perSecond((to.Waited - from.Waited).Microseconds()),
	}
	if n := to.Rounds - from.Rounds; n > 0 {
		r.roundTime = (to.LatencySum - from.LatencySum).Microseconds() / n
	}
	return r
}

func (c *Console) showStats() [][]any {
	totals, averages := c.showTotals()[0], c.showAverages()[0]
	return [][]any{append(totals, averages[1:]...)}
}

func (c *Console) showTotals() [][]any {
	n := c.src.Counters()
	return [][]any{{
		c.src.Database(), n.Transactions, n.Rounds, n.Received, n.Sent, nil,
		n.LatencySum.Microseconds(), n.Waited.Microseconds(),
	}}
}

func (c *Console) showAverages() [][]any {
	r := c.rates.Load()
	if r == nil {
		now := c.src.Counters()
		r = ratesOf(proxy.Counters{}, now, time.Since(now.Started))
	}
	return [][]any{{c.src.Database(), r.transactions, r.rounds, r.received, r.sent, nil, r.roundTime, r.waited}}
}
