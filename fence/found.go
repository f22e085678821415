package fence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"shardproxy/topology"
)

// found is what a shard has of a fence.
type found struct {
	schema, table access
	rows          int // of shardproxy.fence; 1 where all is well
	shard         string
	epoch         topology.Epoch
	functions     map[string]foundFunction // by name
	triggers      map[topology.TableName][]foundTrigger
	present       map[topology.TableName]bool // tables of the database
}

// access says whether something is there and PUBLIC has the right that it needs on it.
type access uint8

const (
	absent access = iota
	closed
	open
)

type foundFunction struct {
	body, form string
	public     bool // everybody may call it
}

type foundTrigger struct {
	name, definition string
	enabled          bool
	clone            bool // PostgreSQL made it for a partition
	ours             bool // it calls one of our functions
}

// installed says that there is the table that all else is read from.
func (h *found) installed() bool { return h.table != absent && h.rows > 0 }

// read looks at the shard, in a transaction with searchPath.
func read(ctx context.Context, tx *transaction) (*found, error) {
	h := &found{}
	for _, part := range []func(context.Context, *transaction) error{h.readState, h.readFunctions, h.readTables, h.readTriggers} {
		if err := part(ctx, tx); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *found) readState(ctx context.Context, tx *transaction) error {
	rows, err := tx.rows(ctx, 2, `
		SELECT (SELECT has_schema_privilege('public', n.oid, 'usage') FROM pg_namespace n WHERE n.nspname = 'shardproxy'),
		       (SELECT has_table_privilege('public', c.oid, 'select') FROM pg_class c WHERE c.oid = to_regclass('shardproxy.fence'))`)
	if err != nil || len(rows) != 1 {
		return cmp.Or(err, errors.New("no answer"))
	}
	h.schema, h.table = parseAccess(rows[0][0]), parseAccess(rows[0][1])
	if h.table == absent {
		return nil
	}
	if rows, err = tx.rows(ctx, 2, "SELECT epoch, shard FROM shardproxy.fence"); err != nil {
		return err
	}
	h.rows = len(rows)
	for _, row := range rows {
		epoch, err := strconv.ParseUint(row[0], 10, 63)
		if err != nil {
			return fmt.Errorf("shardproxy.fence has epoch %q", row[0])
		}
		h.epoch, h.shard = topology.Epoch(epoch), row[1]
	}
	return nil
}

func parseAccess(value string) access {
	switch value {
	case "t":
		return open
	case "f":
		return closed
	}
	return absent
}

func (h *found) readFunctions(ctx context.Context, tx *transaction) error {
	rows, err := tx.rows(ctx, 4, `
		SELECT p.proname, p.prosrc,
		       concat_ws(' ', l.lanname, p.provolatile, p.proisstrict, p.proparallel, p.prosecdef, t.typname, p.proconfig),
		       has_function_privilege('public', p.oid, 'execute')
		FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_type t ON t.oid = p.prorettype
		WHERE p.oid IN (to_regprocedure('shardproxy.owns(bigint)'), to_regprocedure('shardproxy.refuse_stale()'), to_regprocedure('shardproxy.refuse_foreign()'))`)
	if err != nil {
		return err
	}
	h.functions = make(map[string]foundFunction, len(rows))
	for _, row := range rows {
		h.functions[row[0]] = foundFunction{body: row[1], form: row[2], public: row[3] == "t"}
	}
	return nil
}

func (h *found) readTables(ctx context.Context, tx *transaction) error {
	rows, err := tx.rows(ctx, 2, `
		SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'`)
	if err != nil {
		return err
	}
	h.present = make(map[topology.TableName]bool, len(rows))
	for _, row := range rows {
		h.present[topology.TableName{Schema: row[0], Name: row[1]}] = true
	}
	return nil
}

// readTriggers does not ask for tgisinternal: before PostgreSQL 15 it is set for those of partitions.
func (h *found) readTriggers(ctx context.Context, tx *transaction) error {
	rows, err := tx.rows(ctx, 7, `
		SELECT n.nspname, c.relname, t.tgname, pg_get_triggerdef(t.oid), t.tgenabled = 'O', t.tgparentid <> 0, o.ours
		FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
		     LATERAL (SELECT coalesce(t.tgfoid IN (to_regprocedure('shardproxy.refuse_stale()'), to_regprocedure('shardproxy.refuse_foreign()')), false) AS ours) o
		WHERE c.relpersistence <> 't' AND (o.ours OR t.tgname IN ('shardproxy_epoch',
		      'shardproxy_owner_insert', 'shardproxy_owner_delete', 'shardproxy_owner_update',
		      'shardproxy_owner_parts_insert', 'shardproxy_owner_parts_delete', 'shardproxy_owner_parts_update'))
		ORDER BY n.nspname, c.relname, t.tgname`)
	if err != nil {
		return err
	}
	h.triggers = make(map[topology.TableName][]foundTrigger)
	for _, row := range rows {
		name := topology.TableName{Schema: row[0], Name: row[1]}
		h.triggers[name] = append(h.triggers[name], foundTrigger{
			name: row[2], definition: row[3], enabled: row[4] == "t", clone: row[5] == "t", ours: row[6] == "t",
		})
	}
	return nil
}

// fenced lists, by name, the tables that the shard has a trigger of ours on, or that are to get one.
func (h *found) fenced(tables []Table) []topology.TableName {
	names := make(map[topology.TableName]bool)
	for _, t := range tables {
		if h.present[t.TableName] {
			names[t.TableName] = true
		}
	}
	for name, list := range h.triggers {
		if slices.ContainsFunc(list, func(t foundTrigger) bool { return t.ours }) {
			names[name] = true
		}
	}
	list := make([]topology.TableName, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	slices.SortFunc(list, compareNames)
	return list
}
