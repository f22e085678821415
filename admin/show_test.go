package admin

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/proxy"
	"shardproxy/topology"
	"shardproxy/wire"
)

var update = flag.Bool("update", false, "write testdata/show.txt anew")

func connect(t testing.TB, c *console, user string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(testContext(t), c.dsn(user))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// query runs a simple query of one command.
func query(t testing.TB, conn *pgconn.PgConn, sql string) *pgconn.Result {
	t.Helper()
	results, err := conn.Exec(testContext(t), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if len(results) != 1 {
		t.Fatalf("%s: %d results", sql, len(results))
	}
	return results[0]
}

// TestShow compares what every verb of the table gives with testdata/show.txt: a line with the columns (# is
// int8), then one line a row, with ~ for NULL.
func TestShow(t *testing.T) {
	cfg := testConfig()
	cfg.Peers = func() []topology.Peer {
		return []topology.Peer{
			{Name: "p2", Addr: "10.0.0.9:7946", Map: topology.MapState{Epoch: 7, Checksum: 0xfe}, LastHeard: morning, RTT: 1500 * time.Microsecond},
			{Name: "p3", Addr: "[::1]:7946", Status: topology.PeerDead},
		}
	}
	conn := connect(t, startConsole(t, cfg), "watcher")
	var b bytes.Buffer
	for _, v := range verbs() {
		if v.rows == nil {
			continue // it needs arguments: see TestChanges and TestLocate
		}
		result := query(t, conn, v.name+";")
		if got := result.CommandTag.String(); got != "SHOW" {
			t.Errorf("%s: tag %q", v.name, got)
		}
		fmt.Fprintf(&b, "> %s\n", v.name)
		for i, f := range result.FieldDescriptions {
			switch f.DataTypeOID {
			case wire.OIDInt8:
				f.Name += "#"
			case wire.OIDText:
			default:
				t.Errorf("%s: column %s has type %d", v.name, f.Name, f.DataTypeOID)
			}
			fmt.Fprintf(&b, "%s%s", strings.Repeat(" | ", min(i, 1)), f.Name)
		}
		b.WriteByte('\n')
		for _, row := range result.Rows {
			if v.name == "SHOW CLIENTS" && string(row[2]) == database {
				continue // ourselves, from a random port: see TestShowClientsOfConsole
			}
			for i, value := range row {
				switch {
				case value == nil:
					value = []byte("~")
				case v.name == "SHOW MEM" && i > 0 && bytes.HasPrefix(row[0], []byte("go_")), v.name == "SHOW LEASES" && i == 4:
					value = []byte("…") // of this process, or of the clock
				}
				fmt.Fprintf(&b, "%s%s", strings.Repeat(" | ", min(i, 1)), value)
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	const file = "testdata/show.txt"
	if *update {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}
}

// TestPgBouncerColumns holds that scripts for PgBouncer find its columns. The lists are what PgBouncer 1.25 answers, of
// SHOW STATS 1.18.
func TestPgBouncerColumns(t *testing.T) {
	want := map[string]string{
		"SHOW VERSION": "version",
		"SHOW POOLS": "database,user,cl_active,cl_waiting,cl_active_cancel_req,cl_waiting_cancel_req,sv_active,sv_active_cancel," +
			"sv_being_canceled,sv_idle,sv_used,sv_tested,sv_login,maxwait,maxwait_us,pool_mode,load_balance_hosts",
		"SHOW CLIENTS": "type,user,database,replication,state,addr,port,local_addr,local_port,connect_time,request_time,wait,wait_us,close_needed," +
			"ptr,link,remote_pid,tls,application_name,prepared_statements,id",
		"SHOW SERVERS": "type,user,database,replication,state,addr,port,local_addr,local_port,connect_time,request_time,wait,wait_us,close_needed," +
			"ptr,link,remote_pid,tls,application_name,prepared_statements,id",
		"SHOW STATS": "database,total_xact_count,total_query_count,total_received,total_sent,total_xact_time,total_query_time,total_wait_time," +
			"avg_xact_count,avg_query_count,avg_recv,avg_sent,avg_xact_time,avg_query_time,avg_wait_time",
		"SHOW STATS_TOTALS":   "database,xact_count,query_count,bytes_received,bytes_sent,xact_time,query_time,wait_time",
		"SHOW STATS_AVERAGES": "database,xact_count,query_count,bytes_received,bytes_sent,xact_time,query_time,wait_time",
		"SHOW DATABASES": "name,host,port,database,force_user,pool_size,min_pool_size,reserve_pool_size,server_lifetime,pool_mode," +
			"load_balance_hosts,max_connections,current_connections,max_client_connections,current_client_connections,paused,disabled",
		"SHOW USERS": "name,pool_size,reserve_pool_size,pool_mode,max_user_connections,current_connections,max_user_client_connections," +
			"current_client_connections",
		"SHOW LISTS":  "list,items",
		"SHOW CONFIG": "key,value,default,changeable",
		"SHOW MEM":    "name,size,used,free,memtotal",
	}
	for _, v := range verbs() {
		columns, ok := want[v.name]
		if !ok {
			continue
		}
		delete(want, v.name)
		var got []string
		for _, f := range v.fields {
			got = append(got, f.Name)
		}
		n := strings.Count(columns, ",") + 1
		if len(got) < n || strings.Join(got[:n], ",") != columns {
			t.Errorf("%s has %v", v.name, got)
		}
	}
	if len(want) > 0 {
		t.Errorf("not in the table: %v", want)
	}
}

func TestPoolMode(t *testing.T) {
	live := &proxy.Live{Pooling: proxy.SessionPooling, Users: map[string]*proxy.User{
		"a": {ServerUser: "one"}, "b": {ServerUser: "one"}, "c": {ServerUser: "two"}, "d": {ServerUser: "two", Pooling: proxy.SessionPooling},
	}}
	for role, want := range map[string]string{"one": "transaction", "two": "mixed", "looked up": "session"} {
		if got := poolMode(live, role); got != want {
			t.Errorf("%s: %s, want %s", role, got, want)
		}
	}
}

func TestShowClientsOfConsole(t *testing.T) {
	c := startConsole(t, testConfig())
	config, err := pgconn.ParseConfig(c.dsn("root"))
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = "top"
	conn, err := pgconn.ConnectConfig(testContext(t), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	own := func(rows [][][]byte) (list []string) {
		for _, row := range rows {
			if string(row[2]) == database {
				list = append(list, strings.Join([]string{string(row[1]), string(row[4]), string(row[18])}, " "))
			}
		}
		return list
	}
	if got := own(query(t, conn, "SHOW CLIENTS").Rows); !slices.Equal(got, []string{"root active top"}) {
		t.Errorf("the console lists itself as %q", got)
	}
	other := connect(t, c, "watcher")
	if got := own(query(t, conn, "SHOW CLIENTS").Rows); len(got) != 2 || !strings.HasPrefix(got[1], "watcher ") {
		t.Errorf("with a second client: %q", got)
	}
	if err := other.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	for ctx := testContext(t); ctx.Err() == nil; {
		if len(own(query(t, conn, "SHOW CLIENTS").Rows)) == 1 {
			return
		}
	}
	t.Error("a client that left is still listed")
}

// TestEmptyProxy holds that no verb needs a pool, a client or a table.
func TestEmptyProxy(t *testing.T) {
	snap, err := topology.NewSnapshot(1, []topology.Shard{{Name: "s1"}}, []topology.KeyRange{{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := NewConsole(testConfig(), &fixed{snapshot: snap, counters: proxy.Counters{Started: time.Now()}, live: &proxy.Live{}})
	for _, v := range verbs() {
		if v.rows == nil {
			continue
		}
		for _, row := range v.rows(c) {
			if len(row) != len(v.fields) {
				t.Errorf("%s: %d values for %d columns", v.name, len(row), len(v.fields))
			}
		}
	}
	if got, want := c.showShards(), [][]any{{"s1", nil, int64(0), int64(1), "100.00", "active"}}; !cmp.Equal(got, want) {
		t.Errorf("one shard that owns the whole ring: %v", got)
	}
}

// growing counts one round of a second's length, 60 bytes and 60 ms of waiting more whenever it is asked.
type growing struct {
	*fixed
	n int64
}

func (g *growing) Counters() proxy.Counters {
	g.n++
	return proxy.Counters{
		Started: morning, Rounds: 60 * g.n, Transactions: 120 * g.n, Received: 600 * g.n, Sent: 6000 * g.n,
		LatencySum: time.Duration(60*g.n) * time.Second, Waited: time.Duration(60*g.n) * time.Millisecond,
	}
}

func TestAveragesOfLastPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		c := NewConsole(Config{}, &growing{fixed: newFixed(t)})
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		time.Sleep(statsPeriod + time.Second) // the bubble's clock
		stop()
		if err := <-done; err != context.Canceled {
			t.Errorf("Run gave %v", err)
		}
		want := [][]any{{"app", int64(2), int64(1), int64(10), int64(100), nil, int64(1e6), int64(1000)}}
		if diff := cmp.Diff(want, c.showAverages()); diff != "" {
			t.Error(diff)
		}
	})
}
