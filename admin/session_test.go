package admin

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/wire"
)

// wantError holds that err is an error of the server with this severity and SQLSTATE, and gives it.
func wantError(t testing.TB, err error, severity, code string) *pgconn.PgError {
	t.Helper()
	e, ok := errorAs(err)
	if !ok || e.Severity != severity || e.Code != code {
		t.Fatalf("error %v; want %s %s", err, severity, code)
	}
	return e
}

func TestRoles(t *testing.T) {
	c := startConsole(t, testConfig())
	c.verbs = append(c.verbs, verb{
		name: "TOUCH", role: RoleAdmin, fields: fields("done#"),
		rows: func(*Console) [][]any { return [][]any{{int64(1)}} },
	})

	_, err := pgconn.Connect(testContext(t), c.dsn("app"))
	if e := wantError(t, err, "FATAL", wire.CodeInsufficientPrivilege); !strings.Contains(e.Hint, "stats_users") {
		t.Errorf("hint %q", e.Hint)
	}
	watcher := connect(t, c, "watcher")
	query(t, watcher, "SHOW EPOCH")
	_, err = watcher.Exec(testContext(t), "touch").ReadAll()
	wantError(t, err, "ERROR", wire.CodeInsufficientPrivilege)
	query(t, watcher, "SHOW EPOCH") // the session goes on
	query(t, connect(t, c, "root"), "touch")
	if got := fmt.Sprint(RoleNone, RoleStats, RoleAdmin); got != "none stats admin" {
		t.Errorf("roles are called %s", got)
	}
}

func TestSessionLimit(t *testing.T) {
	cfg := testConfig()
	cfg.MaxSessions = 1
	c := startConsole(t, cfg)
	first := connect(t, c, "root")
	_, err := pgconn.Connect(testContext(t), c.dsn("root"))
	wantError(t, err, "FATAL", wire.CodeTooManyConnections)
	query(t, first, "SHOW VERSION")
}

