package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
)

const (
	consoleDatabase = "shardproxy"
	connectTimeout  = 5 * time.Second // unless the DSN says another
	commandTimeout  = time.Minute     // the console itself ends a change after half of it
)

// query runs commands of the console, and gives a table for each.
func (o *options) query(cmd *cobra.Command, sql string) ([]table, error) {
	return o.queryWithin(cmd, sql, commandTimeout)
}

func (o *options) queryWithin(cmd *cobra.Command, sql string, timeout time.Duration) (tables []table, err error) {
	err = o.connected(cmd, timeout, func(ctx context.Context, conn *pgconn.PgConn) error {
		results := conn.Exec(ctx, sql)
		for results.NextResult() {
			tables = append(tables, readTable(results.ResultReader()))
		}
		return results.Close()
	})
	if err != nil {
		return nil, err
	}
	return tables, nil
}

// queryOne runs one command of the console, whatever is in sql: more than one are refused.
func (o *options) queryOne(cmd *cobra.Command, sql string, timeout time.Duration) (*table, error) {
	var t table
	err := o.connected(cmd, timeout, func(ctx context.Context, conn *pgconn.PgConn) error {
		result := conn.ExecParams(ctx, sql, nil, nil, nil, nil)
		t = readTable(result)
		_, err := result.Close()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &t, nil
}

// connected runs f with a connection to the console, and explains what went wrong.
func (o *options) connected(cmd *cobra.Command, timeout time.Duration, f func(ctx context.Context, conn *pgconn.PgConn) error) error {
	cfg, err := o.console(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return explain("the proxy", cfg, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := f(ctx, conn); err != nil {
		return explain("the proxy", cfg, err)
	}
	return nil
}

// console is how to reach the console. The DSN is that of the flag, of the environment, or the default; its database
// may be the application's.
func (o *options) console(cmd *cobra.Command) (*pgconn.Config, error) {
	cfg, err := pgconn.ParseConfig(cmp.Or(o.dsn, os.Getenv("SHARDCTL_DSN"), defaultDSN))
	if err != nil {
		return nil, usageError{cmd.CommandPath(), err} // pgconn hides the password in it
	}
	cfg.Database = consoleDatabase
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > commandTimeout { // pgconn: two minutes
		cfg.ConnectTimeout = connectTimeout
	}
	cfg.RuntimeParams["application_name"] = "shardctl"
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { warn(cmd.ErrOrStderr(), n) }
	return cfg, nil
}

func warn(w io.Writer, n *pgconn.Notice) {
	fmt.Fprintf(w, "shardctl: %s: %s\n", strings.ToLower(n.Severity), withHint(n.Message, n.Hint))
}

func withHint(message, hint string) string {
	if hint == "" {
		return message
	}
	return message + ". " + hint
}

// explain says in one line why a server could not be asked, or what it answered.
func explain(whom string, cfg *pgconn.Config, err error) error {
	var answer *pgconn.PgError
	var network *net.OpError
	var name *net.DNSError
	var connect *pgconn.ConnectError
	switch address := addressOf(cfg); {
	case errors.As(err, &answer):
		return errors.New(withHint(fmt.Sprintf("%s (SQLSTATE %s)", answer.Message, answer.Code), answer.Hint))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s at %s does not answer", whom, address)
	case errors.As(err, &name):
		return fmt.Errorf("cannot reach %s at %s: %s", whom, address, name.Err)
	case errors.As(err, &network):
		return fmt.Errorf("cannot reach %s at %s: %w", whom, address, network.Err)
	case errors.As(err, &connect):
		return fmt.Errorf("cannot log in to %s at %s: %w", whom, address, connect.Unwrap())
	}
	return err
}

// addressOf names the first host of a DSN.
func addressOf(cfg *pgconn.Config) string {
	port := strconv.Itoa(int(cfg.Port))
	if strings.HasPrefix(cfg.Host, "/") { // the folder of a Unix socket
		return cfg.Host + "/.s.PGSQL." + port
	}
	return net.JoinHostPort(cfg.Host, port)
}
