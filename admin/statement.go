package admin

import (
	"context"
	"slices"
	"strings"

	"shardproxy/wire"
)

// statement is a command that is in the table: one with columns gives rows, one with act does something.
type statement struct {
	tag    string
	fields []wire.Field
	rows   reply
	act    action // nil, with no fields: the statement is empty
	exits  bool   // may run in a failed transaction
	alone  bool   // may not run in a transaction block
	verb   *verb  // nil: what drivers send on their own
}

// outcome is how a statement without rows ended.
type outcome struct {
	tag     string // "": the statement's own
	notices []*wire.Error
	err     *wire.Error
}

// plainly is an action of the session that needs nothing else.
func plainly(f func(s *session) outcome) action {
	return func(_ context.Context, s *session) outcome { return f(s) }
}

// resolve finds what a command stands for.
func (s *session) resolve(c command) (*statement, *wire.Error) {
	words := c.words()
	for i := range s.console.verbs {
		v := &s.console.verbs[i]
		n, ok := v.match(s.console, c.tokens)
		if !ok {
			continue
		}
		if err := s.mayUse(v); err != nil {
			return nil, err
		}
		return s.statement(v, newArguments(v, c, n, s.console.src.Database()))
	}
	if st := s.driverStatement(c, words); st != nil {
		return st, nil
	}
	return nil, c.unknown()
}

// mayUse checks the role of the user, which may have changed since the session began.
func (s *session) mayUse(v *verb) *wire.Error {
	role := s.console.role(s.user)
	if role >= v.role {
		return nil
	}
	return wire.Errorf(wire.CodeInsufficientPrivilege, "permission denied for %s", v.name).
		WithHint("It needs the role %v; user \"%s\" has %v.", v.role, s.user, role)
}

// statement is a verb with its arguments.
func (s *session) statement(v *verb, a *arguments) (*statement, *wire.Error) {
	switch {
	case v.rows != nil:
		return &statement{verb: v, tag: "SHOW", fields: v.fields, rows: func(_ context.Context, s *session) ([][]any, *wire.Error) {
			return v.rows(s.console), nil
		}}, nil
	case v.act != nil:
		act, err := v.act(a)
		if err != nil {
			return nil, err
		}
		return &statement{verb: v, tag: v.name, act: act, alone: v.alone}, nil
	}
	rows, err := v.read(a)
	if err != nil {
		return nil, err
	}
	tag, _, _ := strings.Cut(v.name, " ")
	if tag != "SHOW" {
		tag = v.name
	}
	return &statement{verb: v, tag: tag, fields: v.fields, rows: rows, alone: v.alone}, nil
}

// driverStatement is what drivers send on their own: transactions, settings, and questions about the server.
func (s *session) driverStatement(c command, words string) *statement {
	first := c.tokens[0]
	if !first.bare {
		return nil
	}
	rest := strings.TrimPrefix(words[len(first.text):], " ")
	switch first.text {
	case "begin":
		return &statement{tag: "BEGIN", act: plainly((*session).begin)}
	case "start":
		if rest == "transaction" || strings.HasPrefix(rest, "transaction ") {
			return &statement{tag: "START TRANSACTION", act: plainly((*session).begin)}
		}
	case "commit", "end", "rollback", "abort":
		if rest == "" || rest == "work" || rest == "transaction" {
			tag := "COMMIT"
			if first.text == "rollback" || first.text == "abort" {
				tag = "ROLLBACK"
			}
			return &statement{tag: tag, act: plainly((*session).end), exits: true}
		}
	case "set", "reset":
		if rest != "" {
			return &statement{tag: strings.ToUpper(first.text), act: plainly(func(*session) outcome { return ignored(first.text, rest) })}
		}
	case "discard":
		if rest == "all" {
			return &statement{tag: "DISCARD ALL", act: plainly((*session).discard)}
		}
	case "deallocate":
		return deallocate(c.tokens[1:])
	case "show":
		return s.showParameter(rest)
	case "select":
		return s.selectConstant(strings.TrimPrefix(strings.ReplaceAll(rest, " ", ""), "pg_catalog."))
	}
	return nil
}

