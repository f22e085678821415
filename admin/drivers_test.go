package admin

import (
	"database/sql"
	"errors"
	"os/exec"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/lib/pq"
)

func errorAs(err error) (*pgconn.PgError, bool) { return errors.AsType[*pgconn.PgError](err) }

func TestPgx(t *testing.T) {
	c := startConsole(t, testConfig())
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			ctx := testContext(t)
			config, err := pgx.ParseConfig(c.dsn("root"))
			if err != nil {
				t.Fatal(err)
			}
			config.DefaultQueryExecMode = mode
			conn, err := pgx.ConnectConfig(ctx, config)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(ctx)
			type node struct {
				Shard, Role, Host string
				Port              int64
				Database          string
				Active, Idle      int64
				Login, Waiting    int64
			}
			for range 2 { // the second time from the cache
				rows, err := conn.Query(ctx, "SHOW NODES")
				if err != nil {
					t.Fatal(err)
				}
				nodes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[node])
				if err != nil {
					t.Fatal(err)
				}
				if want := (node{"s1", "replica", "10.0.1.1", 5433, "app", 0, 0, 0, 0}); len(nodes) != 3 || nodes[1] != want {
					t.Errorf("got %+v", nodes)
				}
			}
			err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				var epoch int64
				var cluster *string
				var checksum string
				return tx.QueryRow(ctx, "SHOW EPOCH").Scan(&epoch, &cluster, &checksum)
			})
			if err != nil {
				t.Error(err)
			}
			_, err = conn.Exec(ctx, "SHOW NOTHING")
			wantError(t, err, "ERROR", "42601")
			if err := conn.Ping(ctx); err != nil {
				t.Error(err)
			}
			if err := conn.DeallocateAll(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLibPQ(t *testing.T) {
	db, err := sql.Open("postgres", startConsole(t, testConfig()).dsn("root"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx := testContext(t)
	statement, err := db.PrepareContext(ctx, "SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	defer statement.Close()
	for range 2 {
		var one int64
		if err := statement.QueryRowContext(ctx).Scan(&one); err != nil || one != 1 {
			t.Errorf("%d, %v", one, err)
		}
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var version string
	if err := tx.QueryRowContext(ctx, "SHOW VERSION").Scan(&version); err != nil || version != "shardproxy 1.2.3" {
		t.Errorf("version %q, %v", version, err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
}

func TestPsql(t *testing.T) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("no psql on this machine")
	}
	c := startConsole(t, testConfig())
	for _, test := range []struct{ command, want string }{
		{"show shards", "s1|10.0.0.1:5432|1|2|75.00|active\ns2|10.0.0.2:5432|0|1|25.00|active\n"},
		{"show version; select 1", "shardproxy 1.2.3\n1\n"},
		{"locate users -5", "public.users|id|int|5466844944386338076|cbde22832849ad1c|8000000000000000||s1|10.0.0.1:5432/app\n"},
		{`\echo :SERVER_VERSION_NAME`, "15.0 (shardproxy 1.2.3)\n"},
	} {
		command := exec.CommandContext(testContext(t), psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", test.command, c.dsn("root"))
		out, err := command.CombinedOutput()
		if err != nil || string(out) != test.want {
			t.Errorf("%s: %v\n%s", test.command, err, out)
		}
	}
}
