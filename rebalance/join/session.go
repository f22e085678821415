package join

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// sessionSettings of our connections. Nothing of a role's or a database's settings shall end what takes long.
var sessionSettings = map[string]string{
	"client_encoding":                     "UTF8",
	"default_transaction_read_only":       "off",
	"idle_in_transaction_session_timeout": "0",
	"idle_session_timeout":                "0",
	"jit":                                 "off",
	"lock_timeout":                        "10s",
	"row_security":                        "off", // an error instead of rows left out
	"statement_timeout":                   "0",
	mover.MoveSetting:                     "join", // fences let it pass
}

// session is a connection to one node.
type session struct {
	*pgx.Conn
	name string // of the shard
	node topology.Node
}

// closeTime is for a server to be told that we hang up.
const closeTime = time.Second

func (j *Joiner) open(ctx context.Context, shard string, node topology.Node) (*session, error) {
	cfg, err := pgx.ParseConfig(j.DSN(node))
	if err != nil {
		return nil, err
	}
	for name, value := range sessionSettings {
		cfg.RuntimeParams[name] = value
	}
	cfg.RuntimeParams["application_name"] = "shardproxy: add shard"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &session{Conn: conn, name: shard, node: node}, nil
}

func (s *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_ = s.Conn.Close(ctx)
}

// query is a topology.Query: NULL is "", and of several statements it gives the rows of all.
func (s *session) query(ctx context.Context, sql string) (rows [][]string, err error) {
	results := s.PgConn().Exec(ctx, sql)
	for results.NextResult() {
		for r := results.ResultReader(); r.NextRow(); {
			row := make([]string, len(r.Values()))
			for i, v := range r.Values() {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, results.Close()
}

// column is query for one column.
func (s *session) column(ctx context.Context, sql string) (list []string, err error) {
	rows, err := s.query(ctx, sql)
	for _, row := range rows {
		list = append(list, row[0])
	}
	return list, err
}

func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func literal(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(text) + "'"
}

func qualified(t topology.TableName) string { return identifier(t.Schema) + "." + identifier(t.Name) }
