package router

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// utility reads a statement that is not SELECT, INSERT, UPDATE, DELETE or MERGE.
func (a *analysis) utility(n *pg.Node) {
	t := a.t
	switch v := n.GetNode().(type) {
	case *pg.Node_TransactionStmt:
		a.transaction(v.TransactionStmt)
	case *pg.Node_VariableSetStmt:
		a.set(v.VariableSetStmt)
	case *pg.Node_VariableShowStmt:
		t.Kind, t.Returns = Show, true
		t.Set.Name = settingName(v.VariableShowStmt.Name)
	case *pg.Node_ConstraintsSetStmt:
		t.Kind = Set
		t.Set = SetStmt{Verb: SetTransaction, Name: "constraints"}
	case *pg.Node_DiscardStmt:
		t.Kind = Discard
		t.Name = strings.TrimPrefix(v.DiscardStmt.Target.String(), "DISCARD_")
	case *pg.Node_PrepareStmt:
		a.prepare(v.PrepareStmt)
	case *pg.Node_ExecuteStmt:
		a.execute(v.ExecuteStmt)
	case *pg.Node_DeallocateStmt:
		t.Kind, t.Name = Deallocate, v.DeallocateStmt.Name
	case *pg.Node_DeclareCursorStmt:
		a.declare(v.DeclareCursorStmt)
	case *pg.Node_FetchStmt:
		t.Kind, t.Name, t.Returns = Cursor, v.FetchStmt.Portalname, !v.FetchStmt.Ismove
	case *pg.Node_ClosePortalStmt:
		t.Kind, t.Name = Close, v.ClosePortalStmt.Portalname
	case *pg.Node_ListenStmt:
		t.Kind, t.Name = Listen, v.ListenStmt.Conditionname
	case *pg.Node_UnlistenStmt:
		t.Kind, t.Name = Listen, v.UnlistenStmt.Conditionname
	case *pg.Node_NotifyStmt:
		t.Kind, t.Name, t.Write, t.First = Notify, v.NotifyStmt.Conditionname, true, true
	case *pg.Node_ExplainStmt:
		a.explain(v.ExplainStmt)
	case *pg.Node_CopyStmt:
		a.copyStmt(v.CopyStmt)
	default:
		a.ddl(n)
	}
}

func (a *analysis) transaction(s *pg.TransactionStmt) {
	t := a.t
	t.Kind = Tx
	t.Tx = TxStmt{Name: s.SavepointName, Chain: s.Chain}
	switch s.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN, pg.TransactionStmtKind_TRANS_STMT_START:
		t.Tx.Verb = Begin
		for _, mode := range modes(s.Options) {
			t.Tx.Read = t.Tx.Read && !strings.HasPrefix(mode, "transaction_read_only") || mode == "transaction_read_only=on"
		}
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		t.Tx.Verb = Commit
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		t.Tx.Verb = Rollback
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		t.Tx.Verb = Savepoint
	case pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		t.Tx.Verb = Release
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		t.Tx.Verb = RollbackTo
	default:
		a.reject(&Error{
			Code: codeNotSupported, Message: "PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED are not supported",
			Hint: "The proxy itself commits in two phases where a transaction wrote on several shards.",
		})
	}
}

// modes are the transaction modes in a list of DefElem, as NAME=value.
func modes(options []*pg.Node) (list []string) {
	for _, n := range options {
		d := n.GetDefElem()
		c := d.GetArg().GetAConst()
		switch {
		case c == nil:
			list = append(list, d.GetDefname())
		case c.GetSval() != nil:
			list = append(list, d.Defname+"="+c.GetSval().Sval)
		case d.Defname == "transaction_read_only", d.Defname == "transaction_deferrable":
			value := "off"
			if c.GetIval().GetIval() != 0 || c.GetBoolval().GetBoolval() {
				value = "on"
			}
			list = append(list, d.Defname+"="+value)
		}
	}
	return list
}

func (a *analysis) set(s *pg.VariableSetStmt) {
	t := a.t
	t.Kind = Set
	t.Set = SetStmt{Name: settingName(s.Name), Local: s.IsLocal}
	switch s.Kind {
	case pg.VariableSetKind_VAR_SET_VALUE:
		t.Set.Verb = SetValue
		t.Set.Values = settingValues(s.Args)
		if len(s.Args) == 1 && len(t.Set.Values) == 1 {
			t.Set.Value = t.Set.Values[0]
		}
	case pg.VariableSetKind_VAR_SET_DEFAULT, pg.VariableSetKind_VAR_RESET:
		t.Set.Verb = SetDefault
	case pg.VariableSetKind_VAR_RESET_ALL:
		t.Set.Verb = SetResetAll
	case pg.VariableSetKind_VAR_SET_MULTI:
		switch s.Name {
		case "TRANSACTION":
			t.Set.Verb = SetTransaction
		case "SESSION CHARACTERISTICS":
			t.Set.Verb = SetCharacteristic
		default:
			a.reject(&Error{Code: codeNotSupported, Message: "SET TRANSACTION SNAPSHOT is not supported: a snapshot is of one server"})
		}
		t.Set.Values = modes(s.Args)
		for _, mode := range t.Set.Values {
			if strings.HasPrefix(mode, "transaction_read_only") {
				t.Tx.Read = mode == "transaction_read_only=on"
			}
		}
	default:
		a.reject(&Error{Code: codeSyntax, Message: "SET … FROM CURRENT is only for functions"})
	}
}

