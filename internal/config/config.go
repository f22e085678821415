package config

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// Config is the whole file. Default holds what is used where a key is left out; configs/reference.toml
// says what every key means.
type Config struct {
	Listen    Listen    `toml:"listen"`
	Admin     Admin     `toml:"admin"`
	Auth      Auth      `toml:"auth"`
	Users     []User    `toml:"users"`
	Pool      Pool      `toml:"pool"`
	Limits    Limits    `toml:"limits"`
	Moves     Moves     `toml:"moves"`
	ServerTLS ServerTLS `toml:"server_tls"`
	Cluster   Cluster   `toml:"cluster"`
	Shards    []Shard   `toml:"shards"`
	Ranges    []Range   `toml:"ranges"`
	Tables    Tables    `toml:"tables"`
	Catalog   Catalog   `toml:"catalog"`
	Gossip    Gossip    `toml:"gossip"`
	Log       Log       `toml:"log"`

	path  string
	lines map[string]int // key path as in Problem.Key → line of the file
}

// Listen is the side that faces clients.
type Listen struct {
	Addresses          []string `toml:"addresses"`
	UnixSocketDir      string   `toml:"unix_socket_dir"`
	TLSCert            string   `toml:"tls_cert"`
	TLSKey             string   `toml:"tls_key"`
	TLSClientCA        string   `toml:"tls_client_ca"`
	TLSClientCerts     string   `toml:"tls_client_certs"`
	TLSRequire         bool     `toml:"tls_require"`
	MaxClients         int      `toml:"max_clients"`
	MaxUnauthenticated int      `toml:"max_unauthenticated"`
	LoginTimeout       Duration `toml:"login_timeout"`
	MaxStartupBytes    int      `toml:"max_startup_bytes"`
	DrainTimeout       Duration `toml:"drain_timeout"`
}

// Admin is the console and the HTTP server.
type Admin struct {
	HTTP       string   `toml:"http"`
	Users      []string `toml:"users"`
	StatsUsers []string `toml:"stats_users"`
	Pprof      bool     `toml:"pprof"`
}

// Auth says who may come in, and how they prove who they are.
type Auth struct {
	UserFile      string     `toml:"user_file"`
	Query         string     `toml:"query"`
	QueryUser     string     `toml:"query_user"`
	QueryPassword Secret     `toml:"query_password"`
	Rules         []AuthRule `toml:"rules"`
}

// AuthRule is one line of PostgreSQL's pg_hba.conf. The first that fits decides; none is a refusal.
type AuthRule struct {
	Type     string `toml:"type"`
	Database string `toml:"database"`
	User     string `toml:"user"`
	Address  string `toml:"address"`
	Method   string `toml:"method"`
}

// User is one client user. Those of auth.user_file are in Config.Users as well once loaded.
type User struct {
	Name           string `toml:"name"`
	Secret         Secret `toml:"secret"`
	ServerUser     string `toml:"server_user"`
	ServerPassword Secret `toml:"server_password"`
	PoolMode       string `toml:"pool_mode"`
	MaxConnections int    `toml:"max_connections"`
}

// Role is who the user is on the nodes.
func (u *User) Role() string { return cmp.Or(u.ServerUser, u.Name) }

// RolePassword is the password of Role, "" if none is known: a verifier does not log in.
func (u *User) RolePassword() Secret {
	if u.ServerPassword != "" || u.Secret.IsVerifier() {
		return u.ServerPassword
	}
	return u.Secret
}

// Pool is the connections to PostgreSQL. Sizes count per node, user and database.
type Pool struct {
	Mode               string   `toml:"mode"`
	MaxBackends        int      `toml:"max_backends"`
	SizeMin            int      `toml:"size_min"`
	SizeMax            int      `toml:"size_max"`
	AcquireTimeout     Duration `toml:"acquire_timeout"`
	ConnectTimeout     Duration `toml:"connect_timeout"`
	IdleTimeout        Duration `toml:"idle_timeout"`
	Lifetime           Duration `toml:"lifetime"`
	CheckAfter         Duration `toml:"check_after"`
	PreparedStatements int      `toml:"prepared_statements"`
}

