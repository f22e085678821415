package admin

import (
	"strings"

	"shardproxy/wire"
)

// verb is one command of the console that gives rows.
type verb struct {
	name   string // in upper case, with one blank between words
	help   string
	role   Role // the least that may use it
	fields []wire.Field
	rows   func(c *Console) [][]any // string, int64, or nil for NULL; as many as there are fields
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

const socketColumns = `type user database state addr port# local_addr local_port# connect_time request_time
	wait# wait_us# close_needed# ptr link remote_pid# tls application_name`

// verbs is the table of the commands, in the order of SHOW HELP.
func verbs() []verb {
	return []verb{
		{
			"SHOW HELP", "the commands of this console", RoleStats,
			fields("command role description"), (*Console).showHelp,
		},
		{
			"SHOW VERSION", "the version of shardproxy", RoleStats,
			fields("version"), (*Console).showVersion,
		},
		{
			"SHOW POOLS", "connections to nodes, by pool; cl_active counts the clients that hold one", RoleStats,
			fields(`database user cl_active# cl_waiting# cl_active_cancel_req# cl_waiting_cancel_req# sv_active#
				sv_active_cancel# sv_being_canceled# sv_idle# sv_used# sv_tested# sv_login# maxwait# maxwait_us# pool_mode
				shard node`), (*Console).showPools,
		},
		{
			"SHOW CLIENTS", "connected clients, those of the console included", RoleStats,
			fields(socketColumns + " id#"), (*Console).showClients,
		},
		{
			"SHOW SERVERS", "connections to nodes, one by one", RoleStats,
			fields(socketColumns + " shard node"), (*Console).showServers,
		},
		{
			"SHOW STATS", "work since the start, and averages of the last minute; times in microseconds", RoleStats,
			fields(`database total_xact_count# total_query_count# total_received# total_sent# total_xact_time#
				total_query_time# total_wait_time# avg_xact_count# avg_query_count# avg_recv# avg_sent# avg_xact_time#
				avg_query_time# avg_wait_time#`), (*Console).showStats,
		},
		{
			"SHOW STATS_TOTALS", "the totals of SHOW STATS", RoleStats,
			fields(statsColumns), (*Console).showTotals,
		},
		{
			"SHOW STATS_AVERAGES", "the averages of SHOW STATS", RoleStats,
			fields(statsColumns), (*Console).showAverages,
		},
		{
			"SHOW DATABASES", "where the database of the clients lives: one row per shard's primary", RoleStats,
			fields(`name host port# database force_user pool_size# min_pool_size# reserve_pool# pool_mode
				max_connections# current_connections# paused# disabled# shard`), (*Console).showDatabases,
		},
		{
			"SHOW USERS", "configured users", RoleStats,
			fields("name pool_mode"), (*Console).showUsers,
		},
		{
			"SHOW LISTS", "how many there are of everything", RoleStats,
			fields("list items#"), (*Console).showLists,
		},
		{
			"SHOW SHARDS", "shards, and their part of the ring in percent", RoleStats,
			fields("shard primary replicas# ranges# share"), (*Console).showShards,
		},
		{
			"SHOW NODES", "PostgreSQL servers, and the connections to them", RoleStats,
			fields("shard role host port# database sv_active# sv_idle# sv_login# cl_waiting#"), (*Console).showNodes,
		},
		{
			"SHOW RANGES", "key ranges: start is in, end is out, NULL is the end of the ring; hashes as hashint8extended gives them", RoleStats,
			fields("start end start_hash# end_hash# shard"), (*Console).showRanges,
		},
		{
			"SHOW TABLES", "tables, their shard keys, and why rows cannot be placed", RoleStats,
			fields("schema name kind key_column key_type problem"), (*Console).showTables,
		},
		{
			"SHOW EPOCH", "number of the topology that new statements are planned with", RoleStats,
			fields("epoch#"), (*Console).showEpoch,
		},
	}
}

const statsColumns = "database xact_count# query_count# bytes_received# bytes_sent# xact_time# query_time# wait_time#"

func (c *Console) showHelp() [][]any {
	var rows [][]any
	for _, v := range c.verbs {
		rows = append(rows, []any{v.name, v.role.String(), v.help})
	}
	return rows
}
