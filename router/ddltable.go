package router

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// definition is a table as CREATE TABLE or ALTER TABLE would leave it, as far as its place and its
// constraints depend on it.
type definition struct {
	name    topology.TableName
	kind    topology.TableKind
	key     string // the shard key, "" for a reference table
	primary []string
	columns []topology.Column
}

func (a *analysis) createTable(s *pg.CreateStmt) {
	if a.temporary(s.Relation) {
		return
	}
	d := &definition{name: a.newName(s.Relation)}
	if s.IfNotExists && a.schema.Tables[d.name] != nil {
		return // nothing will be made
	}
	parent := a.inherited(s, d)
	var constraints []*pg.Constraint
	for _, n := range s.TableElts {
		switch v := n.GetNode().(type) {
		case *pg.Node_ColumnDef:
			d.columns = append(d.columns, newColumn(v.ColumnDef))
			constraints = append(constraints, columnConstraints(v.ColumnDef)...)
		case *pg.Node_Constraint:
			constraints = append(constraints, v.Constraint)
		case *pg.Node_TableLikeClause:
			if table, _ := a.table(v.TableLikeClause.Relation); table != nil {
				d.columns = append(d.columns, table.Columns...)
			}
		}
	}
	if s.OfTypename != nil {
		a.refuse(&Error{Code: codeNotSupported, Message: "CREATE TABLE OF is not supported", Hint: "Name the columns."})
		return
	}
	if !a.placeNew(d, parent) {
		return
	}
	for _, c := range constraints {
		if c.Contype == pg.ConstrType_CONSTR_PRIMARY {
			d.primary = names(c.Keys)
		}
	}
	for _, c := range constraints {
		a.constraint(d, c)
	}
}

// inherited adds the columns of the tables that a new one is a child of. It gives the first.
func (a *analysis) inherited(s *pg.CreateStmt, d *definition) (parent *topology.Table) {
	for _, n := range s.InhRelations {
		table, known := a.table(n.GetRangeVar())
		if table == nil {
			if !known {
				a.unknown(n.GetRangeVar())
			}
			continue
		}
		d.columns = append(d.columns, table.Columns...)
		if parent == nil {
			parent = table
		} else if parent.Kind != table.Kind || parent.KeyColumn() != table.KeyColumn() {
			a.refuse(&Error{Code: codeNotSupported, Message: "the parents of " + quoteName(d.name.Name) + " are not sharded alike"})
		}
	}
	return parent
}

// placeNew finds the place of a new table, and fills Template.Create.
func (a *analysis) placeNew(d *definition, parent *topology.Table) bool {
	create := &CreateTable{Name: d.name, Columns: d.columns, Key: -1}
	a.t.Create = create
	if parent != nil {
		create.Kind, create.Key, d.kind, d.key = parent.Kind, parent.Key, parent.Kind, parent.KeyColumn()
		return parent.Problem == ""
	}
	kind, key, _, err := a.schema.Rules.Place(d.name, d.columns)
	if err != nil {
		a.refuse(&Error{Code: codeNotSupported, Message: err.Error(), Hint: "Change the column, or the rules for shard keys in the proxy's configuration."})
		return false
	}
	create.Kind, create.Key, d.kind = kind, key, kind
	if key >= 0 {
		d.key = d.columns[key].Name
	} else if !a.schema.Rules.Reference[d.name] {
		create.Notice = "table " + quoteName(d.name.Name) + " has no shard key, so it is a reference table: every shard has all of its rows"
	}
	return true
}

// newName is the name of a table that is being made. Without a schema it goes to the first one in
// the search path that is there.
func (a *analysis) newName(v *pg.RangeVar) topology.TableName {
	if v.Schemaname != "" || len(a.path) == 0 {
		return topology.TableName{Schema: v.Schemaname, Name: v.Relname}
	}
	for _, schema := range a.path {
		if schema == "public" {
			return topology.TableName{Schema: schema, Name: v.Relname}
		}
		for name := range a.schema.Tables {
			if name.Schema == schema {
				return topology.TableName{Schema: schema, Name: v.Relname}
			}
		}
	}
	return topology.TableName{Schema: a.path[0], Name: v.Relname}
}

