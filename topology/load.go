package topology

import (
	"context"
	"fmt"
)

// Query runs one SQL statement and gives its rows in text format; NULL is "". The rows are the caller's
// to keep.
type Query func(ctx context.Context, sql string) (rows [][]string, err error)

// LoadSchema reads the tables, views, functions and operators of one database through query, and places the tables
// by rules. All shards have the same schema, so any one of them will do. A table that cannot be placed
// is no error: Table.Problem says why.
//
// It runs a few SELECTs and nothing else, so that it may read in the middle of a client's transaction,
// whose own uncommitted tables it then sees. Of the session behind query it needs
//
//   - search_path = pg_catalog, pg_temp: view definitions then come with all other names qualified, and
//     no temporary table of the client, put last, can pass for a catalog or a type;
//   - client_encoding = UTF8, if names are to be compared with those that another session gives;
//   - one snapshot for all statements (REPEATABLE READ) where a change of the schema by others at the
//     same time must be seen whole or not at all.
//
// jit = off saves more than it costs: compiling the queries would take longer than running them. What
// else a client may have set, such as standard_conforming_strings, makes no difference.
func LoadSchema(ctx context.Context, query Query, rules KeyRules) (*Schema, error) {
	s, err := loadSchema(ctx, query, rules)
	if err != nil {
		return nil, fmt.Errorf("loading the schema: %w", err)
	}
	return s, nil
}

func loadSchema(ctx context.Context, query Query, rules KeyRules) (*Schema, error) {
	l := loader{query: query, rules: rules}
	if err := l.readTables(ctx); err != nil {
		return nil, err
	}
	if err := l.readColumns(ctx); err != nil {
		return nil, err
	}
	functions, err := l.readFunctions(ctx)
	if err != nil {
		return nil, err
	}
	operators, err := l.readOperators(ctx)
	if err != nil {
		return nil, err
	}
	fenced, err := l.query(ctx, "SELECT to_regclass('shardproxy.fence') IS NOT NULL")
	if err != nil {
		return nil, err
	}
	return &Schema{
		Version: NextSchemaVersion(), Tables: l.place(), Functions: functions, Operators: operators, Rules: rules,
		Fenced: len(fenced) == 1 && fenced[0][0] == "t",
	}, nil
}

// loader holds the tables by OID until they are placed.
type loader struct {
	query  Query
	rules  KeyRules
	tables map[uint32]*loadedTable
}

type loadedTable struct {
	Table
	parents []uint32
	placed  bool
}

// Names that begin with pg_ are reserved for the system: pg_catalog, pg_toast, pg_temp_1 ….
const userNamespace = `n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'shardproxy')`

// readTables leaves out the tables that are named like a system catalog: without a schema, their name
// means the catalog.
func (l *loader) readTables(ctx context.Context) error {
	const query = `
		SELECT c.oid, n.nspname, c.relname, c.relkind,
		       CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
		       EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
		               AND t.tgfoid NOT IN (SELECT p.oid FROM pg_proc p WHERE p.pronamespace = to_regnamespace('shardproxy')))
		       OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN'),
		       EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'shardproxy_epoch' AND NOT t.tgisinternal),
		       array_to_string(ARRAY(SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid ORDER BY i.inhseqno), ',')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND ` + userNamespace + `
		AND NOT (c.relname ~ '^pg_' AND EXISTS (SELECT FROM pg_class s WHERE s.relname = c.relname AND s.relnamespace = 'pg_catalog'::regnamespace))`
	rows, err := l.query(ctx, query)
	if err != nil {
		return err
	}
	l.tables = make(map[uint32]*loadedTable, len(rows))
	for _, row := range rows {
		f, err := newFields(row, 8)
		if err != nil {
			return err
		}
		oid := f.oid()
		t := &loadedTable{Table: Table{TableName: TableName{f.text(), f.text()}, Key: -1}}
		kind := f.text()
		t.Definition, t.Triggers, t.Fenced, t.parents = f.text(), f.bool(), f.bool(), f.oids()
		if f.err != nil {
			return f.err
		}
		switch kind {
		case "p":
			t.Partitioned = true
		case "S", "f":
			t.Kind, t.placed = Other, true
		case "v", "m":
			t.Kind, t.Stored, t.placed = View, kind == "m", true
			if t.Definition == "" { // pg_get_viewdef reads later than the SELECT does
				return fmt.Errorf("view %v was dropped meanwhile", t.TableName)
			}
		}
		l.tables[oid] = t
	}
	return nil
}