func TestGreeting(t *testing.T) {
	conn := connect(t, startConsole(t, testConfig()), "watcher")
	for name, want := range map[string]string{
		"server_version": "15.0 (shardproxy 1.2.3)", "client_encoding": "UTF8", "standard_conforming_strings": "on",
		"DateStyle": "ISO, MDY", "integer_datetimes": "on", "TimeZone": "UTC",
	} {
		if got := conn.ParameterStatus(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	if conn.PID() <= 0 || conn.TxStatus() != 'I' {
		t.Errorf("pid %d, status %c", conn.PID(), conn.TxStatus())
	}
}

// TestSimple runs scripts of one Query message each, in one session. An answer is the tags of the results, with
// the first value of a result that has rows, then the error, then the transaction's status.
func TestSimple(t *testing.T) {
	conn := connect(t, startConsole(t, testConfig()), "watcher")
	for _, test := range []struct{ sql, want string }{
		{"SHOW VERSION", "SHOW=shardproxy 1.2.3 I"},
		{" show\tversion ; /* a; /* b */ c */ Show EPOCH; -- end; of it", "SHOW=shardproxy 1.2.3 SHOW=7 I"},
		{"", " I"},
		{"-- ping", " I"},
		{";;", "I"},
		{"SELECT 1;", "SELECT 1=1 I"},
		{"select version()", "SELECT 1=PostgreSQL 15.0 (shardproxy 1.2.3) I"},
		{"select pg_catalog.version()", "SELECT 1=PostgreSQL 15.0 (shardproxy 1.2.3) I"},
		{"SELECT current_user", "SELECT 1=watcher I"},
		{"SELECT current_database()", "SELECT 1=shardproxy I"},
		{"SELECT current_schema()", "SELECT 1= I"},
		{"SHOW TRANSACTION ISOLATION LEVEL", "SHOW=read committed I"},
		{"show standard_conforming_strings", "SHOW=on I"},
		{"show time zone", "SHOW=UTC I"},
		{"SET extra_float_digits = 3; set application_name TO 'a;b''c'", "SET SET I"},
		{`SET x = E'\';'`, "SET I"},
		{"RESET ALL; DISCARD ALL", "RESET DISCARD ALL I"},
		{"COMMIT", "COMMIT I"},
		{"BEGIN; SELECT 1", "BEGIN SELECT 1=1 T"},
		{"START TRANSACTION READ ONLY; SHOW EPOCH", "START TRANSACTION SHOW=7 T"},
		{"DISCARD ALL", "25001 E"},
		{"SHOW EPOCH", "25P02 E"},
		{"END", "ROLLBACK I"},
		{"BEGIN ISOLATION LEVEL SERIALIZABLE", "BEGIN T"},
		{"rollback work", "ROLLBACK I"},
		{"SHOW EPOCH; SHOW NOTHING; SHOW EPOCH", "SHOW=7 42601 I"},
		{"SELECT 2", "42601 I"},
		{"SELECT * FROM users", "42601 I"},
		{"SHOW", "42601 I"},
		{`"SHOW" EPOCH`, "42601 I"},
		{"SHOW 'EPOCH'", "42601 I"},
		{"SHOW EPOCH EPOCH", "42601 I"},
		{"SET", "42601 I"},
		{"ROLLBACK TO SAVEPOINT a", "42601 I"},
		{"COMMIT AND CHAIN", "42601 I"},
		{"PAUSE", "42501 I"},
		{"WAIT_CLOSE", "42601 I"},
		{"SHOW EPOCH; /* never ends", "42601 I"},
		{"SHOW 'EPOCH", "42601 I"},
		{"DEALLOCATE ALL", "DEALLOCATE ALL I"},
		{"DEALLOCATE PREPARE nobody", "26000 I"},
	} {
		var got []string
		results, err := conn.Exec(testContext(t), test.sql).ReadAll()
		for _, r := range results {
			if r.Err != nil {
				continue
			}
			text := r.CommandTag.String()
			if len(r.Rows) > 0 {
				text += "=" + string(r.Rows[0][0])
			}
			got = append(got, text)
		}
		if err != nil {
			e, ok := errorAs(err)
			if !ok {
				t.Fatalf("%q: %v", test.sql, err)
			}
			got = append(got, e.Code)
		}
		got = append(got, string(conn.TxStatus()))
		if text := strings.TrimSpace(strings.Join(got, " ")); text != strings.TrimSpace(test.want) {
			t.Errorf("%q: %q, want %q", test.sql, text, test.want)
		}
	}
}

func TestErrorNamesTheWay(t *testing.T) {
	conn := connect(t, startConsole(t, testConfig()), "watcher")
	_, err := conn.Exec(testContext(t), "/* é */ show poools 'x'").ReadAll()
	e := wantError(t, err, "ERROR", wire.CodeSyntaxError)
	if e.Message != `unknown command "SHOW POOOLS"` || !strings.Contains(e.Hint, "SHOW HELP") || e.Position != 9 {
		t.Errorf("%q, hint %q, position %d", e.Message, e.Hint, e.Position)
	}
}

// raw is a client that speaks message by message.
type raw struct {
	*pgproto3.Frontend
	conn net.Conn
	key  wire.CancelKey
}

func dialRaw(t testing.TB, c *console) *raw {
	t.Helper()
	return dialRawAs(t, c, "watcher")
}

func dialRawAs(t testing.TB, c *console, user string) *raw {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(testContext(t), "tcp", c.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	deadline, _ := testContext(t).Deadline()
	_ = conn.SetDeadline(deadline)
	r := &raw{Frontend: pgproto3.NewFrontend(conn, conn), conn: conn}
	r.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": user, "database": "shardproxy"}})
	r.until(t, 'Z')
	return r
}

// until sends what waits and reads to ReadyForQuery, or to the end of the stream. It gives the types of the
// messages, and behind those of errors their SQLSTATE.
func (r *raw) until(t testing.TB, last byte) string {
	t.Helper()
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	var types []string
	for {
		m, err := r.Receive()
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return strings.Join(append(types, "EOF"), " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := m.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		text := string(encoded[:1])
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			text += m.Severity[:1] + m.Code
		case *pgproto3.ReadyForQuery:
			text += string(m.TxStatus)
		case *pgproto3.BackendKeyData:
			r.key = wire.CancelKey{PID: m.ProcessID, Secret: string(m.SecretKey)}
		}
		types = append(types, text)
		if encoded[0] == last {
			return strings.Join(types, " ")
		}
	}
}

func TestExtended(t *testing.T) {
	c := startConsole(t, testConfig())
	parse := func(name, sql string) pgproto3.FrontendMessage { return &pgproto3.Parse{Name: name, Query: sql} }
	bind := func(portal, name string) pgproto3.FrontendMessage {
		return &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}
	}
	execute := func(portal string, limit uint32) pgproto3.FrontendMessage {
		return &pgproto3.Execute{Portal: portal, MaxRows: limit}
	}
	sync := &pgproto3.Sync{}
	for _, test := range []struct {
		name     string
		messages []pgproto3.FrontendMessage
		want     string // to the last Sync
	}{
		{"one row", []pgproto3.FrontendMessage{parse("", "SHOW EPOCH"), bind("", ""), execute("", 0), sync}, "1 2 D C ZI"},
		{
			"describe",
			[]pgproto3.FrontendMessage{
				parse("a", "SHOW EPOCH"), &pgproto3.Describe{ObjectType: 'S', Name: "a"}, bind("p", "a"),
				&pgproto3.Describe{ObjectType: 'P', Name: "p"}, parse("b", "SET x = 1"), &pgproto3.Describe{ObjectType: 'S', Name: "b"}, sync,
			},
			"1 t T 2 T 1 t n ZI",
		},
		{
			"row limits",
			[]pgproto3.FrontendMessage{parse("", "SHOW RANGES"), bind("", ""), execute("", 2), execute("", 1), execute("", 1), sync},
			"1 2 D D s D s C ZI",
		},
		{"portal is done", []pgproto3.FrontendMessage{parse("", "SHOW EPOCH"), bind("", ""), execute("", 0), execute("", 0), sync}, "1 2 D C C ZI"},
		{"act is done", []pgproto3.FrontendMessage{parse("", "SET search_path = x"), bind("", ""), execute("", 0), execute("", 0), sync}, "1 2 C EE55000 ZI"},
		{"empty", []pgproto3.FrontendMessage{parse("", " -- "), &pgproto3.Describe{ObjectType: 'S'}, bind("", ""), execute("", 0), sync}, "1 t n 2 I ZI"},
		{
			"pipeline",
			[]pgproto3.FrontendMessage{parse("", "SHOW EPOCH"), bind("", ""), execute("", 0), parse("", "SHOW VERSION"), bind("", ""), execute("", 0), sync},
			"1 2 D C 1 2 D C ZI",
		},
		{"skips to Sync", []pgproto3.FrontendMessage{
			parse("", "SHOW NOTHING"), bind("", ""), &pgproto3.Describe{ObjectType: 'P'}, execute("", 0),
			&pgproto3.Close{ObjectType: 'S'}, sync,
		}, "EE42601 ZI"},
		{"portal ends at Sync", []pgproto3.FrontendMessage{parse("", "SHOW EPOCH"), bind("p", ""), sync, execute("p", 0), sync}, "1 2 ZI EE34000 ZI"},
		{"portal lives in a transaction", []pgproto3.FrontendMessage{
			&pgproto3.Query{String: "BEGIN"}, parse("", "SHOW RANGES"), bind("p", ""), execute("p", 1), sync,
			execute("p", 0), sync, &pgproto3.Query{String: "COMMIT"}, execute("p", 0), sync,
		}, "C ZT 1 2 D s ZT D D C ZT C ZI EE34000 ZI"},
		{
			"failed transaction",
			[]pgproto3.FrontendMessage{
				parse("e", "SHOW EPOCH"), &pgproto3.Query{String: "BEGIN"}, bind("p", "e"), bind("", "none"), sync, parse("", "SHOW EPOCH"), sync,
				bind("", "e"), sync, execute("p", 0), sync, parse("", "ROLLBACK"), bind("", ""), execute("", 0), sync,
			},
			"1 C ZT 2 EE26000 ZE EE25P02 ZE EE25P02 ZE EE25P02 ZE 1 2 C ZI",
		},
		{"warnings", []pgproto3.FrontendMessage{parse("", "COMMIT"), bind("", ""), execute("", 0), sync}, "1 2 N C ZI"},
		{
			"close",
			[]pgproto3.FrontendMessage{parse("a", "SHOW EPOCH"), &pgproto3.Close{ObjectType: 'S', Name: "a"}, &pgproto3.Close{ObjectType: 'P', Name: "none"}, bind("", "a"), sync},
			"1 3 3 EE26000 ZI",
		},
		{"twice", []pgproto3.FrontendMessage{parse("a", "SHOW EPOCH"), parse("a", "SHOW EPOCH"), sync, bind("p", "a"), bind("p", "a"), sync}, "1 EE42P05 ZI 2 EE42P03 ZI"},
		{"several commands", []pgproto3.FrontendMessage{parse("", "SHOW EPOCH; SHOW EPOCH"), sync}, "EE42601 ZI"},
		{"unterminated", []pgproto3.FrontendMessage{parse("", "SHOW 'x"), sync}, "EE42601 ZI"},
		{
			"unknown",
			[]pgproto3.FrontendMessage{&pgproto3.Describe{ObjectType: 'S', Name: "x"}, sync, &pgproto3.Describe{ObjectType: 'P', Name: "x"}, sync, execute("x", 0), sync},
			"EE26000 ZI EE34000 ZI EE34000 ZI",
		},
		{"parameter", []pgproto3.FrontendMessage{parse("", "SHOW EPOCH"), &pgproto3.Bind{Parameters: [][]byte{[]byte("1")}}, sync}, "1 EE08P01 ZI"},
		{"formats", []pgproto3.FrontendMessage{
			parse("", "SHOW LISTS"), &pgproto3.Bind{ResultFormatCodes: []int16{0, 1, 0}}, sync,
			&pgproto3.Bind{ResultFormatCodes: []int16{2}}, sync, &pgproto3.Bind{ResultFormatCodes: []int16{0, 1}}, sync,
		}, "1 EE08P01 ZI EE22023 ZI 2 ZI"},
		{
			"deallocate",
			[]pgproto3.FrontendMessage{parse("Ab", "SHOW EPOCH"), &pgproto3.Query{String: `DEALLOCATE ab`}, &pgproto3.Query{String: `DEALLOCATE "Ab"`}, bind("", "Ab"), sync},
			"1 EE26000 ZI C ZI EE26000 ZI",
		},
		{"a query ends skipping", []pgproto3.FrontendMessage{bind("", "none"), &pgproto3.Query{String: "SELECT 1"}}, "EE26000 T D C ZI"},
		{"function call", []pgproto3.FrontendMessage{&pgproto3.FunctionCall{}, &pgproto3.CopyDone{}, sync}, "EE0A000 ZI ZI"},
		{"terminate", []pgproto3.FrontendMessage{&pgproto3.Terminate{}}, "EOF"},
		{"client in violation", []pgproto3.FrontendMessage{&pgproto3.PasswordMessage{Password: "x"}}, "EF08P01 EOF"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := dialRaw(t, c)
			for _, m := range test.messages {
				r.Send(m)
			}
			var got []string
			for range max(strings.Count(test.want, "Z"), 1) {
				got = append(got, r.until(t, 'Z'))
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("got  %s\nwant %s", text, test.want)
			}
		})
	}
}

// TestFlush holds that answers come at Flush, and without it not before Sync.
func TestFlush(t *testing.T) {
	r := dialRaw(t, startConsole(t, testConfig()))
	r.Send(&pgproto3.Parse{Query: "SHOW EPOCH"})
	r.Send(&pgproto3.Flush{})
	if got := r.until(t, '1'); got != "1" {
		t.Errorf("after Flush: %s", got)
	}
}

func TestBinaryNumbers(t *testing.T) {
	r := dialRaw(t, startConsole(t, testConfig()))
	r.Send(&pgproto3.Parse{Query: "SHOW LISTS"})
	r.Send(&pgproto3.Bind{ResultFormatCodes: []int16{0, 1}})
	r.Send(&pgproto3.Describe{ObjectType: 'P'})
	r.Send(&pgproto3.Execute{MaxRows: 1})
	r.Send(&pgproto3.Sync{})
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for {
		m, err := r.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.RowDescription:
			seen++
			if m.Fields[0].Format != 0 || m.Fields[1].Format != 1 {
				t.Errorf("formats %d, %d", m.Fields[0].Format, m.Fields[1].Format)
			}
		case *pgproto3.DataRow:
			seen++
			if string(m.Values[0]) != "databases" || !bytes.Equal(m.Values[1], binary.BigEndian.AppendUint64(nil, 2)) {
				t.Errorf("values %q", m.Values)
			}
		case *pgproto3.ReadyForQuery:
			if seen != 2 {
				t.Errorf("%d of 2 messages", seen)
			}
			return
		}
	}
}

