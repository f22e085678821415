package router

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// ddl reads a statement that defines objects, or maintains them. It runs on every shard, so that all
// have the same schema.
func (a *analysis) ddl(n *pg.Node) {
	t := a.t
	t.Kind, t.Write, t.Schema = All, true, true
	switch v := n.GetNode().(type) {
	case *pg.Node_CreateStmt:
		a.createTable(v.CreateStmt)
	case *pg.Node_AlterTableStmt:
		a.alterTable(v.AlterTableStmt)
	case *pg.Node_RenameStmt:
		a.rename(v.RenameStmt)
	case *pg.Node_AlterObjectSchemaStmt:
		a.moveToSchema(v.AlterObjectSchemaStmt)
	case *pg.Node_IndexStmt:
		a.index(v.IndexStmt)
	case *pg.Node_CreateTableAsStmt:
		a.createAs(v.CreateTableAsStmt.Query, v.CreateTableAsStmt.Into)
	case *pg.Node_RefreshMatViewStmt:
		a.refresh(v.RefreshMatViewStmt)
	case *pg.Node_ViewStmt:
		a.temporary(v.ViewStmt.View)
	case *pg.Node_CreateSeqStmt:
		a.temporary(v.CreateSeqStmt.Sequence)
	case *pg.Node_CreateForeignTableStmt:
		a.temporary(v.CreateForeignTableStmt.BaseStmt.GetRelation())
	case *pg.Node_DropStmt:
		a.drop(v.DropStmt)
	case *pg.Node_TruncateStmt:
		t.Schema = false
		a.tables(v.TruncateStmt.Relations, true)
	case *pg.Node_LockStmt:
		t.Schema, t.Block = false, true
		a.tables(v.LockStmt.Relations, false)
	case *pg.Node_VacuumStmt, *pg.Node_ReindexStmt, *pg.Node_ClusterStmt:
		t.Kind, t.Schema = AllBare, false
	case *pg.Node_CreateSchemaStmt:
		if len(v.CreateSchemaStmt.SchemaElts) > 0 {
			a.refuse(&Error{Code: codeNotSupported, Message: "CREATE SCHEMA with objects in it is not supported", Hint: "Create the schema, then each object."})
		}
	case *pg.Node_RuleStmt:
		a.refuse(&Error{Code: codeNotSupported, Message: "rules are not supported: they would rewrite statements behind the proxy's back", Hint: "Use a trigger or a view."})
	case *pg.Node_DoStmt:
		a.code("DO")
	case *pg.Node_CallStmt:
		a.code("CALL")
	case *pg.Node_LoadStmt:
		a.unbound("LOAD changes one server process")
		t.Schema = false
	default:
		a.otherDefinition(n)
	}
}

// code refuses what runs statements that the proxy cannot see.
func (a *analysis) code(what string) {
	a.t.Kind = Any
	a.refuse(&Error{Code: codeNotSupported, Message: what + " runs statements that the proxy cannot see", Hint: hintComment})
}

// otherDefinition refuses the statements that act on a whole server, which may hold several shards.
func (a *analysis) otherDefinition(n *pg.Node) {
	switch v := n.GetNode().(type) {
	case *pg.Node_CreateRoleStmt, *pg.Node_AlterRoleStmt, *pg.Node_AlterRoleSetStmt, *pg.Node_DropRoleStmt, *pg.Node_GrantRoleStmt,
		*pg.Node_CreatedbStmt, *pg.Node_AlterDatabaseStmt, *pg.Node_AlterDatabaseSetStmt, *pg.Node_AlterDatabaseRefreshCollStmt, *pg.Node_DropdbStmt,
		*pg.Node_CreateTableSpaceStmt, *pg.Node_DropTableSpaceStmt, *pg.Node_AlterTableSpaceOptionsStmt,
		*pg.Node_AlterSystemStmt, *pg.Node_CheckPointStmt,
		*pg.Node_CreateSubscriptionStmt, *pg.Node_AlterSubscriptionStmt, *pg.Node_DropSubscriptionStmt:
		a.serverWide()
	case *pg.Node_GrantStmt:
		a.shared(v.GrantStmt.Objtype)
	case *pg.Node_CommentStmt:
		a.shared(v.CommentStmt.Objtype)
	case *pg.Node_SecLabelStmt:
		a.shared(v.SecLabelStmt.Objtype)
	case *pg.Node_AlterOwnerStmt:
		a.shared(v.AlterOwnerStmt.ObjectType)
	}
}

func (a *analysis) shared(kind pg.ObjectType) {
	switch kind {
	case pg.ObjectType_OBJECT_DATABASE, pg.ObjectType_OBJECT_ROLE, pg.ObjectType_OBJECT_TABLESPACE, pg.ObjectType_OBJECT_SUBSCRIPTION,
		pg.ObjectType_OBJECT_PARAMETER_ACL, pg.ObjectType_OBJECT_LARGEOBJECT:
		a.serverWide()
	}
}

func (a *analysis) serverWide() {
	a.t.Kind, a.t.Schema = Any, false
	a.refuse(&Error{
		Code: codeNotSupported, Message: "this statement acts on a whole server, of which several shards may be",
		Hint: "Run it on each node's server.",
	})
}

