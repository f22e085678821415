package topology

import "slices"

// The kinds of objects that other files name.
const (
	kindTable      = "table"
	kindColumn     = "column"
	kindConstraint = "constraint"
	kindIndex      = "index"
	kindStatistics = "statistics"
	kindOwner      = "owner of"
	kindPrivilege  = "privilege"
	kindRevocation = "revocation"
)

// objectKinds are in the order in which differences are listed.
var objectKinds = slices.Concat(databaseKinds, relationKinds, tableKinds, codeKinds, grantKinds)

var databaseKinds = []objectKind{
	{
		kind: "extension", name: "quote_ident(e.extname)", part: "''",
		from: "FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace",
		aspects: []aspect{
			{sql: "e.extversion", word: "version"}, {sql: "n.nspname", word: "schema"},
		},
	},
	{
		kind: "schema", name: "n.name", part: "n.name",
		from:    "FROM spaces n WHERE n.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_namespace'::regclass)",
		aspects: []aspect{ownerOf("n.nspowner")},
	},
}

// relationKinds stand for themselves.
var relationKinds = []objectKind{
	{
		kind: kindTable, name: "t.name", part: "t.name",
		from: `FROM tables t LEFT JOIN pg_am a ON a.oid = t.relam
			LEFT JOIN pg_foreign_table f ON f.ftrelid = t.oid LEFT JOIN pg_foreign_server s ON s.oid = f.ftserver`,
		aspects: []aspect{
			{sql: "t.relkind", values: map[string]string{"r": "a table", "p": "a partitioned table", "f": "a foreign table"}},
			{sql: "t.relpersistence", values: map[string]string{"p": "permanent", "u": "unlogged"}},
			{sql: "a.amname", word: "access method"},
			{sql: "CASE WHEN t.relkind = 'p' THEN pg_get_partkeydef(t.oid) END", word: "partition key"},
			{sql: "(SELECT string_agg(p.inhparent::regclass::text, ', ' ORDER BY p.inhseqno) FROM pg_inherits p WHERE p.inhrelid = t.oid)", word: "parent"},
			{sql: "CASE WHEN t.relispartition THEN pg_get_expr(t.relpartbound, t.oid) END", word: "partition bound"},
			{sql: "t.relrowsecurity", values: yesNo("under row security", "without row security")},
			{sql: "t.relforcerowsecurity", values: yesNo("under row security for its owner too", "without row security for its owner")},
			{
				sql: `CASE t.relreplident WHEN 'i' THEN (SELECT 'index ' || x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
				WHERE i.indrelid = t.oid AND i.indisreplident) ELSE t.relreplident::text END`, word: "replica identity",
				values: map[string]string{"d": "DEFAULT", "n": "NOTHING", "f": "FULL"},
			},
			{sql: "CASE WHEN t.reloftype <> 0 THEN format_type(t.reloftype, NULL) END", word: "type"},
			{sql: "s.srvname", word: "foreign server"},
			{sql: "array_to_string(f.ftoptions, ', ')", word: "options"},
			ownerOf("t.relowner"),
		},
	},
	{
		kind: "view", name: "t.name", part: "t.name",
		from: "FROM rels t WHERE t.relkind IN ('v', 'm')",
		aspects: []aspect{
			{sql: "t.relkind", values: map[string]string{"v": "a view", "m": "a materialized view"}},
			{sql: "md5(pg_get_viewdef(t.oid))", word: "query", opaque: true},
			{sql: "(SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(t.reloptions) o)", word: "options"},
			ownerOf("t.relowner"),
		},
	},
	{
		// That of a serial or identity column goes with its table.
		kind: "sequence", name: "s.name", part: "coalesce(t.name, s.name)",
		from: `FROM rels s JOIN pg_sequence q ON q.seqrelid = s.oid
			LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.objsubid = 0
				AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
			LEFT JOIN tables t ON t.oid = d.refobjid
			LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid`,
		aspects: []aspect{
			{sql: "format_type(q.seqtypid, NULL)", word: "type"},
			{sql: "q.seqstart", word: "start"},
			{sql: "q.seqincrement", word: "increment"},
			{sql: "q.seqmin", word: "minimum"},
			{sql: "q.seqmax", word: "maximum"},
			{sql: "q.seqcache", word: "cache"},
			{sql: "q.seqcycle", values: yesNo("CYCLE", "NO CYCLE")},
			{sql: "s.relpersistence", values: map[string]string{"p": "permanent", "u": "unlogged"}},
			{sql: "t.name || '.' || quote_ident(a.attname)", word: "owning column"},
			ownerOf("s.relowner"),
		},
	},
}

