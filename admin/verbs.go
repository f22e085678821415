package admin

import (
	"context"
	"slices"
	"strings"

	"shardproxy/wire"
)

// verb is one command of the console. Rows are of string, int64, or nil for NULL, as many as there are fields.
type verb struct {
	name   string // in upper case, with one blank between words
	args   string // what follows the name, for people; "" for nothing
	help   string
	role   Role // the least that may use it
	fields []wire.Field
	rows   func(c *Console) [][]any                     // of a verb without arguments
	read   func(a *arguments) (reply, *wire.Error)      // of one with
	act    func(a *arguments) (action, *wire.Error)     // of one that answers with nothing but its name
	mine   func(c *Console, tokens []token, n int) bool // whether tokens, of which n are the name, are meant for it; nil: yes
	alone  bool                                         // cannot be undone, so it may not run in a transaction block
}

// reply makes the rows of a statement when it runs.
type reply func(ctx context.Context, s *session) ([][]any, *wire.Error)

// action is what a statement without rows does when it runs.
type action func(ctx context.Context, s *session) outcome

// usage is the form of the command.
func (v *verb) usage() string { return strings.TrimSuffix(v.name+" "+v.args, " ") }

// match says whether a command begins with the name of v, and where its arguments begin.
func (v *verb) match(c *Console, tokens []token) (n int, ok bool) {
	for word := range strings.FieldsSeq(v.name) {
		if n == len(tokens) || !tokens[n].bare || !strings.EqualFold(tokens[n].text, word) {
			return 0, false
		}
		n++
	}
	if v.mine != nil && !v.mine(c, tokens, n) {
		return 0, false
	}
	return n, v.read != nil || v.act != nil || n == len(tokens)
}

// show is a verb that everybody may use, without arguments.
func show(name, help, columns string, rows func(c *Console) [][]any) verb {
	return verb{name: name, help: help, role: RoleStats, fields: fields(columns), rows: rows}
}

// fields makes columns of a list of names: int8 where a name ends in #, else text.
func fields(list string) []wire.Field {
	var fs []wire.Field
	for _, name := range strings.Fields(list) {
		f := wire.Field{Name: name, Type: wire.OIDText}
		if short, ok := strings.CutSuffix(name, "#"); ok {
			f = wire.Field{Name: short, Type: wire.OIDInt8}
		}
		fs = append(fs, f)
	}
	return fs
}

const socketColumns = `type user database replication state addr port# local_addr local_port# connect_time request_time
	wait# wait_us# close_needed# ptr link remote_pid# tls application_name prepared_statements# id#`

// verbs is the table of the commands, in the order of SHOW HELP.
func verbs() []verb {
	list := []verb{
		show(
			"SHOW HELP", "the commands of this console",
			"command role description", (*Console).showHelp,
		),
		show(
			"SHOW VERSION", "the version of shardproxy",
			"version", (*Console).showVersion,
		),
		show(
			"SHOW POOLS", "connections to nodes, by pool; cl_active counts the clients that hold one",
			`database user cl_active# cl_waiting# cl_active_cancel_req# cl_waiting_cancel_req# sv_active#
				sv_active_cancel# sv_being_canceled# sv_idle# sv_used# sv_tested# sv_login# maxwait# maxwait_us# pool_mode
				load_balance_hosts shard node`, (*Console).showPools,
		),
		show(
			"SHOW CLIENTS", "connected clients, those of the console included",
			socketColumns, (*Console).showClients,
		),
		show(
			"SHOW SERVERS", "connections to nodes, one by one",
			socketColumns+" shard node", (*Console).showServers,
		),
		show(
			"SHOW STATS", "work since the start, and averages of the last minute; times in microseconds",
			`database total_xact_count# total_query_count# total_received# total_sent# total_xact_time#
				total_query_time# total_wait_time# avg_xact_count# avg_query_count# avg_recv# avg_sent# avg_xact_time#
				avg_query_time# avg_wait_time#`, (*Console).showStats,
		),
		show(
			"SHOW STATS_TOTALS", "the totals of SHOW STATS",
			statsColumns, (*Console).showTotals,
		),
		show(
			"SHOW STATS_AVERAGES", "the averages of SHOW STATS",
			statsColumns, (*Console).showAverages,
		),
		show(
			"SHOW DATABASES", "where the database of the clients lives: one row per shard's primary",
			`name host port# database force_user pool_size# min_pool_size# reserve_pool_size# server_lifetime# pool_mode
				load_balance_hosts max_connections# current_connections# max_client_connections# current_client_connections#
				paused# disabled# shard`, (*Console).showDatabases,
		),
		show(
			"SHOW USERS", "configured users",
			`name pool_size# reserve_pool_size# pool_mode max_user_connections# current_connections#
				max_user_client_connections# current_client_connections# server_user`, (*Console).showUsers,
		),
		show(
			"SHOW LISTS", "how many there are of everything",
			"list items#", (*Console).showLists,
		),
		show("SHOW CONFIG", helpShowConfig, columnsShowConfig, (*Console).showConfig),
		show(
			"SHOW MEM", "what is held in memory, and how much there is room for; in bytes where it is not a number of things",
			"name size# used# free# memtotal#", (*Console).showMem,
		),
		show(
			"SHOW SHARDS", "shards, and their part of the ring in percent",
			"shard primary replicas# ranges# share state", (*Console).showShards,
		),
		show(
			"SHOW NODES", "PostgreSQL servers, and the connections to them",
			"shard role host port# database sv_active# sv_idle# sv_login# cl_waiting#", (*Console).showNodes,
		),
		show(
			"SHOW RANGES", "key ranges: start is in, end is out, NULL is the end of the ring; hashes as hashint8extended gives them",
			"start end start_hash# end_hash# shard", (*Console).showRanges,
		),
		show(
			"SHOW TABLES", "tables, their shard keys, and why rows cannot be placed",
			"schema name kind key_column key_type problem", (*Console).showTables,
		),
		show(
			"SHOW EPOCH", "the topology that new statements are planned with; equal checksums are equal maps",
			"epoch# cluster checksum", (*Console).showEpoch,
		),
		show(
			"SHOW RULES", "what places the tables; the first rule that fits decides, in this order",
			"rule table column", (*Console).showRules,
		),
		show(
			"SHOW PEERS", "the other proxies of the cluster, as this one knows them by gossip",
			"peer address status epoch# checksum last_heard rtt_us#", (*Console).showPeers,
		),
		show(
			"SHOW LEASES", "what the nodes have said of their fences, by pool; nothing is sent to one that is stale",
			"shard node user fence# confirmed_ago_ms# state", (*Console).showLeases,
		),
		{
			name: "EXPLAIN", args: "statement", help: "where a statement would run, and why; it is not run, and parameters have no value",
			role: RoleStats, fields: []wire.Field{{Name: "QUERY PLAN", Type: wire.OIDText}}, read: readExplain,
		},
		{
			name: "LOCATE", args: "[schema.]table key", help: "where the rows of a key are; hash is what hashint8extended and its like give",
			role: RoleStats, fields: fields("table column key_type hash# hash_hex start end shard node"), read: readLocate,
		},
	}
	return slices.Concat(list, doctors(), fences(), operations(), settings(), changes(), moves(), schedules(), placements(), gossipVerbs())
}

const statsColumns = "database xact_count# query_count# bytes_received# bytes_sent# xact_time# query_time# wait_time#"

func (c *Console) showHelp() [][]any {
	var rows [][]any
	for _, v := range c.verbs {
		rows = append(rows, []any{v.usage(), v.role.String(), v.help})
	}
	return rows
}
