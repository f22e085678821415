package join

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/fence"
	"shardproxy/topology"
)

// facts are what must be alike on all shards before there is a table.
type facts struct {
	recovery   bool
	version    int // server_version_num
	walLevel   string
	prepared   int // max_prepared_transactions
	encoding   string
	collation  string
	collations string // version of the collation, "" where it has none
}

// Versions of PostgreSQL have other columns for the locale.
const factsSQL = `SELECT pg_is_in_recovery(), current_setting('server_version_num'), current_setting('wal_level'), current_setting('max_prepared_transactions'),
	pg_encoding_to_char(d.encoding), concat_ws(' ', coalesce(j->>'datlocprovider', 'c'), d.datcollate, d.datctype, coalesce(j->>'datlocale', j->>'daticulocale')),
	j->>'datcollversion'
	FROM pg_database d, to_jsonb(d) j WHERE d.datname = current_database()`

func (s *session) facts(ctx context.Context) (f facts, err error) {
	rows, err := s.query(ctx, factsSQL)
	if err != nil || len(rows) != 1 {
		return f, failed("shard "+s.name+" cannot be looked at", fmt.Errorf("%d rows: %w", len(rows), err))
	}
	r := rows[0]
	f = facts{recovery: r[0] == "t", walLevel: r[2], encoding: r[4], collation: r[5], collations: r[6]}
	f.version, _ = strconv.Atoi(r[1])
	f.prepared, _ = strconv.Atoi(r[3])
	return f, nil
}

// fits refuses a server on which the same statements would mean something else, or that cannot do what a shard must.
func (a *addition) fits(ctx context.Context) error {
	here, err := a.new.facts(ctx)
	if err != nil {
		return err
	}
	there, err := a.old.facts(ctx)
	if err != nil {
		return err
	}
	a.major = there.version / 10_000
	if err := judge(a.shard.Name, here, a.old.name, there); err != nil {
		return err
	}
	if _, err := a.new.query(ctx, "BEGIN; SET LOCAL session_replication_role = replica"); err != nil {
		_, _ = a.new.query(ctx, "ROLLBACK")
		return refuse(noPrivilege, "GRANT SET ON PARAMETER session_replication_role TO it, before PostgreSQL 15 make it a superuser: docs/moves.md, Rights of the mover.",
			"the service user may not copy rows to shard %s past its triggers: %v", a.shard.Name, err)
	}
	if _, err := a.new.query(ctx, "ROLLBACK"); err != nil {
		return err
	}
	return a.roles(ctx)
}

// judge compares the new shard with another.
func judge(name string, here facts, other string, there facts) error {
	const (
		anew    = "It can only be chosen when a database is made: make it anew, like those of the other shards."
		restart = "Set it in postgresql.conf of the new server, and restart that."
	)
	is := func(hint, format string, args ...any) error { return refuse(notInState, hint, format, args...) }
	switch major, majorThere := here.version/10_000, there.version/10_000; {
	case here.recovery:
		return is("Name the primary first; replicas stand behind it.", "the first node of shard %s is in recovery: it is a replica", name)
	case major != majorThere:
		return is("Bring all shards to one major version.", "shard %s is PostgreSQL %d, and %s is %d: answers may differ", name, major, other, majorThere)
	case here.walLevel != "logical":
		return is(restart, "wal_level of shard %s is %s, not logical: no key range could be moved away from it", name, here.walLevel)
	case here.prepared == 0:
		return is(restart, "max_prepared_transactions of shard %s is 0: no transaction could write on it and another shard", name)
	case here.encoding != there.encoding:
		return is(anew, "the encoding of shard %s is %s, and %s on %s", name, here.encoding, there.encoding, other)
	case here.collation != there.collation:
		return is(anew, "the locale of shard %s is %s, and %s on %s: texts would be sorted and compared differently", name, here.collation, there.collation, other)
	case here.collations != there.collations && here.collations != "" && there.collations != "":
		return is("Give the new server the C library (or ICU) of the others.", "the collation of shard %s has version %s, and %s on %s: texts may be sorted differently", name, here.collations, there.collations, other)
	}
	return nil
}

// roles looks for the roles that own something, or were granted something, on the other shard: they belong to the server, and no
// dump of a database has them.
func (a *addition) roles(ctx context.Context) error {
	needed, err := a.old.column(ctx, `SELECT DISTINCT r.rolname FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
		WHERE d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND d.refclassid = 'pg_authid'::regclass`)
	if err != nil {
		return failed("the roles of shard "+a.old.name+" cannot be read", err)
	}
	have, err := a.new.column(ctx, "SELECT rolname FROM pg_roles")
	if err != nil {
		return failed("the roles of shard "+a.shard.Name+" cannot be read", err)
	}
	missing := slices.DeleteFunc(needed, func(r string) bool { return slices.Contains(have, r) })
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return refuse(undefined, "Make them as they are on "+a.old.name+": pg_dumpall --roles-only has them. They belong to the server, not to the database.",
		"the new server lacks roles that own something on shard %s, or have rights there: %s", a.old.name, strings.Join(missing, ", "))
}

// replicas looks whether the other nodes of the shard follow its primary.
func (j *Joiner) replicas(ctx context.Context, shard *topology.Shard) error {
	for _, node := range shard.Nodes[1:] {
		s, err := j.open(ctx, shard.Name, node)
		if err != nil {
			return unreachable(fmt.Sprintf("%v, a replica of the new shard,", node), err)
		}
		f, err := s.facts(ctx)
		s.close()
		switch {
		case err != nil:
			return err
		case !f.recovery:
			return refuse(notInState, "Make it follow the primary by PostgreSQL's own replication, or add it later: shardctl node add.", "%v is no replica: it takes writes", node)
		}
	}
	return nil
}

// relationsSQL lists what somebody has made in a database, our own things apart. It says nothing of functions and types: where
// those are in the way, the schema cannot be made.
const relationsSQL = `SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'shardproxy') AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
	AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1`

// found says whether the database has relations already, and gives the fence that it has.
func (a *addition) found(ctx context.Context) (relations []string, fenced bool, err error) {
	relations, err = a.new.column(ctx, relationsSQL)
	if err != nil {
		return nil, false, failed("the new shard cannot be looked at", err)
	}
	st, fenced, err := fence.Read(ctx, a.new.query)
	switch {
	case err != nil:
		return nil, false, failed("the fence of the new shard cannot be read", err)
	case fenced && st.Shard != a.shard.Name:
		return nil, false, refuse(notInState, "Name another database. One that is a copy of a shard must be made anew.", "the database is that of shard %s, or a copy of it", st.Shard)
	case fenced && len(st.Owned) > 0:
		return nil, false, refuse(notInState, "Make the database anew.", "the database has been a shard that owned keys, of a cluster which knew nothing of its end")
	}
	return relations, fenced, nil
}
