package router

import (
	"testing"

	"shardproxy/topology"
)

const (
	oidBool      = 16
	oidNumeric   = 1700
	oidTimestamp = 1184
)

// testSchema is a small schema as topology.LoadSchema would give it.
func testSchema() *topology.Schema {
	rules := topology.DefaultKeyRules()
	rules.Explicit = map[topology.TableName]string{}
	rules.Reference = map[topology.TableName]bool{{Schema: "public", Name: "countries"}: true}
	s := &topology.Schema{Version: 1, Tables: map[topology.TableName]*topology.Table{}, Functions: map[string]topology.Function{}, Rules: rules}
	column := func(name string, oid uint32) topology.Column { return topology.Column{Name: name, Type: oid} }
	key := func(name string, oid uint32) topology.Column {
		return topology.Column{Name: name, Type: oid, NotNull: true}
	}
	add := func(schema, name string, keyColumn string, columns ...topology.Column) *topology.Table {
		t := &topology.Table{TableName: topology.TableName{Schema: schema, Name: name}, Kind: topology.Reference, Key: -1, Columns: columns}
		for i, c := range columns {
			if c.Name == keyColumn {
				t.Kind, t.Key, t.KeyType = topology.Sharded, i, topology.KeyTypeOf(c.Type)
			}
		}
		s.Tables[t.TableName] = t
		return t
	}
	view := func(name, definition string, columns ...topology.Column) *topology.Table {
		t := add("public", name, "", columns...)
		t.Kind, t.Definition = topology.View, definition
		return t
	}
	serial := topology.Column{Name: "id", Type: oidInt8, NotNull: true, Default: topology.Volatile, Sequence: true, Draws: `"public"."tasks_id_seq"`}
	created := topology.Column{Name: "created_at", Type: oidTimestamp, Default: topology.Stable}

	users := add("public", "users", "id", key("id", oidInt8), column("email", oidText), column("name", oidText), column("country", oidText), created)
	users.Primary = []string{"id"}
	projects := add("public", "projects", "creator_user_id", key("id", oidInt8), key("creator_user_id", oidInt8), column("title", oidText), column("budget", oidNumeric))
	projects.Primary = []string{"creator_user_id", "id"}
	add("public", "events", "user_id", topology.Column{Name: "id", Type: oidUUID, NotNull: true, Default: topology.Volatile}, key("user_id", oidInt4), column("kind", oidText), created)
	add("public", "notes", "user_id", key("id", oidInt8), key("user_id", oidText), column("body", oidText))
	add("public", "sessions", "user_id", key("user_id", oidUUID), column("token", oidText))
	add("public", "tasks", "user_id", serial, key("user_id", oidInt8), column("title", oidText))
	number := serial
	number.Name, number.Identity, number.Always = "user_id", true, true
	add("public", "members", "user_id", number, column("x", oidText))
	add("public", "defaults", "user_id", topology.Column{Name: "user_id", Type: oidUUID, NotNull: true, Default: topology.Volatile}, column("x", oidText))
	add("public", "audited", "user_id", key("user_id", oidInt8), column("x", oidText)).Triggers = true
	add("public", "loose", "user_id", column("user_id", oidInt8), column("x", oidText))
	add("public", "codes", "user_id", topology.Column{Name: "user_id", Type: oidVarchar, Length: 3, NotNull: true}, column("x", oidText))
	add("public", "tasks_id_seq", "").Kind = topology.Other
	add("public", "remote_users", "", column("id", oidInt8)).Kind = topology.Other
	add("public", "Odd Names", "user_id", key("user_id", oidInt8), column("Select", oidText))
	add("app", "items", "user_id", key("user_id", oidInt8), column("sku", oidText))
	countries := add("public", "countries", "", key("code", oidText), column("name", oidText), column("id", oidInt8), column("region", oidText))
	countries.Primary = []string{"code"}
	add("public", "currencies", "", serial, column("code", oidText), created)
	add("public", "watched", "", key("id", oidInt8), column("x", oidText)).Triggers = true
	add("public", "pgbench_accounts", "aid", key("aid", oidInt4), column("bid", oidInt4), column("abalance", oidInt4), column("filler", 1042))
	add("public", "pgbench_branches", "", key("bid", oidInt4), column("bbalance", oidInt4))
	broken := add("public", "broken", "", column("user_id", oidNumeric))
	broken.Kind, broken.Problem = topology.Sharded, "shard key public.broken.user_id: type OID 1700 cannot be a shard key"

	view("active_users", "SELECT u.id AS user_id, u.email FROM public.users u WHERE (u.name IS NOT NULL);", column("user_id", oidInt8), column("email", oidText))
	view("user_totals", "SELECT p.creator_user_id AS uid, count(*) AS n FROM public.projects p GROUP BY p.creator_user_id;", column("uid", oidInt8), column("n", oidInt8))
	view("country_names", "SELECT countries.name FROM public.countries;", column("name", oidText))
	view("user_five", "SELECT users.id, users.email FROM public.users WHERE (users.id = 5);", column("id", oidInt8), column("email", oidText))
	view("country_cache", "SELECT countries.name FROM public.countries;", column("name", oidText)).Stored = true
	view("user_cache", "SELECT users.id, users.email FROM public.users;", column("id", oidInt8), column("email", oidText)).Stored = true

	s.Operators = map[string]topology.Operator{"@@@@": {Volatility: topology.Volatile}, "====": {Volatility: topology.Immutable, Keys: true}}
	function := func(f topology.Function, words ...string) {
		for _, name := range words {
			s.Functions[name] = f
		}
	}
	builtin := topology.Function{Builtin: true, Volatility: topology.Immutable}
	function(builtin, "lower", "upper", "length", "abs", "round", "md5", "hashtext", "btrim", "generate_series", "substring", "row_number", "rank", "lag", "mod")
	builtin.SetOf = true
	function(builtin, "unnest", "jsonb_array_elements")
	builtin.SetOf, builtin.Aggregate = false, true
	function(builtin, "count", "sum", "avg", "min", "max", "array_agg", "string_agg", "bool_and", "percentile_cont")
	function(topology.Function{Builtin: true, Volatility: topology.Stable}, "now", "to_char", "date_trunc", "current_setting", "statement_timestamp", "pg_get_viewdef", "age", "format", "version", "txid_current_if_assigned")
	function(topology.Function{Builtin: true, Volatility: topology.Volatile}, "random", "gen_random_uuid", "clock_timestamp", "pg_sleep", "nextval", "currval", "setval", "lastval",
		"set_config", "pg_advisory_lock", "pg_advisory_unlock", "pg_advisory_xact_lock", "pg_try_advisory_lock", "pg_notify", "txid_current", "pg_terminate_backend", "pg_reload_conf",
		"lo_import", "pg_read_file", "query_to_xml", "setseed", "pg_backend_pid")
	function(topology.Function{Volatility: topology.Immutable}, "slug")
	function(topology.Function{Volatility: topology.Stable}, "user_email")
	function(topology.Function{Volatility: topology.Volatile}, "do_things", "uuid_generate_v4")
	return s
}

// testSnapshot has four shards of equal ranges, s0 to s3.
func testSnapshot(t testing.TB) *topology.Snapshot {
	t.Helper()
	shards := []topology.Shard{{Name: "s0"}, {Name: "s1"}, {Name: "s2"}, {Name: "s3"}}
	snap, err := topology.NewSnapshot(1, shards, topology.EqualRanges(len(shards)), testSchema())
	if err != nil {
		t.Fatal(err)
	}
	return snap
}
