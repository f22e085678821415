package config

import "time"

// MessageMax is the longest message that PostgreSQL takes, in bytes.
const MessageMax = 1<<30 - 1

// Default is what a file that says nothing means. It names no shards, so it does not pass Check.
func Default() *Config {
	return &Config{
		Listen: Listen{
			Addresses:          []string{"127.0.0.1:6432"},
			TLSClientCerts:     "none",
			MaxClients:         10_000,
			MaxUnauthenticated: 256,                   // a login holds a goroutine and a SCRAM exchange
			LoginTimeout:       Duration{time.Minute}, // PostgreSQL's authentication_timeout
			MaxStartupBytes:    10_000,                // PostgreSQL's MAX_STARTUP_PACKET_LENGTH
			DrainTimeout:       Duration{time.Minute},
		},
		Admin: Admin{HTTP: "127.0.0.1:9932", Users: []string{}, StatsUsers: []string{}},
		Auth: Auth{Rules: []AuthRule{
			{Type: "local", Database: "all", User: "all", Method: "scram-sha-256"},
			{Type: "host", Database: "all", User: "all", Address: "all", Method: "scram-sha-256"},
		}},
		Users: []User{},
		Pool: Pool{
			Mode:               "transaction",
			MaxBackends:        1000,
			SizeMin:            0,
			SizeMax:            20, // PostgreSQL's own max_connections is 100, shared by all users and proxies
			AcquireTimeout:     Duration{10 * time.Second},
			ConnectTimeout:     Duration{5 * time.Second},
			IdleTimeout:        Duration{10 * time.Minute},
			Lifetime:           Duration{time.Hour},
			CheckAfter:         Duration{time.Second}, // one system call; a server that restarts takes longer
			PreparedStatements: 500,                   // a plan kept by PostgreSQL takes tens of KB
		},
		Limits: Limits{
			MessageBytes:       MessageMax,
			QueryBytes:         16 << 20,
			ParserTokens:       2000, // the parser recurses in C; a chain of some 25,000 overruns its stack
			PlanCacheEntries:   10_000,
			PreparedStatements: 1000,
			FinishBytes:        64 << 20, // about three times as much is held for a moment
			FinishRows:         1_000_000,
		},
		Moves:     Moves{ReplicaLagBytes: 256 << 20}, // some seconds of a replica's work
		ServerTLS: ServerTLS{SSLMode: "prefer"},
		Cluster:   Cluster{Name: "shardproxy", Database: "app"},
		Shards:    []Shard{},
		Ranges:    []Range{},
		Tables: Tables{
			Explicit:  []string{},
			Reference: []string{},
			Columns:   []string{"user_id", "creator_user_id"},
			Named:     []string{"users.id"},
			Unlisted:  "reference",
		},
		Gossip: Gossip{Seeds: []string{}, Keys: []Secret{}},
		Log:    Log{Level: "info", Format: "text"},
	}
}

// setDefaults fills in what the elements of lists leave out.
func (c *Config) setDefaults() {
	for i := range c.Auth.Rules {
		r := &c.Auth.Rules[i]
		setDefault(&r.Type, "host")
		setDefault(&r.Database, "all")
		setDefault(&r.User, "all")
		if r.Type != "local" {
			setDefault(&r.Address, "all")
		}
		setDefault(&r.Method, "scram-sha-256")
	}
	for i := range c.Shards {
		for j := range c.Shards[i].Nodes {
			n := &c.Shards[i].Nodes[j]
			setDefault(&n.Port, 5432)
			setDefault(&n.Database, c.Cluster.Database)
			setDefault(&n.Role, "primary")
		}
	}
}

func setDefault[T comparable](field *T, value T) {
	var none T
	if *field == none {
		*field = value
	}
}
