package router

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// function reads a function call by its name; what is nested in it is read elsewhere.
func (a *analysis) function(f *pg.FuncCall, sc *scope) {
	parts := names(f.Funcname)
	name := parts[len(parts)-1]
	if f.Over != nil {
		sc.level.window = true
	}
	if len(parts) > 1 && parts[len(parts)-2] == "shardproxy" {
		a.diverge("function " + name + " is the proxy's own")
	}
	if a.special(f, name) {
		return
	}
	fn, ok := a.schema.Functions[name]
	a.undrawn = a.undrawn || fn.SetOf // each of its rows has a number of its own
	if fn.Aggregate || f.AggStar || f.AggDistinct || f.AggWithinGroup || f.AggFilter != nil || f.AggOrder != nil {
		if f.Over == nil {
			a.aggregate(f, sc)
		}
		if !orderless[name] || !fn.Builtin {
			a.diverge("aggregate " + name + " may see the rows in another order on each shard")
		}
	}
	if !ok {
		if f.Funcformat == pg.CoercionForm_COERCE_SQL_SYNTAX || castFunctions[name] {
			return
		}
		a.t.Unknown = append(a.t.Unknown, strings.Join(parts, "."))
		a.diverge("function " + name + " is not known to the proxy")
		a.t.Write = true
		return
	}
	switch {
	case fn.Volatility == topology.Immutable:
	case !fn.Builtin && !harmlessExtension[name]:
		a.t.Write = a.t.Write || fn.Volatility == topology.Volatile
		a.refuse(&Error{
			Code:    codeNotSupported,
			Message: "function " + quoteName(name) + " may read or change rows that the proxy cannot see",
			Hint:    "Declare it IMMUTABLE if it reads no table, or name the shard: " + hintComment,
		})
	case fn.Volatility == topology.Volatile:
		a.volatile(name, sc)
	case !settled[name] || name == "age" && len(f.Args) == 1:
		a.diverge("function " + name + " may give something else on each shard")
	}
}

// volatile notes a function that gives another value each time.
func (a *analysis) volatile(name string, sc *scope) {
	a.diverge("function " + name + " gives something else on each shard")
	if !sc.level.top {
		a.alone("function " + name + " in a sub-query or in FROM is to be evaluated once, not on each shard")
	}
	if !harmless[name] && !harmlessExtension[name] {
		a.t.Write = true
	}
}

// aggregate notes an aggregate of this query level. One whose arguments are columns of an
// enclosing query belongs to that one.
func (a *analysis) aggregate(f *pg.FuncCall, sc *scope) {
	sc.level.aggregate = true
	for s := sc.parent; s != nil && !f.AggStar; s = s.parent {
		s.level.aggregate = s.level.aggregate || a.outerColumn(f.Args, sc)
	}
}

// outerColumn says whether a column in nodes may be one of an enclosing query.
func (a *analysis) outerColumn(nodes []*pg.Node, sc *scope) bool {
	outer := false
	for _, n := range nodes {
		walk(n, func(n *pg.Node) {
			if n.GetColumnRef() != nil {
				ref, ok := sc.resolve(n)
				outer = outer || !ok || !ref.local
			}
		})
	}
	return outer
}

// valueFunction reads CURRENT_DATE and its like, which are functions without parentheses.
func (a *analysis) valueFunction(f *pg.SQLValueFunction) {
	if currentTime(f) {
		a.diverge("the current time differs between shards")
	}
}

// currentTime says that a function without parentheses gives a time.
func currentTime(f *pg.SQLValueFunction) bool {
	switch f.Op {
	case pg.SQLValueFunctionOp_SVFOP_CURRENT_ROLE, pg.SQLValueFunctionOp_SVFOP_CURRENT_USER, pg.SQLValueFunctionOp_SVFOP_USER,
		pg.SQLValueFunctionOp_SVFOP_SESSION_USER, pg.SQLValueFunctionOp_SVFOP_CURRENT_CATALOG, pg.SQLValueFunctionOp_SVFOP_CURRENT_SCHEMA:
		return false
	}
	return true
}

// cast notes the casts whose value depends on when or where they are evaluated.
func (a *analysis) cast(c *pg.TypeCast) {
	if name, array := typeName(c.TypeName); name != "" {
		a.mark(c.Arg, keyTypeNamed(name), array)
	}
	parts := names(c.TypeName.Names)
	switch parts[len(parts)-1] {
	case "date", "time", "timetz", "timestamp", "timestamptz":
		a.timed = true
	case "regclass", "regproc", "regprocedure", "regtype", "regoper", "regoperator", "regrole", "regnamespace":
		a.diverge("the OID of an object differs between shards")
	}
}

// movingTime says that a text is one of PostgreSQL's names of a time that moves.
func movingTime(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "now", "today", "tomorrow", "yesterday":
		return true
	}
	return false
}