// temporary makes the statement one of a bound session if it creates a temporary object.
func (a *analysis) temporary(v *pg.RangeVar) bool {
	if v.GetRelpersistence() != "t" && v.GetSchemaname() != "pg_temp" {
		return false
	}
	a.unbound("temporary objects belong to one server process")
	a.t.Schema = false
	return true
}

// placed says that the rules place the rows of table.
func placed(table *topology.Table) bool {
	return table.Kind == topology.Sharded || table.Kind == topology.Reference
}

// tables mentions the tables of TRUNCATE and LOCK.
func (a *analysis) tables(list []*pg.Node, truncate bool) {
	for _, n := range list {
		if table, known := a.table(n.GetRangeVar()); table != nil {
			a.mention(table)
			if truncate && table.Kind == topology.Other {
				a.elsewhere(table)
			}
		} else if !known {
			a.t.Unknown = append(a.t.Unknown, n.GetRangeVar().GetRelname())
		}
	}
}

func (a *analysis) drop(s *pg.DropStmt) {
	a.shared(s.RemoveType)
	if s.Concurrent {
		a.t.Kind = AllBare
	}
}

// index reads CREATE INDEX.
func (a *analysis) index(s *pg.IndexStmt) {
	if s.Concurrent {
		a.t.Kind = AllBare
	}
	table, _ := a.table(s.Relation)
	if table == nil {
		return
	}
	a.mention(table)
	if !s.Unique || table.Kind != topology.Sharded || table.Key < 0 {
		return
	}
	var columns []string
	for _, n := range s.IndexParams {
		columns = append(columns, n.GetIndexElem().GetName())
	}
	a.uniqueness(table.Name, table.KeyColumn(), columns)
}

// uniqueness warns of a unique constraint that each shard can only check for itself.
func (a *analysis) uniqueness(table, key string, columns []string) {
	for _, c := range columns {
		if c == key {
			return
		}
	}
	a.t.Notices = append(a.t.Notices, "uniqueness on "+quoteName(table)+" is checked on each shard by itself, as the shard key "+quoteName(key)+" is not part of it")
}

// selectInto is the INTO of a SELECT, which stands in its leftmost part.
func selectInto(s *pg.SelectStmt) *pg.IntoClause {
	for ; s != nil; s = s.Larg {
		if s.IntoClause != nil {
			return s.IntoClause
		}
	}
	return nil
}

// createAs reads CREATE TABLE AS, SELECT INTO and CREATE MATERIALIZED VIEW: every shard computes the
// rows of its own copy, so they must all come to the same.
func (a *analysis) createAs(query *pg.Node, into *pg.IntoClause) {
	t := a.t
	t.Kind, t.Write, t.Schema, t.Returns = All, true, true, false
	if a.temporary(into.Rel) {
		return
	}
	if query.GetSelectStmt() == nil {
		a.refuse(&Error{Code: codeNotSupported, Message: "CREATE TABLE AS EXECUTE is not supported", Hint: "Write the query itself."})
		return
	}
	rows := a.query(query, nil, nil, &level{top: true})
	rows.rename(into.ColNames)
	a.movingTimes()
	a.later("CREATE TABLE AS")
	t.Returns = false
	name := quoteName(into.Rel.Relname)
	switch {
	case len(a.sharded) > 0:
		a.refuse(&Error{
			Code: codeNotSupported, Message: name + " would hold other rows on each shard, as " + quoteName(a.sharded[0].table.Name) + " is sharded",
			Hint: "Create the table, then fill it with INSERT … SELECT.",
		})
	case a.diverges != "":
		a.refuse(&Error{
			Code: codeNotSupported, Message: "the copies of " + name + " would differ", Detail: upper(a.diverges) + ".",
			Hint: "Create the table, then insert constants.",
		})
	case a.keyed(into.Rel, rows):
		a.refuse(&Error{
			Code: codeNotSupported, Message: name + " would be a sharded table with all of its rows on every shard",
			Hint: "Create the table, then fill it with INSERT … SELECT, or give its columns other names.",
		})
	}
}

// keyed says that a table with these columns may be a sharded one.
func (a *analysis) keyed(v *pg.RangeVar, rows rowset) bool {
	var columns []topology.Column
	for _, c := range rows.columns {
		columns = append(columns, topology.Column{Name: c.name})
		rows.open = rows.open || c.name == ""
	}
	kind, _, _, err := a.schema.Rules.Place(a.newName(v), columns)
	return rows.open || kind == topology.Sharded || err != nil
}

func (a *analysis) refresh(s *pg.RefreshMatViewStmt) {
	a.t.Schema = false
	table, _ := a.table(s.Relation)
	if table == nil || table.Kind != topology.View {
		return
	}
	a.view(table)
	if a.diverges != "" {
		a.refuse(&Error{Code: codeNotSupported, Message: "the copies of materialized view " + quoteName(table.Name) + " would come to differ", Detail: upper(a.diverges) + "."})
	}
}
