package router

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// copyStmt reads COPY. COPY (query) TO runs as its query does, on one shard.
func (a *analysis) copyStmt(s *pg.CopyStmt) {
	t := a.t
	if s.IsProgram || s.Filename != "" {
		a.refuse(&Error{
			Code: codeNotSupported, Message: "COPY with a file or program of the server is not supported",
			Hint: "Use COPY FROM STDIN or COPY TO STDOUT; psql's \\copy does so.",
		})
	}
	c := &CopyStmt{From: s.IsFrom, Key: -1}
	if s.Query != nil {
		a.rows(s.Query)
		if t.Kind == Scatter {
			a.refuse(&Error{Code: codeNotSupported, Message: "COPY of a query over several shards is not supported", Hint: a.advice()})
		}
		if t.Kind == All {
			a.refuse(&Error{Code: codeNotSupported, Message: "COPY of a statement that writes a reference table is not supported", Hint: "Run the statement by itself."})
		}
		a.oneShard("COPY of a query over several shards is not supported")
		a.later("COPY")
		t.Returns = false
	} else if !a.copyTable(s, c) {
		return
	}
	t.Copy = c
	a.copyOptions(s, c)
	if s.WhereClause != nil {
		a.expression(s.WhereClause, &scope{level: &level{top: true}})
	}
	if s.IsFrom && c.Table != nil && c.Table.Kind == topology.Reference {
		a.copies = append(a.copies, c.Table)
		a.placeCopies()
		if a.refusal == nil {
			t.Kind = Copy
		}
	}
}

// copyTable reads the table and columns of COPY.
func (a *analysis) copyTable(s *pg.CopyStmt, c *CopyStmt) bool {
	t := a.t
	t.Write = s.IsFrom
	table, known := a.table(s.Relation)
	switch {
	case table == nil && !known:
		a.unknown(s.Relation)
		a.parseOnly = s.IsFrom
		fallthrough
	case table == nil, !placed(table) && !s.IsFrom:
		t.Kind, t.Copy = Any, c
		c.Columns = len(s.Attlist)
		a.copyOptions(s, c)
		return false
	case table.Kind == topology.Other:
		a.elsewhere(table)
		return false
	case table.Kind == topology.View:
		a.refuse(&Error{Code: codeNotSupported, Message: "COPY into view " + quoteName(table.Name) + " is not supported", Hint: "Copy into the table below it."})
		return false
	case table.Problem != "" || table.Kind == topology.Sharded && table.Key < 0:
		a.refuse(&Error{Code: codeNotSupported, Message: "table " + quoteName(table.Name) + " has no usable shard key", Detail: table.Problem})
		return false
	}
	a.mention(table)
	t.Kind, c.Table = Copy, table
	var columns []int
	if s.IsFrom {
		targets := make([]*pg.Node, len(s.Attlist))
		for i, name := range names(s.Attlist) {
			targets[i] = pg.MakeResTargetNodeWithName(name, -1)
		}
		width := len(targets)
		if width == 0 {
			columns = stored(table)
		} else {
			columns = a.insertColumns(table, targets, width, pg.OverridingKind_OVERRIDING_NOT_SET)
		}
	} else if columns = stored(table); len(s.Attlist) > 0 {
		columns = nil
		for _, name := range names(s.Attlist) {
			columns = append(columns, columnIndex(table, name))
		}
	}
	c.Columns = len(columns)
	for i, column := range columns {
		if table.Kind == topology.Sharded && column == table.Key {
			c.Key = i
		}
	}
	if !s.IsFrom && table.Kind == topology.Sharded {
		t.anchor = a.copyAnchor(s, table)
	}
	if s.IsFrom && table.Kind == topology.Sharded && c.Key < 0 {
		if c.Nowhere = failsByDefault(table); !c.Nowhere {
			a.refuse(missingKey(table))
		}
	}
	return true
}

// stored are the columns that COPY without a column list copies: all but the generated ones.
func stored(table *topology.Table) (columns []int) {
	for i := range table.Columns {
		if !table.Columns[i].Generated {
			columns = append(columns, i)
		}
	}
	return columns
}

// copyOptions reads the options, of the old syntax too, which the grammar gives the same names.
func (a *analysis) copyOptions(s *pg.CopyStmt, c *CopyStmt) {
	c.Delimiter, c.Null = '\t', `\N`
	var delimiter, null, quote, escape *string
	for _, n := range s.Options {
		d := n.GetDefElem()
		value := optionText(d)
		switch strings.ToLower(d.Defname) {
		case "format":
			switch value {
			case "csv":
				c.Format = CopyCSV
			case "binary":
				c.Format = CopyBinary
			case "text":
				c.Format = CopyText
			default:
				a.parseOnly = true
			}
		case "delimiter":
			delimiter = &value
		case "null":
			null = &value
		case "quote":
			quote = &value
		case "escape":
			escape = &value
		case "header":
			c.Header = optionOn(d)
		case "force_null":
			c.ForceNull = namesKey(d, c.Table)
		case "force_not_null":
			c.ForceNotNull = namesKey(d, c.Table)
		case "reject_limit":
			if s.IsFrom {
				a.refuse(&Error{Code: codeNotSupported, Message: "option REJECT_LIMIT of COPY FROM is not supported: each shard would count by itself"})
			}
		case "encoding":
			c.Encoding = value
			if name := strings.ReplaceAll(strings.ToLower(value), "-", ""); s.IsFrom && name != "utf8" && name != "unicode" {
				a.refuse(&Error{Code: codeNotSupported, Message: "COPY FROM in encoding " + quoteName(value) + " is not supported", Hint: "Convert the data to UTF8."})
			}
		case "default":
			if s.IsFrom {
				a.refuse(&Error{Code: codeNotSupported, Message: "option DEFAULT of COPY FROM is not supported", Hint: "Give the values."})
			}
		}
	}
	if c.Format == CopyCSV {
		c.Delimiter, c.Null, c.Quote = ',', "", '"'
	}
	if null != nil {
		c.Null = *null
	}
	for _, o := range []struct {
		given *string
		to    *byte
	}{{delimiter, &c.Delimiter}, {quote, &c.Quote}} {
		if o.given != nil && len(*o.given) == 1 {
			*o.to = (*o.given)[0]
		} else if o.given != nil {
			a.parseOnly = true // the server wants one byte
		}
	}
	c.Escape = c.Quote
	if escape != nil && len(*escape) == 1 {
		c.Escape = (*escape)[0]
	} else if escape != nil {
		a.parseOnly = true
	}
}

// namesKey says that the columns of an option, * standing for all, have the shard key among them.
func namesKey(d *pg.DefElem, table *topology.Table) bool {
	if d.GetArg().GetAStar() != nil {
		return true
	}
	return table != nil && table.Key >= 0 && slices.Contains(names(d.GetArg().GetList().GetItems()), table.KeyColumn())
}

// optionText reads the value of an option that is a word or a literal.
func optionText(d *pg.DefElem) string {
	switch v := d.GetArg().GetNode().(type) {
	case *pg.Node_String_:
		return v.String_.Sval
	case *pg.Node_AConst:
		return v.AConst.GetSval().GetSval()
	}
	return ""
}