// special handles the built-in functions that do more than give a value.
func (a *analysis) special(f *pg.FuncCall, name string) bool {
	switch {
	case name == "set_config":
		a.setConfig(f)
	case sequenceFunctions[name]:
		a.sequenceCall(f, name)
	case name == "pg_notify":
		a.first(name)
	case strings.HasPrefix(name, "pg_advisory_") || strings.HasPrefix(name, "pg_try_advisory_"):
		a.first(name)
		a.t.Pin = a.t.Pin || !strings.Contains(name, "_xact_")
	case name == "setseed":
		a.t.Pin, a.t.Write = true, true
	case administrative[name] || strings.HasPrefix(name, "pg_wal_replay_") || strings.HasPrefix(name, "pg_stat_reset"):
		a.t.Write = true
		a.refuse(&Error{
			Code:    codeNotSupported,
			Message: "function " + name + " acts on one server",
			Hint:    "Connect to the node itself, or use the admin console (database shardproxy).",
		})
	case hidden[name] || hasAnyPrefix(name, hiddenPrefixes):
		a.t.Write = true
		a.refuse(&Error{
			Code:    codeNotSupported,
			Message: "function " + name + " reads or changes data that the proxy cannot see",
			Hint:    hintComment,
		})
	default:
		return false
	}
	return true
}

// first notes a function that must run on the first shard, where all sessions meet.
func (a *analysis) first(name string) {
	a.t.First, a.t.Write = true, true
	a.firstBy = name
	a.diverge("function " + name + " runs on the first shard only")
}

// setConfig reads set_config(name, value, local) as the SET that it is.
func (a *analysis) setConfig(f *pg.FuncCall) {
	a.cacheable = false
	a.t.Config = true
	name, named := textOf(arg(f, 0))
	value, valued := textOf(arg(f, 1))
	local, told := booleanOf(arg(f, 2))
	set := SetStmt{Verb: SetValue, Name: settingName(name), Value: value, Local: local, Unread: !valued || !a.always(f)}
	if set.Unread {
		set.Value = ""
	}
	if !told {
		a.reject(unclearConfig())
	} else if local && !named {
		a.refuse(unclearConfig())
	}
	if len(a.t.SetConfig) == 0 {
		a.t.Set = set
	}
	a.t.SetConfig = append(a.t.SetConfig, set)
}

func unclearConfig() *Error {
	return &Error{
		Code: codeNotSupported, Message: "it is not known before it runs which setting set_config changes in the transaction",
		Hint: "Give the setting's name and is_local as literals, or use SET LOCAL.",
	}
}

// always says that f is called once, whatever the statement finds.
func (a *analysis) always(f *pg.FuncCall) bool {
	for _, n := range a.constantTargets {
		v := n.GetResTarget().GetVal()
		if cast := v.GetTypeCast(); cast != nil {
			v = cast.Arg
		}
		if v.GetFuncCall() == f {
			return true
		}
	}
	return false
}

// configured keeps a statement that calls set_config to one shard, where the session can ask what was set.
func (a *analysis) configured() {
	const why = "set_config would be called on several shards"
	if !a.t.Config || a.env.Bound {
		return
	}
	if a.t.Kind == Scatter || a.t.Kind == All || a.t.Kind == Cursor {
		a.refuse(&Error{Code: codeNotSupported, Message: why, Hint: "Call it in a statement of its own."})
	}
	a.oneShard(why)
}

func arg(f *pg.FuncCall, i int) *pg.Node {
	if i < len(f.Args) {
		return f.Args[i]
	}
	return nil
}

// textOf reads a text literal, which may be cast to text.
func textOf(n *pg.Node) (string, bool) {
	if c := n.GetTypeCast(); c != nil {
		if name, array := typeName(c.TypeName); array || keyTypeNamed(name) != topology.KeyText {
			return "", false
		}
		n = c.Arg
	}
	s, ok := n.GetAConst().GetVal().(*pg.A_Const_Sval)
	if !ok {
		return "", false
	}
	return s.Sval.Sval, true
}