// showParameter is SHOW of a PostgreSQL setting.
func (s *session) showParameter(name string) *statement {
	switch name {
	case "transaction isolation level":
		name = "transaction_isolation"
	case "time zone":
		name = "TimeZone"
	}
	for _, p := range s.console.parameters() {
		if strings.EqualFold(p.name, name) {
			return oneValue("SHOW", p.name, p.value)
		}
	}
	return nil
}

// selectConstant is SELECT of an expression that needs no database. It has no blanks.
func (s *session) selectConstant(expression string) *statement {
	switch expression {
	case "1":
		return oneValue("SELECT 1", "?column?#", int64(1))
	case "version()":
		return oneValue("SELECT 1", "version", "PostgreSQL "+s.console.serverVersion())
	case "current_database()":
		return oneValue("SELECT 1", "current_database", database)
	case "current_user", "session_user", "user":
		return oneValue("SELECT 1", expression, s.user)
	case "current_schema", "current_schema()":
		return oneValue("SELECT 1", "current_schema", nil)
	}
	return nil
}

func oneValue(tag, column string, value any) *statement {
	return &statement{tag: tag, fields: fields(column), rows: func(context.Context, *session) ([][]any, *wire.Error) {
		return [][]any{{value}}, nil
	}}
}

// deallocate is DEALLOCATE [PREPARE] { name | ALL }, nil if it is something else.
func deallocate(tokens []token) *statement {
	if len(tokens) == 2 && tokens[0].is("prepare") {
		tokens = tokens[1:]
	}
	if len(tokens) != 1 {
		return nil
	}
	name := tokens[0].text
	if tokens[0].is("all") {
		return &statement{tag: "DEALLOCATE ALL", act: plainly(func(s *session) outcome {
			clear(s.prepared)
			return outcome{}
		})}
	}
	return &statement{tag: "DEALLOCATE", act: plainly(func(s *session) outcome {
		if _, ok := s.prepared[name]; !ok {
			return outcome{err: noStatement(name)}
		}
		delete(s.prepared, name)
		return outcome{}
	})}
}

func noStatement(name string) *wire.Error {
	return wire.Errorf(wire.CodeInvalidStatementName, "prepared statement \"%s\" does not exist", name)
}

func (s *session) begin() outcome {
	if s.status != 'I' {
		return outcome{notices: []*wire.Error{warning(wire.CodeActiveTransaction, "there is already a transaction in progress")}}
	}
	s.status = 'T'
	return outcome{}
}

// end leaves the transaction. Nothing was done in it, so that COMMIT and ROLLBACK differ only in name.
func (s *session) end() (o outcome) {
	switch s.status {
	case 'I':
		o.notices = append(o.notices, warning(wire.CodeNoActiveTransaction, "there is no transaction in progress"))
	case 'E':
		o.tag = "ROLLBACK"
	}
	s.status = 'I'
	clear(s.portals)
	return o
}

func (s *session) discard() outcome {
	if s.status != 'I' {
		return outcome{err: wire.Errorf(wire.CodeActiveTransaction, "DISCARD ALL cannot run inside a transaction block")}
	}
	clear(s.prepared)
	return outcome{}
}

func warning(code, text string) *wire.Error {
	return &wire.Error{Severity: wire.SeverityWarning, Code: code, Message: text}
}

// harmless are the settings that drivers and psql make on their own. Without effect here, they do no harm.
var harmless = []string{
	"application_name", "bytea_output", "client_encoding", "client_min_messages", "constraints", "datestyle", "default_transaction_isolation",
	"default_transaction_read_only", "extra_float_digits", "idle_in_transaction_session_timeout", "intervalstyle", "lock_timeout", "names",
	"search_path", "session", "standard_conforming_strings", "statement_timeout", "time", "timezone", "transaction",
}

// ignored is a SET or RESET without effect. Who means a key of the configuration is told how it is named.
func ignored(verb, rest string) (o outcome) {
	name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(rest, "session "), "local "), " ")
	if verb == "set" && !slices.Contains(harmless, name) {
		o.notices = append(o.notices, warning(codeWarning, "SET "+name+" has no effect here").
			WithHint("Keys of the configuration are written with their section, as in pool.size_max. SHOW CONFIG lists them."))
	}
	return o
}