// readColumns also finds the primary key, the length of a varchar(n) (a domain may give it), and how
// volatile a default is. The server keeps it as a tree in text form, from
// which the functions and operators called and the kinds of its nodes can be read; a node that we do
// not know counts as volatile. 'z', the worst, is a volatile one that draws from a sequence. A generated
// column has no default; a domain may give one.
//
// No pattern has a backslash, whose meaning would depend on standard_conforming_strings.
func (l *loader) readColumns(ctx context.Context) error {
	const query = `
		WITH RECURSIVE domains AS (
			SELECT oid, typbasetype AS base, typnotnull, typtypmod AS modifier FROM pg_type WHERE typtype = 'd'
			UNION ALL
			SELECT d.oid, t.typbasetype, d.typnotnull OR t.typnotnull, greatest(d.modifier, t.typtypmod) FROM domains d JOIN pg_type t ON t.oid = d.base AND t.typtype = 'd'
		), types AS (
			SELECT d.oid, max(d.base) FILTER (WHERE t.typtype <> 'd') AS base, bool_or(d.typnotnull) AS notnull, max(d.modifier) AS modifier
			FROM domains d JOIN pg_type t ON t.oid = d.base GROUP BY d.oid
		)
		SELECT a.attrelid, a.attname, coalesce(types.base, a.atttypid),
		       CASE WHEN coalesce(types.base, a.atttypid) = 'varchar'::regtype THEN nullif(greatest(a.atttypmod, types.modifier, 4) - 4, 0) END,
		       a.attnotnull OR coalesce(types.notnull, false),
		       CASE WHEN a.attidentity <> '' THEN 'z' WHEN e.tree IS NOT NULL THEN (
				SELECT max(CASE
					WHEN m[3] IS NULL THEN coalesce((
						SELECT CASE WHEN p.oid = 'nextval(regclass)'::regprocedure THEN 'z' ELSE p.provolatile::text END FROM pg_proc p
						WHERE p.oid = CASE m[1] WHEN 'funcid' THEN m[2]::oid ELSE (SELECT o.oprcode FROM pg_operator o WHERE o.oid = m[2]::oid) END), 'v')
					WHEN m[3] IN ('CONST', 'FUNCEXPR', 'OPEXPR', 'DISTINCTEXPR', 'NULLIFEXPR', 'SCALARARRAYOPEXPR', 'BOOLEXPR',
					              'NAMEDARGEXPR', 'RELABELTYPE', 'ARRAYCOERCEEXPR', 'COLLATEEXPR', 'COERCETODOMAIN',
					              'CASE', 'CASEEXPR', 'WHEN', 'CASEWHEN', 'CASETESTEXPR', 'COALESCE', 'COALESCEEXPR',
					              'ARRAY', 'ARRAYEXPR', 'ROW', 'ROWEXPR', 'MINMAX', 'MINMAXEXPR', 'NULLTEST', 'BOOLEANTEST') THEN 'i'
					WHEN m[3] IN ('SQLVALUEFUNCTION', 'COERCEVIAIO') THEN 's'
					WHEN m[3] = 'NEXTVALUEEXPR' THEN 'z'
					ELSE 'v' END)
				FROM regexp_matches(e.tree, ':(funcid|opno) ([0-9]+)|[{]([A-Z_]+)', 'g') m) END,
		       CASE WHEN a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(''%''::regclass)'
		                 AND pg_get_expr(d.adbin, d.adrelid) NOT LIKE '%::regclass)%::regclass)' THEN (
				SELECT max('"' || replace(sn.nspname, '"', '""') || '"."' || replace(s.relname, '"', '""') || '"') FROM pg_depend x
				JOIN pg_class s ON s.relkind = 'S' AND s.oid = CASE WHEN a.attidentity <> '' THEN x.objid ELSE x.refobjid END
				JOIN pg_namespace sn ON sn.oid = s.relnamespace
				WHERE CASE WHEN a.attidentity <> '' THEN x.deptype = 'i' AND x.classid = 'pg_class'::regclass
				           AND x.refclassid = 'pg_class'::regclass AND x.refobjid = a.attrelid AND x.refobjsubid = a.attnum
				      ELSE x.classid = 'pg_attrdef'::regclass AND x.objid = d.oid AND x.refclassid = 'pg_class'::regclass END
		       ) END, a.attidentity <> '', a.attidentity = 'a',
		       a.attgenerated <> '', coalesce(NOT l.collisdeterministic, false),
		       (SELECT k.at FROM generate_series(0, p.indnkeyatts - 1) k(at) WHERE p.indkey[k.at] = a.attnum)
		FROM pg_attribute a
		JOIN pg_class c ON c.oid = a.attrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_type t ON t.oid = a.atttypid
		LEFT JOIN types ON types.oid = a.atttypid
		LEFT JOIN pg_collation l ON l.oid = a.attcollation
		LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''
		LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
		LEFT JOIN LATERAL (SELECT coalesce(d.adbin, t.typdefaultbin)::text AS tree) e ON a.attgenerated = ''
		WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ` + userNamespace + `
		ORDER BY a.attrelid, a.attnum`
	rows, err := l.query(ctx, query)
	if err != nil {
		return err
	}
	for _, row := range rows {
		f, err := newFields(row, 12)
		if err != nil {
			return err
		}
		t := l.tables[f.oid()]
		c := Column{Name: f.text(), Type: f.oid(), Length: max(f.number(), 0), NotNull: f.bool()}
		c.Default, c.Sequence = f.defaultVolatility()
		c.Draws, c.Identity, c.Always = f.text(), f.bool(), f.bool()
		c.Generated, c.Fuzzy = f.bool(), f.bool()
		inPrimary := f.number()
		if f.err != nil {
			return f.err
		}
		if t != nil {
			t.Columns = append(t.Columns, c)
			t.addPrimary(inPrimary, c.Name)
		}
	}
	return nil
}