// booleanOf reads a boolean literal.
func booleanOf(n *pg.Node) (value, ok bool) {
	if c := n.GetTypeCast(); c != nil {
		n = c.Arg
	}
	switch v := n.GetAConst().GetVal().(type) {
	case *pg.A_Const_Boolval:
		return v.Boolval.Boolval, true
	case *pg.A_Const_Sval:
		switch strings.ToLower(strings.TrimSpace(v.Sval.Sval)) {
		case "t", "true", "on", "yes", "1", "y":
			return true, true
		case "f", "false", "off", "no", "0", "n":
			return false, true
		}
	}
	return false, false
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

func wordSet(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

var (
	sequenceFunctions = wordSet("nextval currval lastval setval")

	// castFunctions are types that are written like functions and have none of their name.
	castFunctions = wordSet("json jsonb bytea uuid inet cidr macaddr xml varchar bpchar tsvector tsquery")

	// harmless are volatile built-ins that change nothing.
	harmless = wordSet(`random random_normal clock_timestamp timeofday gen_random_uuid uuidv4 uuidv7
		pg_sleep pg_sleep_for pg_sleep_until pg_backend_pid pg_blocking_pids pg_safe_snapshot_blocking_pids
		pg_isolation_test_session_is_blocked pg_current_wal_lsn pg_current_wal_insert_lsn pg_current_wal_flush_lsn
		pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_is_wal_replay_paused
		pg_get_wal_replay_pause_state pg_is_in_recovery pg_stat_get_activity pg_stat_get_progress_info
		pg_stat_get_wal_senders pg_stat_get_wal_receiver pg_stat_get_replication_slot pg_get_replication_slots
		pg_lock_status pg_cursor pg_prepared_statement pg_prepared_xact pg_show_all_settings pg_show_all_file_settings
		pg_hba_file_rules pg_ident_file_mappings pg_timezone_names pg_timezone_abbrevs pg_available_extensions
		pg_available_extension_versions pg_config pg_stat_get_slru pg_stat_get_backend_idset
		pg_relation_size pg_table_size pg_indexes_size pg_total_relation_size pg_database_size pg_tablespace_size
		pg_relation_filenode pg_relation_filepath pg_xact_commit_timestamp pg_last_committed_xact pg_xact_status
		txid_status pg_snapshot_xip txid_snapshot_xip pg_control_system pg_control_checkpoint pg_control_recovery
		pg_control_init pg_get_backend_memory_contexts pg_get_shmem_allocations pg_show_replication_origin_status
		pg_notification_queue_usage pg_listening_channels pg_my_temp_schema pg_jit_available pg_collation_actual_version
		pg_database_collation_actual_version inet_client_addr inet_client_port inet_server_addr inet_server_port
		pg_conf_load_time pg_postmaster_start_time pg_trigger_depth pg_column_size pg_column_compression
		pg_visible_in_snapshot pg_typeof currtid2`)

	// harmlessExtension are functions of common extensions that read no table.
	harmlessExtension = wordSet(`uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 gen_random_bytes gen_salt
		unaccent show_limit word_similarity strict_word_similarity similarity_op pgp_sym_encrypt pgp_sym_encrypt_bytea
		pgp_pub_encrypt pgp_pub_encrypt_bytea`)

	// administrative are functions that act on a server rather than on a database's rows.
	administrative = wordSet(`pg_cancel_backend pg_terminate_backend pg_reload_conf pg_rotate_logfile pg_rotate_logfile_old
		pg_promote pg_switch_wal pg_create_restore_point pg_backup_start pg_backup_stop pg_start_backup pg_stop_backup
		pg_export_snapshot pg_log_backend_memory_contexts pg_log_standby_snapshot pg_import_system_collations
		pg_create_physical_replication_slot pg_create_logical_replication_slot pg_drop_replication_slot
		pg_copy_physical_replication_slot pg_copy_logical_replication_slot pg_replication_slot_advance pg_sync_replication_slots
		pg_stat_force_next_flush pg_stat_clear_snapshot pg_extension_config_dump pg_nextoid pg_stop_making_pinned_objects`)

	// hidden are functions that run SQL given as text, or reach files, other servers or large objects.
	hidden = wordSet(`query_to_xml query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema
		table_to_xml table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema
		schema_to_xml_and_xmlschema database_to_xml database_to_xmlschema database_to_xml_and_xmlschema
		ts_stat ts_rewrite loread lowrite pg_read_file pg_read_binary_file pg_read_file_old pg_stat_file
		brin_summarize_new_values brin_summarize_range brin_desummarize_range gin_clean_pending_list
		crosstab crosstab2 crosstab3 crosstab4 crosstabn connectby xpath_table postgres_fdw_disconnect
		postgres_fdw_disconnect_all pg_prewarm autoprewarm_dump_now`)

	hiddenPrefixes = []string{"lo_", "dblink", "pg_ls_", "pg_file_", "pg_logical_", "pg_replication_origin_"}

	// orderless are aggregates whose result does not depend on the order of the rows.
	orderless = wordSet(`count min max bool_and bool_or every bit_and bit_or bit_xor`)

	// settled are stable built-ins that depend on nothing but their arguments and the session's
	// settings, which are the same on all shards.
	settled = wordSet(`to_char length to_date to_timestamp to_number date_trunc date_part extract timezone age date_bin
		concat concat_ws format to_json to_jsonb row_to_json array_to_json json_build_object json_build_array
		jsonb_build_object jsonb_build_array json_object jsonb_object array_to_string string_to_array
		to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_headline array_to_tsvector
		make_timestamptz quote_literal quote_nullable current_setting generate_series generate_subscripts
		jsonb_path_exists_tz jsonb_path_match_tz jsonb_path_query_tz jsonb_path_query_array_tz jsonb_path_query_first_tz
		jsonb_to_tsvector json_to_tsvector json_populate_record jsonb_populate_record json_to_record jsonb_to_record
		json_populate_recordset jsonb_populate_recordset json_to_recordset jsonb_to_recordset
		timestamptz timestamp date time timetz overlaps encode convert convert_from convert_to
		current_user session_user current_role current_schema current_schemas current_database
		json_agg jsonb_agg json_object_agg jsonb_object_agg array_agg string_agg interval text regexp_matches`)
)