func TestPreparedLimit(t *testing.T) {
	r := dialRaw(t, startConsole(t, testConfig()))
	for i := range preparedMax + 1 {
		r.Send(&pgproto3.Parse{Name: fmt.Sprint("s", i), Query: "SHOW EPOCH"})
	}
	r.Send(&pgproto3.Sync{})
	r.Send(&pgproto3.Parse{Query: "SHOW EPOCH"}) // the unnamed one always fits
	for i := range preparedMax + 1 {
		r.Send(&pgproto3.Bind{PreparedStatement: "s0", DestinationPortal: fmt.Sprint("p", i)})
	}
	r.Send(&pgproto3.Sync{})
	got := r.until(t, 'Z') + " " + r.until(t, 'Z')
	want := strings.Join(slices.Concat(slices.Repeat([]string{"1"}, preparedMax), []string{"EE54000", "ZI", "1"},
		slices.Repeat([]string{"2"}, preparedMax), []string{"EE54000", "ZI"}), " ")
	if got != want {
		t.Errorf("got %s", got)
	}
}

// TestTooLong sends only the head of a message, so that nothing unread lets the system reset the connection.
func TestTooLong(t *testing.T) {
	r := dialRaw(t, startConsole(t, testConfig()))
	if _, err := r.conn.Write(binary.BigEndian.AppendUint32([]byte{'Q'}, messageMax+5)); err != nil {
		t.Fatal(err)
	}
	if got := r.until(t, 'Z'); got != "EF08P01 EOF" {
		t.Errorf("the client was told %s", got)
	}
}

