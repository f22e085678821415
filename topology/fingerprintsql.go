package topology

import (
	"cmp"
	"fmt"
	"strings"
)

// StableTexts is SQL that makes the texts which the server writes independent of the session, for the rest of a transaction: of
// values, expressions and definitions. All names that are not in pg_catalog are qualified then.
const StableTexts = `SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL client_encoding = UTF8;
	SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = postgres; SET LOCAL TimeZone = 'UTC'; SET LOCAL lc_monetary = 'C';
	SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = hex; SET LOCAL xmloption = content;
	SET LOCAL quote_all_identifiers = off; SET LOCAL standard_conforming_strings = on;
`

// fingerprintSettings hold for the rest of the message only: statements that are sent together are one transaction. A lock that is
// in the way is not waited for long, as others would queue behind us.
const fingerprintSettings = `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL jit = off;
	SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '20s';
	` + StableTexts

// objectKind is one kind of object: how its objects are found, and what is compared of them.
type objectKind struct {
	kind    string
	name    string // SQL: unique among the objects of the kind, and what people call it
	part    string // SQL: what it goes with; see object
	place   string // SQL: its number among its like, where that counts; "" for 0
	from    string // FROM and all that follows
	aspects []aspect
}

// aspect is one thing that is compared. Without a word it is said as "is … here, … on s1", else as "has the word … here".
type aspect struct {
	sql    string            // of any type; NULL is ""
	word   string            //
	values map[string]string // what to say for a value of the server
	opaque bool              // the values tell people nothing: only that they differ is said
	kind   string            // of a Difference in it, where that is another than the object's
}

// saidMax bounds a value that is said, in bytes: of a longer one, people compare the sources.
const saidMax = 300

// what says that an aspect has the value is here, and was there.
func (a *aspect) what(is, was, there string) string {
	if a.opaque || len(is) > saidMax || len(was) > saidMax {
		return "has another " + cmp.Or(a.word, "definition") + " than on " + there
	}
	is, was = a.said(is), a.said(was)
	switch {
	case a.word == "":
		return fmt.Sprintf("is %s here, %s on %s", is, was, there)
	case is == "":
		return fmt.Sprintf("has no %s here, %s on %s", a.word, was, there)
	}
	return fmt.Sprintf("has the %s %s here, %s on %s", a.word, is, cmp.Or(was, "none"), there)
}

// said is a value in the words of people, in one line.
func (a *aspect) said(value string) string {
	if word, ok := a.values[value]; ok {
		return word
	}
	return strings.Join(strings.Fields(value), " ")
}

// yesNo is for the values of a boolean.
func yesNo(yes, no string) map[string]string { return map[string]string{"t": yes, "f": no} }

// ownerOf is the aspect that all objects with an owner have.
func ownerOf(column string) aspect {
	return aspect{sql: "pg_get_userbyid(" + column + ")", kind: kindOwner}
}

// fingerprintObjects is the common part of the statements: the objects, each with its definition, as a table.
var fingerprintObjects = func() string {
	var b strings.Builder
	b.WriteString(fingerprintFound + fingerprintGranted)
	b.WriteString(", objects(kind, name, part, place, def) AS (\n")
	for i := range objectKinds {
		if i > 0 {
			b.WriteString("\nUNION ALL\n")
		}
		objectKinds[i].write(&b)
	}
	b.WriteString("\n)\n")
	return b.String()
}()

func (k *objectKind) write(b *strings.Builder) {
	place := k.place
	if place == "" {
		place = "0"
	}
	b.WriteString("SELECT '" + k.kind + "', " + k.name + ", " + k.part + ", " + place + ", concat(''")
	for i, a := range k.aspects {
		if i > 0 {
			b.WriteString(", chr(31)")
		}
		b.WriteString(", " + a.sql)
	}
	b.WriteString(")\n" + k.from)
}

// fingerprintFound finds what several kinds look at. All are small but rels; the planner has no figures of them, and
// looks the rest up by index.
const fingerprintFound = `WITH spaces AS MATERIALIZED (
	SELECT n.oid, quote_ident(n.nspname) AS name, n.nspowner, n.nspacl FROM pg_namespace n WHERE ` + userNamespace + `
), members AS MATERIALIZED (
	SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
), ours AS MATERIALIZED (
	SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'shardproxy'
), rels AS MATERIALIZED (
	SELECT c.oid, c.relkind, c.relpersistence, c.relam, c.relowner, c.relacl, c.relreplident, c.relrowsecurity, c.relforcerowsecurity,
	       c.relispartition, c.relpartbound, c.reloptions, c.reloftype, n.name || '.' || quote_ident(c.relname) AS name,
	       CASE c.relkind WHEN 'S' THEN 'sequence ' WHEN 'v' THEN 'view ' WHEN 'm' THEN 'view ' ELSE 'table ' END
	       || n.name || '.' || quote_ident(c.relname) AS label
	FROM pg_class c JOIN spaces n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
	AND c.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_class'::regclass)
), tables AS MATERIALIZED (
	SELECT * FROM rels WHERE relkind IN ('r', 'p', 'f')
), functions AS MATERIALIZED (
	SELECT p.*, p.oid::regprocedure::text AS name
	FROM pg_proc p JOIN spaces n ON n.oid = p.pronamespace
	WHERE p.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_proc'::regclass)
	-- those of a range type come and go with it
	AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i')
), types AS MATERIALIZED (
	SELECT t.*, n.name || '.' || quote_ident(t.typname) AS name
	FROM pg_type t JOIN spaces n ON n.oid = t.typnamespace
	LEFT JOIN pg_class c ON c.oid = t.typrelid
	WHERE t.typtype <> 'm' AND (t.typrelid = 0 OR c.relkind = 'c')
	AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)
	AND t.oid NOT IN (SELECT objid FROM members WHERE classid = 'pg_type'::regclass)
)`