// addPrimary notes that a column is at this place of t's primary key, -1 where it is not part of it.
func (t *Table) addPrimary(at int, column string) {
	if at < 0 {
		return
	}
	for len(t.Primary) <= at {
		t.Primary = append(t.Primary, "")
	}
	t.Primary[at] = column
}

// readFunctions sums up the overloads of each name in all schemas, as a bare name may mean any of them.
func (l *loader) readFunctions(ctx context.Context) (map[string]Function, error) {
	const query = `
		SELECT proname, max(provolatile::text), bool_and(pronamespace = 'pg_catalog'::regnamespace),
		       bool_or(prokind = 'a'), bool_or(proretset)
		FROM pg_proc GROUP BY proname`
	rows, err := l.query(ctx, query)
	if err != nil {
		return nil, err
	}
	functions := make(map[string]Function, len(rows))
	for _, row := range rows {
		f, err := newFields(row, 5)
		if err != nil {
			return nil, err
		}
		name := f.text()
		functions[name] = Function{Volatility: f.volatility(), Builtin: f.bool(), Aggregate: f.bool(), SetOf: f.bool()}
		if f.err != nil {
			return nil, f.err
		}
	}
	return functions, nil
}

// readOperators reads the operators of which only users know what they do.
func (l *loader) readOperators(ctx context.Context) (map[string]Operator, error) {
	const query = `
		SELECT o.oprname, max(p.provolatile::text), coalesce(bool_or(
		       coalesce(nullif(l.typbasetype, 0), l.oid) IN (20, 21, 23, 25, 1043, 2950) AND
		       coalesce(nullif(r.typbasetype, 0), r.oid) IN (20, 21, 23, 25, 1043, 2950)), false)
		FROM pg_operator o
		JOIN pg_proc p ON p.oid = o.oprcode
		JOIN pg_type r ON r.oid = o.oprright
		LEFT JOIN pg_type l ON l.oid = o.oprleft
		WHERE o.oprnamespace <> 'pg_catalog'::regnamespace
		AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_operator'::regclass AND d.objid = o.oid AND d.deptype = 'e')
		GROUP BY o.oprname`
	rows, err := l.query(ctx, query)
	if err != nil {
		return nil, err
	}
	operators := make(map[string]Operator, len(rows))
	for _, row := range rows {
		f, err := newFields(row, 3)
		if err != nil {
			return nil, err
		}
		name := f.text()
		operators[name] = Operator{Volatility: f.volatility(), Keys: f.bool()}
		if f.err != nil {
			return nil, f.err
		}
	}
	return operators, nil
}