// TestBrokenBodies holds that a message cut short at any place, inside a frame that is whole, ends the session and
// nothing else.
func TestBrokenBodies(t *testing.T) {
	c := startConsole(t, testConfig())
	for _, m := range []pgproto3.FrontendMessage{
		&pgproto3.Query{String: "SHOW EPOCH"}, &pgproto3.Parse{Name: "a", Query: "SHOW EPOCH", ParameterOIDs: []uint32{20}},
		&pgproto3.Bind{ResultFormatCodes: []int16{1}}, &pgproto3.Describe{ObjectType: 'S', Name: "n"},
		&pgproto3.Execute{Portal: "p"}, &pgproto3.Close{ObjectType: 'P', Name: "n"},
	} {
		whole, err := m.Encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		for n := 5; n < len(whole); n++ {
			r := dialRaw(t, c)
			cut := bytes.Clone(whole[:n])
			binary.BigEndian.PutUint32(cut[1:], uint32(n-1))
			if _, err := r.conn.Write(cut); err != nil {
				t.Fatal(err)
			}
			if got := r.until(t, 'Z'); got != "EF08P01 EOF" {
				t.Errorf("%T cut to %d bytes: %s", m, n, got)
			}
		}
	}
	query(t, connect(t, c, "watcher"), "SHOW EPOCH")
}

func TestEndOfContext(t *testing.T) {
	c := startConsole(t, testConfig())
	r := dialRaw(t, c)
	c.stop()
	if got := r.until(t, 'Z'); got != "EF57P01 EOF" {
		t.Errorf("the client was told %s", got)
	}
}

func TestPanicEndsOneSession(t *testing.T) {
	c := startConsole(t, testConfig())
	c.verbs = append(c.verbs, verb{name: "BOOM", role: RoleStats, fields: fields("x"), rows: func(*Console) [][]any { panic("boom") }})
	other := connect(t, c, "watcher")
	_, err := connect(t, c, "watcher").Exec(context.Background(), "BOOM").ReadAll()
	wantError(t, err, "FATAL", wire.CodeInternalError)
	query(t, other, "SHOW EPOCH")
}
