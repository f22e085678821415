package admin

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"shardproxy/topology"
	"shardproxy/wire"
)

// arguments are what follows the name of a verb. They are read from left to right; after the first fault, which done
// gives, the rest reads as empty.
type arguments struct {
	verb     *verb
	sql      string // as in command
	from     int    // where they begin: behind the name
	end      int    // of the command, for what is missing
	database string // of a node that names none
	list     []argument
	err      *wire.Error
}

// argument is tokens with nothing between them, such as those of host:5432/app or a."B".
type argument []token

func newArguments(v *verb, c command, skip int, database string) *arguments {
	a := &arguments{verb: v, sql: c.sql, from: c.tokens[skip-1].end, end: c.tokens[len(c.tokens)-1].at, database: database}
	for i, t := range c.tokens[skip:] {
		if i > 0 && c.tokens[skip+i-1].end == t.at {
			last := &a.list[len(a.list)-1]
			*last = append(*last, t)
			continue
		}
		a.list = append(a.list, argument{t})
	}
	return a
}

// fail notes the first fault.
func (a *arguments) fail(at int, format string, args ...any) {
	if a.err == nil {
		a.err = syntaxError(a.sql, at, "%s: %s", a.verb.name, fmt.Sprintf(format, args...)).WithHint("The form is %s.", a.verb.usage())
	}
}

// done refuses what is left over, and gives the first fault.
func (a *arguments) done() *wire.Error {
	if len(a.list) > 0 {
		a.fail(a.list[0][0].at, "%s is too much", a.verbatim(a.list[0]))
	}
	return a.err
}

// next takes one argument; nil after a fault.
func (a *arguments) next(what string) argument {
	if len(a.list) == 0 {
		a.fail(a.end, "%s is missing", what)
	}
	if a.err != nil {
		return nil
	}
	first := a.list[0]
	a.list = a.list[1:]
	return first
}

func (a *arguments) verbatim(g argument) string { return a.sql[g[0].at:g[len(g)-1].end] }

// text takes an argument as it was typed, in upper or lower case, or what stands in its quotes.
func (a *arguments) text(what string) string {
	g := a.next(what)
	switch {
	case g == nil:
		return ""
	case len(g) == 1 && !g[0].bare:
		return g[0].text
	}
	for _, t := range g {
		if !t.bare {
			a.fail(t.at, "%s has quotes in its middle", what)
			return ""
		}
	}
	return a.verbatim(g)
}

// rest takes all that is left as it was typed, with its comments.
func (a *arguments) rest(what string) string {
	if len(a.list) == 0 {
		a.fail(a.end, "%s is missing", what)
		return ""
	}
	last := a.list[len(a.list)-1]
	a.list = nil
	return strings.TrimSpace(a.sql[a.from:last[len(last)-1].end])
}

// word takes the next argument if it is this keyword.
func (a *arguments) word(keyword string) bool {
	if len(a.list) == 0 || len(a.list[0]) != 1 || !a.list[0][0].is(keyword) {
		return false
	}
	a.list = a.list[1:]
	return true
}

// name takes a name of one or more parts as SQL does: in lower case but for what stands in double quotes.
func (a *arguments) name(what string, least, most int) (parts []string) {
	g := a.next(what)
	for i, t := range g {
		dot := i%2 == 1
		switch {
		case dot && t.is("."), !dot && !t.bare && a.sql[t.at] == '"' && t.text != "":
		case dot || !t.bare || !isWord(t.text[0]):
			a.fail(t.at, "%s is not %s", a.verbatim(g), what)
			return nil
		}
		if !dot {
			parts = append(parts, t.text)
		}
	}
	if n := len(parts); g != nil && (len(g)%2 == 0 || n < least || n > most) {
		a.fail(g[0].at, "%s is not %s", a.verbatim(g), what)
	}
	return parts
}

// table takes the name of a table.
func (a *arguments) table() topology.TableName {
	return tableName(a.name("the name of a table", 1, 2))
}

// column takes the name of a table with one of its columns.
func (a *arguments) column() (topology.TableName, string) {
	parts := a.name("the name of a table and its column", 2, 3)
	if a.err != nil {
		return topology.TableName{}, ""
	}
	last := len(parts) - 1
	return tableName(parts[:last]), parts[last]
}

// tableName is of a table in public where there is no schema.
func tableName(parts []string) topology.TableName {
	switch len(parts) {
	case 1:
		return topology.TableName{Schema: "public", Name: parts[0]}
	case 2:
		return topology.TableName{Schema: parts[0], Name: parts[1]}
	}
	return topology.TableName{}
}

// node takes the address of a node.
func (a *arguments) node(role topology.Role) topology.Node {
	at := a.end
	if len(a.list) > 0 {
		at = a.list[0][0].at
	}
	text := a.text("the address of a node")
	if a.err != nil {
		return topology.Node{}
	}
	n, err := parseNode(text, a.database)
	if err != nil {
		a.fail(at, "%v", err)
	}
	n.Role = role
	return n
}

// parseNode reads host:port/database, where the database may be left out, or a URL that says no more than that. An IPv6
// address stands in brackets; the host may be the folder of a Unix socket.
func parseNode(s, database string) (n topology.Node, err error) {
	if strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://") {
		if s, err = nodeOfURL(s); err != nil {
			return n, err
		}
	}
	at := strings.LastIndexByte(s, ':')
	if at < 0 {
		return n, fmt.Errorf("%q is not of the form host:port/database", s)
	}
	port, name, named := strings.Cut(s[at+1:], "/")
	n = topology.Node{Host: s[:at], Database: name}
	if !named {
		n.Database = database
	}
	if h, ok := strings.CutPrefix(n.Host, "["); ok && strings.HasSuffix(h, "]") {
		n.Host = h[:len(h)-1]
	} else if strings.Contains(n.Host, ":") {
		return n, fmt.Errorf("in %q, an IPv6 address stands in brackets", s)
	}
	if n.Port, err = strconv.Atoi(port); err != nil || n.Port < 1 || n.Port > 65535 || n.Host == "" || n.Database == "" {
		return n, fmt.Errorf("%q is not of the form host:port/database", s)
	}
	return n, nil
}

// nodeOfURL gives the URL's host:port/database. Its errors do not quote it: it may hold a password.
func nodeOfURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return "", errors.New("the URL of the node cannot be read")
	case u.User != nil:
		return "", errors.New("the URL of a node has no user and no password: the proxy logs in as its configuration says")
	case u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("the URL of a node has no parameters")
	}
	if u.Port() == "" {
		u.Host += ":5432"
	}
	return u.Host + strings.TrimSuffix(u.Path, "/"), nil
}