// settingName is the name of a setting in lower case: PostgreSQL compares them so.
func settingName(name string) string { return strings.ToLower(name) }

// settingValues are the literals and identifiers of a list, nil where it holds something else.
func settingValues(args []*pg.Node) (values []string) {
	for _, n := range args {
		switch v := n.GetAConst().GetVal().(type) {
		case *pg.A_Const_Sval:
			values = append(values, v.Sval.Sval)
		case *pg.A_Const_Ival:
			values = append(values, strconv.Itoa(int(v.Ival.Ival)))
		case *pg.A_Const_Fval:
			values = append(values, v.Fval.Fval)
		case *pg.A_Const_Boolval:
			values = append(values, strconv.FormatBool(v.Boolval.Boolval))
		default:
			return nil
		}
	}
	return values
}

// declare reads DECLARE CURSOR: a SELECT that stays open to the end of its transaction.
func (a *analysis) declare(s *pg.DeclareCursorStmt) {
	const withHold = 0x0020 // CURSOR_OPT_HOLD of parsenodes.h
	a.rows(s.Query)
	a.t.Returns = false
	a.later("a cursor")
	if s.Options&withHold != 0 {
		a.unbound("a cursor WITH HOLD outlives its transaction")
		a.t.Declare = ""
		return
	}
	if a.t.Kind == Scatter {
		a.refuse(&Error{Code: codeNotSupported, Message: "a cursor over several shards is not supported", Hint: a.advice()})
	}
	a.t.Declare, a.t.Block = s.Portalname, true
	a.oneShard("a cursor over several shards is not supported")
}

// later refuses set_config in what runs when the session does not look.
func (a *analysis) later(what string) {
	if a.t.Config {
		a.reject(&Error{Code: codeNotSupported, Message: "set_config in " + what + " is not supported", Hint: "Call it in a statement of its own."})
	}
}

// unbound makes the statement one that only a session bound to one shard can run.
func (a *analysis) unbound(why string) {
	t := a.t
	t.Kind, t.Pin, t.Write, t.Combine, t.Unbound = Any, true, true, false, why
	t.keys, t.rows = nil, nil
	a.refusal = nil
}

// oneShard turns a statement that could run on several shards at once into one that cannot.
func (a *analysis) oneShard(why string) {
	t := a.t
	if t.Kind == Insert {
		t.Kind = Keyed
		for i := range t.rows {
			t.addKeys(t.rows[i : i+1])
		}
		t.rows = nil
	}
	if t.Kind == Keyed {
		t.Combine = false
		t.Reason = &Error{Code: codeNotSupported, Message: why, Hint: "Add a condition that leaves one shard key."}
	}
}

// prepare takes PREPARE name (types) AS body apart by its text.
func (a *analysis) prepare(s *pg.PrepareStmt) {
	t := a.t
	t.Kind, t.Prepare.Name = Prepare, s.Name
	lx := lexer{sql: a.sql, std: true}
	lx.next() // PREPARE
	lx.next()
	t.Prepare.NameSpan = Span{lx.start, lx.pos}
	if len(s.Argtypes) > 0 {
		t.Prepare.Types = a.typeList(&lx)
	}
	lx.next() // AS
	t.Prepare.Body = trim(a.sql, lx.pos, a.end())
}

// typeList reads the declared types of PREPARE, as they are written.
func (a *analysis) typeList(lx *lexer) (types []string) {
	lx.next() // (
	from, depth := lx.pos, 0
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		if tok != tokSelf {
			continue
		}
		switch c := a.sql[lx.start]; {
		case c == '(' || c == '[':
			depth++
		case depth > 0 && (c == ')' || c == ']'):
			depth--
		case depth == 0 && (c == ',' || c == ')'):
			types = append(types, strings.TrimSpace(a.sql[from:lx.start]))
			from = lx.pos
			if c == ')' {
				return types
			}
		}
	}
	return types
}

// end is where the statement ends, without its semicolon.
func (a *analysis) end() int {
	end, lx := 0, lexer{sql: a.sql, std: true}
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		if tok != tokSelf || a.sql[lx.start] != ';' {
			end = lx.pos
		}
	}
	return end
}

func (a *analysis) execute(s *pg.ExecuteStmt) {
	t := a.t
	t.Kind, t.Returns, t.Write = Execute, true, true
	t.Prepare.Name = s.Name
	lx := lexer{sql: a.sql, std: true}
	lx.next() // EXECUTE
	lx.next()
	t.Prepare.NameSpan = Span{lx.start, lx.pos}
	for _, n := range s.Params {
		t.Prepare.Arguments = append(t.Prepare.Arguments, argument(n))
		a.expression(n, &scope{level: &level{top: true}})
	}
}

// argument reads an argument of EXECUTE. A cast may change the text (char(3)), so only those to
// types that keep it count as known.
func argument(n *pg.Node) Argument {
	if c := n.GetTypeCast(); c != nil {
		if name, array := typeName(c.TypeName); array || keyTypeNamed(name) == 0 {
			return Argument{}
		}
		n = c.Arg
	}
	c := n.GetAConst()
	if c == nil {
		return Argument{}
	}
	if c.Isnull {
		return Argument{Known: true, Null: true}
	}
	if values := settingValues([]*pg.Node{n}); len(values) == 1 {
		return Argument{Known: true, Value: values[0]}
	}
	return Argument{}
}