// tableKinds are parts of tables.
var tableKinds = []objectKind{
	{
		kind: kindColumn, name: "quote_ident(a.attname) || ' of ' || t.name", part: "t.name",
		place: "row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum)", // attnum also counts columns that were dropped
		from: `FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
			JOIN pg_type y ON y.oid = a.atttypid
			LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum`,
		aspects: []aspect{
			{sql: "format_type(a.atttypid, a.atttypmod)"},
			{sql: "CASE WHEN a.attcollation <> y.typcollation THEN a.attcollation::regcollation END", word: "collation"},
			{sql: "a.attnotnull", values: yesNo("NOT NULL", "nullable")},
			{sql: "pg_get_expr(d.adbin, d.adrelid)", word: "default"},
			{sql: "a.attgenerated", values: map[string]string{"": "not generated", "s": "generated and stored", "v": "generated when read"}},
			{sql: "a.attidentity", values: map[string]string{"": "no identity column", "a": "GENERATED ALWAYS AS IDENTITY", "d": "GENERATED BY DEFAULT AS IDENTITY"}},
		},
	},
	{
		// NOT NULL is told with the column, whatever name some versions give it. What a foreign key has in its partitions follows
		// from it, with names that the server makes up.
		kind: kindConstraint, name: "quote_ident(c.conname) || ' of ' || t.name", part: "t.name",
		from: `FROM tables t JOIN pg_constraint c ON c.conrelid = t.oid
			LEFT JOIN pg_index i ON i.indexrelid = c.conindid AND c.contype IN ('p', 'u', 'x')
			WHERE c.contype IN ('p', 'u', 'x', 'c', 'f') AND NOT (c.contype = 'f' AND c.conparentid <> 0)`,
		aspects: []aspect{
			{sql: "pg_get_constraintdef(c.oid)"},
			{sql: "coalesce(i.indisvalid, true)", values: yesNo("valid", "invalid")},
		},
	},
	{
		kind: kindIndex, name: "quote_ident(x.relname) || ' of ' || t.name", part: "t.name",
		from: `FROM rels t JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class x ON x.oid = i.indexrelid
			CROSS JOIN LATERAL (SELECT pg_get_indexdef(i.indexrelid) AS text OFFSET 0) d
			WHERE NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u', 'x'))`,
		aspects: []aspect{
			{sql: "i.indisunique", values: yesNo("unique", "not unique")},
			{sql: "substr(d.text, strpos(d.text, ' USING ') + 7)"}, // before that there are only its name and its table's
			{sql: "i.indisvalid", values: yesNo("valid", "invalid")},
		},
	},
	{
		kind: "trigger", name: "quote_ident(g.tgname) || ' of ' || t.name", part: "t.name",
		from: "FROM rels t JOIN pg_trigger g ON g.tgrelid = t.oid WHERE NOT g.tgisinternal AND g.tgfoid NOT IN (SELECT oid FROM ours)",
		aspects: []aspect{
			{sql: "pg_get_triggerdef(g.oid)"}, {sql: "g.tgenabled", values: enabledWords},
		},
	},
	{
		kind: "rule", name: "quote_ident(r.rulename) || ' of ' || t.name", part: "t.name",
		from: "FROM rels t JOIN pg_rewrite r ON r.ev_class = t.oid WHERE r.rulename <> '_RETURN'",
		aspects: []aspect{
			{sql: "pg_get_ruledef(r.oid)"}, {sql: "r.ev_enabled", values: enabledWords},
		},
	},
	{
		kind: "policy", name: "quote_ident(p.polname) || ' of ' || t.name", part: "t.name",
		from: "FROM tables t JOIN pg_policy p ON p.polrelid = t.oid",
		aspects: []aspect{
			{sql: "p.polpermissive", values: yesNo("permissive", "restrictive")},
			{sql: "p.polcmd", values: map[string]string{"r": "for SELECT", "a": "for INSERT", "w": "for UPDATE", "d": "for DELETE", "*": "for all commands"}},
			{sql: "(SELECT string_agg(r, ', ' ORDER BY r) FROM (SELECT CASE o WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(o)::text END AS r FROM unnest(p.polroles) o) roles)", word: "roles"},
			{sql: "pg_get_expr(p.polqual, p.polrelid)", word: "condition"},
			{sql: "pg_get_expr(p.polwithcheck, p.polrelid)", word: "check"},
		},
	},
	{
		kind: kindStatistics, name: "s.stxnamespace::regnamespace || '.' || quote_ident(s.stxname)", part: "t.name",
		from:    "FROM tables t JOIN pg_statistic_ext s ON s.stxrelid = t.oid",
		aspects: []aspect{{sql: "pg_get_statisticsobjdef(s.oid)"}},
	},
}

// enabledWords are for triggers and rules.
var enabledWords = map[string]string{"O": "enabled", "D": "disabled", "R": "enabled on replicas only", "A": "enabled always"}
