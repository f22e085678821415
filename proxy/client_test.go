package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// client is a raw client.
type client struct {
	t    *testing.T
	conn net.Conn
	f    *pgproto3.Frontend
	pid  uint32
	key  []byte
}

// dial connects; params are pairs beside user and database.
func (k *kit) dial(user string, params ...string) (*client, string) {
	k.t.Helper()
	conn, err := net.Dial("tcp", k.addr)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: k.t, conn: conn, f: pgproto3.NewFrontend(conn, conn)}
	m := &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": user, "database": "app"}}
	for i := 0; i < len(params); i += 2 {
		m.Parameters[params[i]] = params[i+1]
	}
	return c, c.roundTrip(m)
}

func (k *kit) connect(params ...string) *client {
	k.t.Helper()
	return k.connectAs("app", params...)
}

func (k *kit) connectAs(user string, params ...string) *client {
	k.t.Helper()
	c, greeting := k.dial(user, params...)
	if greeting != "R Z:I" {
		k.t.Fatalf("login: %s", greeting)
	}
	return c
}

func (c *client) send(messages ...pgproto3.FrontendMessage) {
	c.t.Helper()
	for _, m := range messages {
		c.f.Send(m)
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	if err := c.f.Flush(); err != nil {
		c.t.Logf("send: %v", err)
	}
}

// next gives the next message in short form, "" for those that do not matter, "EOF" at the end.
func (c *client) next() string {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	m, err := c.f.Receive()
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "HANGS"
		}
		return "EOF"
	}
	switch m := m.(type) {
	case *pgproto3.ParameterStatus:
		return ""
	case *pgproto3.BackendKeyData:
		c.pid, c.key = m.ProcessID, bytes.Clone(m.SecretKey)
		return ""
	case *pgproto3.AuthenticationOk:
		return "R"
	case *pgproto3.ParseComplete:
		return "1"
	case *pgproto3.BindComplete:
		return "2"
	case *pgproto3.CloseComplete:
		return "3"
	case *pgproto3.NoData:
		return "n"
	case *pgproto3.ParameterDescription:
		return "t"
	case *pgproto3.RowDescription:
		return "T"
	case *pgproto3.PortalSuspended:
		return "s"
	case *pgproto3.EmptyQueryResponse:
		return "I"
	case *pgproto3.CopyInResponse:
		return "G"
	case *pgproto3.CopyOutResponse:
		return "H"
	case *pgproto3.CopyDone:
		return "c"
	case *pgproto3.CopyData:
		return "d:" + strings.TrimSpace(string(m.Data))
	case *pgproto3.NotificationResponse:
		return "A:" + m.Payload
	case *pgproto3.DataRow:
		v := make([]string, len(m.Values))
		for i := range v {
			v[i] = string(m.Values[i])
			if len(v[i]) > 100 {
				v[i] = fmt.Sprintf("%d bytes", len(v[i]))
			}
		}
		return "D:" + strings.Join(v, ",")
	case *pgproto3.CommandComplete:
		return "C:" + string(m.CommandTag)
	case *pgproto3.ErrorResponse:
		c.t.Logf("error: %s %s: %s (%s) %s", m.Severity, m.Code, m.Message, m.Detail, m.Hint)
		return "E:" + m.Code
	case *pgproto3.NoticeResponse:
		return "N:" + m.Code
	case *pgproto3.ReadyForQuery:
		return "Z:" + string(m.TxStatus)
	}
	return fmt.Sprintf("%T", m)
}

// answer reads up to a message that begins with one of ends, or to the end.
func (c *client) answer(ends ...string) string {
	c.t.Helper()
	var list []string
	for {
		m := c.next()
		if m != "" {
			list = append(list, m)
		}
		if m == "EOF" || m == "HANGS" {
			return strings.Join(list, " ")
		}
		for _, e := range ends {
			if m != "" && strings.HasPrefix(m, e) {
				return strings.Join(list, " ")
			}
		}
	}
}

func (c *client) roundTrip(messages ...pgproto3.FrontendMessage) string {
	c.t.Helper()
	c.send(messages...)
	return c.answer("Z")
}

func (c *client) query(sql string) string {
	c.t.Helper()
	return c.roundTrip(&pgproto3.Query{String: sql})
}

// want runs a simple query and compares the answer.
func (c *client) want(sql, want string) {
	c.t.Helper()
	if got := c.query(sql); got != want {
		c.t.Errorf("%s\n got: %s\nwant: %s", sql, got, want)
	}
}

// value gives the one value that a query answers with.
func (c *client) value(sql string) string {
	c.t.Helper()
	got := c.query(sql)
	for _, m := range strings.Split(got, " ") {
		if v, ok := strings.CutPrefix(m, "D:"); ok {
			return v
		}
	}
	return got
}

func (c *client) wantPipe(want string, messages ...pgproto3.FrontendMessage) {
	c.t.Helper()
	if got := c.roundTrip(messages...); got != want {
		c.t.Errorf("pipeline\n got: %s\nwant: %s", got, want)
	}
}

func (c *client) bye() {
	c.send(&pgproto3.Terminate{})
	_ = c.conn.Close()
}

// reset closes the connection by RST.
func (c *client) reset() {
	_ = c.conn.(*net.TCPConn).SetLinger(0)
	_ = c.conn.Close()
}

func parse(name, sql string) pgproto3.FrontendMessage { return &pgproto3.Parse{Name: name, Query: sql} }

func bind(portal, statement string, params ...any) pgproto3.FrontendMessage {
	m := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement}
	for _, p := range params {
		if p == nil {
			m.Parameters = append(m.Parameters, nil)
		} else {
			m.Parameters = append(m.Parameters, fmt.Append(nil, p))
		}
	}
	return m
}

func execute(portal string, rows uint32) pgproto3.FrontendMessage {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

var (
	syncM  pgproto3.FrontendMessage = &pgproto3.Sync{}
	flushM pgproto3.FrontendMessage = &pgproto3.Flush{}
)

// run is Parse, Bind and Execute of an unnamed statement.
func run(sql string, params ...any) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{parse("", sql), bind("", "", params...), execute("", 0)}
}

func join(lists ...[]pgproto3.FrontendMessage) (all []pgproto3.FrontendMessage) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return append(all, syncM)
}

// direct connects to the first shard's database itself, for comparison.
func (k *kit) direct() *client {
	k.t.Helper()
	beside := *k
	beside.addr = fmt.Sprintf("%s:%d", k.pg.Host, k.pg.Port)
	c, greeting := beside.dial(k.super, "database", shardDatabases()[0])
	if greeting != "R Z:I" {
		k.t.Fatalf("login: %s", greeting)
	}
	return c
}