// typeOIDs are the types that can be a shard key, and those that shorten a number with a sequence.
var typeOIDs = map[string]uint32{
	"int2": oidInt2, "int4": oidInt4, "int8": oidInt8, "text": oidText, "varchar": oidVarchar, "uuid": oidUUID,
	"smallserial": oidInt2, "serial2": oidInt2, "serial": oidInt4, "serial4": oidInt4, "bigserial": oidInt8, "serial8": oidInt8,
}

func newColumn(d *pg.ColumnDef) topology.Column {
	c := topology.Column{Name: d.Colname, NotNull: d.IsNotNull}
	c.Type = typeOID(d.TypeName)
	parts := names(d.TypeName.GetNames())
	switch last(parts) {
	case "smallserial", "serial2", "serial", "serial4", "bigserial", "serial8":
		c.Sequence = true
	}
	for _, n := range d.Constraints {
		switch n.GetConstraint().Contype {
		case pg.ConstrType_CONSTR_NOTNULL, pg.ConstrType_CONSTR_PRIMARY:
			c.NotNull = true
		case pg.ConstrType_CONSTR_IDENTITY:
			c.Sequence = true
		case pg.ConstrType_CONSTR_GENERATED:
			c.Generated = true
		case pg.ConstrType_CONSTR_DEFAULT:
			c.Default = topology.Volatile
		}
	}
	return c
}

// typeOID is 0 for a type that cannot be a shard key.
func typeOID(t *pg.TypeName) uint32 {
	if len(t.GetArrayBounds()) > 0 {
		return 0
	}
	return typeOIDs[last(names(t.GetNames()))]
}

func last(parts []string) string {
	if len(parts) == 0 {
		return ""
	}
	return parts[len(parts)-1]
}

// columnConstraints are the constraints written behind a column, as constraints of the table.
func columnConstraints(d *pg.ColumnDef) (list []*pg.Constraint) {
	name := pg.MakeStrNode(d.Colname)
	for _, n := range d.Constraints {
		c := n.GetConstraint()
		switch c.Contype {
		case pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_UNIQUE:
			list = append(list, &pg.Constraint{Contype: c.Contype, Keys: []*pg.Node{name}})
		case pg.ConstrType_CONSTR_FOREIGN:
			list = append(list, &pg.Constraint{
				Contype: c.Contype, FkAttrs: []*pg.Node{name}, Pktable: c.Pktable, PkAttrs: c.PkAttrs,
				FkUpdAction: c.FkUpdAction, FkDelAction: c.FkDelAction, FkDelSetCols: c.FkDelSetCols,
			})
		}
	}
	return list
}

// constraint checks what a constraint means across shards.
func (a *analysis) constraint(d *definition, c *pg.Constraint) {
	switch c.Contype {
	case pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_UNIQUE:
		if d.kind == topology.Sharded && c.Indexname == "" {
			a.uniqueness(d.name.Name, d.key, names(c.Keys))
		}
	case pg.ConstrType_CONSTR_EXCLUSION:
		if d.kind == topology.Sharded {
			a.t.Notices = append(a.t.Notices, "the exclusion constraint on "+quoteName(d.name.Name)+" is checked on each shard by itself")
		}
	case pg.ConstrType_CONSTR_FOREIGN:
		a.foreignKey(d, c)
	}
}

