package router

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// alterTable reads ALTER TABLE: it must not move the table to another place, nor touch its shard key.
func (a *analysis) alterTable(s *pg.AlterTableStmt) {
	table, known := a.table(s.Relation)
	if table == nil {
		if !known {
			a.t.Unknown = append(a.t.Unknown, s.Relation.Relname)
		}
		return
	}
	a.mention(table)
	d := &definition{name: table.TableName, kind: table.Kind, key: table.KeyColumn(), primary: table.Primary, columns: slices.Clone(table.Columns)}
	for _, n := range s.Cmds {
		a.alterCommand(table, d, n.GetAlterTableCmd())
	}
	if placed(table) {
		a.samePlace(table, d)
	}
}

func (a *analysis) alterCommand(table *topology.Table, d *definition, c *pg.AlterTableCmd) {
	isKey := c.Name != "" && c.Name == d.key
	switch c.Subtype {
	case pg.AlterTableType_AT_AddColumn:
		def := c.Def.GetColumnDef()
		d.columns = append(d.columns, newColumn(def))
		for _, k := range columnConstraints(def) {
			a.constraint(d, k)
		}
		a.newDefault(d, def)
	case pg.AlterTableType_AT_DropColumn:
		if isKey {
			a.keyAltered(table)
		}
		d.columns = slices.DeleteFunc(d.columns, func(column topology.Column) bool { return column.Name == c.Name })
	case pg.AlterTableType_AT_AlterColumnType:
		a.retype(table, c, isKey)
	case pg.AlterTableType_AT_DropNotNull:
		if isKey {
			a.keyAltered(table)
		}
	case pg.AlterTableType_AT_AddConstraint:
		a.constraint(d, c.Def.GetConstraint())
	case pg.AlterTableType_AT_AttachPartition, pg.AlterTableType_AT_AddInherit:
		v := c.Def.GetPartitionCmd().GetName()
		if v == nil {
			v = c.Def.GetRangeVar()
		}
		other, _ := a.table(v)
		if other != nil && (other.Kind != table.Kind || other.KeyColumn() != table.KeyColumn()) {
			a.refuse(&Error{Code: codeNotSupported, Message: quoteName(table.Name) + " and " + quoteName(other.Name) + " are not sharded alike"})
		}
	case pg.AlterTableType_AT_DetachPartition:
		if c.Def.GetPartitionCmd().GetConcurrent() {
			a.t.Kind = AllBare
		}
	}
}

// retype allows the integer types to be exchanged: they hash alike.
func (a *analysis) retype(table *topology.Table, c *pg.AlterTableCmd, isKey bool) {
	def := c.Def.GetColumnDef()
	if isKey && (def.GetRawDefault() != nil || table.KeyType != topology.KeyInt || topology.KeyTypeOf(typeOID(def.GetTypeName())) != topology.KeyInt) {
		a.keyAltered(table)
	}
	before := a.diverges
	a.diverges = ""
	a.expression(def.GetRawDefault(), &scope{level: &level{top: true}})
	if a.diverges != "" && table.Kind == topology.Reference {
		a.refuse(&Error{Code: codeNotSupported, Message: "column " + quoteName(c.Name) + " would hold other values on each shard", Detail: upper(a.diverges) + "."})
	}
	a.diverges = before
}

func (a *analysis) keyAltered(table *topology.Table) {
	a.refuse(&Error{
		Code: codeNotSupported, Message: "the shard key " + quoteName(table.Name) + "." + quoteName(table.KeyColumn()) + " cannot be dropped, renamed or changed",
		Hint: "Create a new table and copy the rows.",
	})
}

// samePlace refuses a change after which the rules would place the table elsewhere than its rows are.
func (a *analysis) samePlace(table *topology.Table, d *definition) {
	if table.Parent != (topology.TableName{}) || a.refusal != nil {
		return
	}
	kind, key, _, err := a.schema.Rules.Place(d.name, d.columns)
	switch {
	case err != nil && table.Problem != "":
		return
	case err == nil && kind == table.Kind && (key < 0 || d.columns[key].Name == table.KeyColumn()):
		return
	}
	e := &Error{
		Code: codeNotSupported, Message: "the rules for shard keys would then place table " + quoteName(table.Name) + " elsewhere than its rows are",
		Hint: "Choose another name, or list the table in the proxy's configuration first.",
	}
	if err != nil {
		e.Detail = err.Error()
	}
	a.refuse(e)
}

// rename reads ALTER … RENAME.
func (a *analysis) rename(s *pg.RenameStmt) {
	a.shared(s.RenameType)
	table, _ := a.renamed(s.Relation)
	if table == nil || !placed(table) {
		return
	}
	d := &definition{name: table.TableName, columns: slices.Clone(table.Columns)}
	switch s.RenameType {
	case pg.ObjectType_OBJECT_TABLE:
		d.name.Name = s.Newname
	case pg.ObjectType_OBJECT_COLUMN:
		if s.Subname == table.KeyColumn() {
			a.keyAltered(table)
			return
		}
		for i := range d.columns {
			if d.columns[i].Name == s.Subname {
				d.columns[i].Name = s.Newname
			}
		}
	default:
		return
	}
	a.samePlace(table, d)
}

func (a *analysis) renamed(v *pg.RangeVar) (*topology.Table, bool) {
	if v == nil {
		return nil, false
	}
	table, known := a.table(v)
	if table != nil {
		a.mention(table)
	}
	return table, known
}

// moveToSchema reads ALTER … SET SCHEMA.
func (a *analysis) moveToSchema(s *pg.AlterObjectSchemaStmt) {
	table, _ := a.renamed(s.Relation)
	if table == nil || !placed(table) {
		return
	}
	d := &definition{name: topology.TableName{Schema: s.Newschema, Name: table.Name}, columns: table.Columns}
	a.samePlace(table, d)
}