// Limits bound what one client or statement can make us hold.
type Limits struct {
	MessageBytes       int `toml:"message_bytes"`
	QueryBytes         int `toml:"query_bytes"`
	ParserTokens       int `toml:"parser_tokens"`
	PlanCacheEntries   int `toml:"plan_cache_entries"`
	PreparedStatements int `toml:"prepared_statements"`
	FinishBytes        int `toml:"finish_bytes"`
	FinishRows         int `toml:"finish_rows"`
}

// Moves bound what the copy of rows from shard to shard may take.
type Moves struct {
	CopyBytesPerSecond int `toml:"copy_bytes_per_second"`
	ReplicaLagBytes    int `toml:"replica_lag_bytes"`
}

// ServerTLS is TLS towards the nodes, with libpq's meaning of sslmode.
type ServerTLS struct {
	SSLMode  string `toml:"sslmode"`
	RootCert string `toml:"root_cert"`
	Cert     string `toml:"cert"`
	Key      string `toml:"key"`
}

// Cluster names what clients see.
type Cluster struct {
	Name            string `toml:"name"`
	Database        string `toml:"database"`
	ServiceUser     string `toml:"service_user"`
	ServicePassword Secret `toml:"service_password"`
}

// Shard is one primary with its replicas. The order of shards is the order of their equal ranges.
type Shard struct {
	Name  string `toml:"name"`
	Nodes []Node `toml:"nodes"`
}

// Node is one PostgreSQL server and database of a shard.
type Node struct {
	Host     string `toml:"host"`
	Port     int    `toml:"port"`
	Database string `toml:"database"`
	Role     string `toml:"role"`
}

// Range is [Start, End) of the ring of key hashes; both are 16 hex digits, an empty End is the end of the ring.
type Range struct {
	Start string `toml:"start"`
	End   string `toml:"end"`
	Shard string `toml:"shard"`
}

// Tables says which column is the shard key of which table. A name without a schema is in public.
type Tables struct {
	Explicit  []string `toml:"explicit"`
	Reference []string `toml:"reference"`
	Columns   []string `toml:"columns"`
	Named     []string `toml:"named"`
	Unlisted  string   `toml:"unlisted"`
}

// Catalog is the database that holds the map of the cluster. With it, shards, ranges and tables are not in the file.
type Catalog struct {
	DSN       Secret `toml:"dsn"`
	StateFile string `toml:"state_file"`
}

// Gossip is how proxies of one cluster find each other and pass on news.
type Gossip struct {
	Listen    string   `toml:"listen"`
	Advertise string   `toml:"advertise"`
	Name      string   `toml:"name"`
	Seeds     []string `toml:"seeds"`
	Keys      []Secret `toml:"keys"`
}

// Log is how we write our log.
type Log struct {
	Level  string `toml:"level"`
	Format string `toml:"format"`
}

// Secret is a password or verifier. It shows itself only to who calls Reveal.
type Secret string

const redacted = "[redacted]"

// Reveal is the secret itself. Never log it.
func (s Secret) Reveal() string { return string(s) }

// IsVerifier says whether s is not the password, but what PostgreSQL stores of one.
func (s Secret) IsVerifier() bool {
	return scramVerifier.MatchString(string(s)) || md5Verifier.MatchString(string(s))
}

// String, GoString, LogValue and MarshalText keep a secret out of every print and log.
func (s Secret) String() string { return redacted }

// GoString is what %#v prints.
func (s Secret) GoString() string { return redacted }

// LogValue is what slog prints.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is what encoders print.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format is what every verb of fmt prints, %x included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// Duration is written as Go writes it: "250ms", "2s", "1h30m".
type Duration struct{ time.Duration }

// invalid marks what was not a duration, for Check to report with all the rest.
const invalid time.Duration = math.MinInt64

// UnmarshalText reads a duration with its unit.
func (d *Duration) UnmarshalText(text []byte) error {
	var err error
	if d.Duration, err = time.ParseDuration(string(text)); err != nil || string(text) == "0" {
		d.Duration = invalid
	}
	return nil
}

// MarshalText is the form that UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