// foreignKey allows the references that each shard can check for itself.
func (a *analysis) foreignKey(d *definition, c *pg.Constraint) {
	a.resetKey(d, c)
	kind, key, primary := d.kind, d.key, d.primary // of a table that refers to itself
	if name := a.newName(c.Pktable); name != d.name {
		table, _ := a.table(c.Pktable)
		if table == nil {
			a.unknown(c.Pktable)
			a.refuse(&Error{Code: codeNotSupported, Message: "the table " + quoteName(c.Pktable.Relname) + " that a foreign key refers to is not known to the proxy"})
			return
		}
		a.mention(table)
		kind, key, primary = table.Kind, table.KeyColumn(), table.Primary
	}
	if kind != topology.Sharded { // the server says what it thinks of a view
		return
	}
	e := &Error{
		Code: codeNotSupported, Message: "the foreign key from " + quoteName(d.name.Name) + " to " + quoteName(c.Pktable.Relname) + " could refer to a row of another shard",
		Hint: "Make the shard keys of both tables part of it, such as FOREIGN KEY (" + d.key + ", …) REFERENCES " + c.Pktable.Relname + " (" + key + ", …).",
	}
	if d.kind != topology.Sharded {
		e.Hint = "A reference table can only refer to reference tables."
		a.refuse(e)
		return
	}
	from, to := names(c.FkAttrs), names(c.PkAttrs)
	if len(to) == 0 {
		to = primary
	}
	for i := range min(len(from), len(to)) {
		if from[i] == d.key && to[i] == key {
			return
		}
	}
	a.refuse(e)
}

// resetKey refuses a foreign key that would change the shard key of a row.
func (a *analysis) resetKey(d *definition, c *pg.Constraint) {
	const setNull, setDefault = "n", "d" // FKCONSTR_ACTION_SETNULL, _SETDEFAULT of parsenodes.h
	sets := func(action string) bool { return action == setNull || action == setDefault }
	deletes := sets(c.FkDelAction) && (len(c.FkDelSetCols) == 0 || slices.Contains(names(c.FkDelSetCols), d.key))
	if d.kind == topology.Sharded && slices.Contains(names(c.FkAttrs), d.key) && (deletes || sets(c.FkUpdAction)) {
		a.refuse(&Error{
			Code: codeNotSupported, Message: "the foreign key would change the shard key " + quoteName(d.name.Name) + "." + quoteName(d.key) + " of a row",
			Hint: "Use ON DELETE CASCADE, or SET NULL (…) of the other columns.",
		})
	}
}

// newDefault checks what a new column holds in the rows that are there already.
func (a *analysis) newDefault(d *definition, c *pg.ColumnDef) {
	before := a.diverges
	a.diverges = ""
	sequence := newColumn(c).Sequence
	sc := &scope{level: &level{top: true}}
	for _, n := range c.Constraints {
		switch k := n.GetConstraint(); k.Contype {
		case pg.ConstrType_CONSTR_DEFAULT, pg.ConstrType_CONSTR_GENERATED:
			refusal, kind := a.refusal, a.t.Kind
			a.expression(k.RawExpr, sc)
			if a.refusal != refusal { // nextval, or a function that cannot be seen into
				a.refusal, a.t.Kind, a.t.Reason = refusal, kind, refusal
				a.diverge("the default draws from a sequence, or cannot be analysed")
			}
			sequence = sequence || contains(k.RawExpr, func(n *pg.Node) bool { return sequenceFunctions[last(names(n.GetFuncCall().GetFuncname()))] })
		}
	}
	if sequence {
		a.diverge("it draws from a sequence")
	}
	why := a.diverges
	a.diverges = before
	switch {
	case why == "":
	case d.kind == topology.Reference:
		a.refuse(&Error{
			Code: codeNotSupported, Message: "the new column " + quoteName(c.Colname) + " would hold other values on each shard", Detail: upper(why) + ".",
			Hint: "Add the column without a default, fill it, then set the default.",
		})
	case sequence:
		a.refuse(&Error{
			Code: codeNotSupported, Message: "the new column " + quoteName(c.Colname) + " would hold the same numbers on each shard",
			Hint: "Use a uuid column with gen_random_uuid().",
		})
	}
}
