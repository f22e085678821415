package admin

import (
	"strings"
	"unicode/utf8"

	"shardproxy/wire"
)

// token is the smallest part of a command.
type token struct {
	text string // a bare word in lower case, a quoted one without its quotes
	bare bool   // not quoted: may be a keyword
	at   int    // byte offset in the text that was sent
	end  int    // byte offset behind it
}

// is says whether t is this keyword or character.
func (t token) is(word string) bool { return t.bare && t.text == word }

// command is one statement; it has at least one token.
type command struct {
	tokens []token
	sql    string // all that was sent with it, for positions in errors
}

// words are the command's tokens with blanks between them, in lower case where they were not quoted.
func (c command) words() string {
	var b strings.Builder
	for i, t := range c.tokens {
		if i > 0 {
			b.WriteByte(' ')
		}
		if t.bare {
			b.WriteString(t.text)
		} else {
			b.WriteString(`"` + t.text + `"`)
		}
	}
	return b.String()
}

// unknown is the error for a command that is not in the table.
func (c command) unknown() *wire.Error {
	name := c.tokens
	for i, t := range name {
		if i == 3 || !t.bare {
			name = name[:i]
			break
		}
	}
	e := syntaxError(c.sql, c.tokens[0].at, "unknown command %q", strings.ToUpper(command{tokens: name}.words()))
	return e.WithHint("SHOW HELP lists the commands of this console.")
}

func syntaxError(sql string, at int, format string, args ...any) *wire.Error {
	e := wire.Errorf(wire.CodeSyntaxError, format, args...)
	e.Position = utf8.RuneCountInString(sql[:at]) + 1
	return e
}

// parse takes a text apart into its commands. Comments, and commands without a token, are left out.
func parse(sql string) ([]command, *wire.Error) {
	var list []command
	var tokens []token
	end := func() {
		if len(tokens) > 0 {
			list = append(list, command{tokens: tokens, sql: sql})
			tokens = nil
		}
	}
	for i := 0; i < len(sql); {
		t, next, err := scan(sql, i)
		if err != nil {
			return nil, err
		}
		switch {
		case t.is(";"):
			end()
		case next > i && (t.text != "" || !t.bare):
			t.end = next
			tokens = append(tokens, t)
		}
		i = next
	}
	end()
	return list, nil
}

// scan reads the token that starts at i. Blanks and comments give a bare token without text.
func scan(sql string, i int) (t token, next int, err *wire.Error) {
	t = token{bare: true, at: i}
	rest := sql[i:]
	switch c := sql[i]; {
	case c == ' ' || c >= '\t' && c <= '\r':
		return t, i + 1, nil
	case strings.HasPrefix(rest, "--"):
		n := strings.IndexAny(rest, "\r\n")
		if n < 0 {
			n = len(rest)
		}
		return t, i + n, nil
	case strings.HasPrefix(rest, "/*"):
		next, err = comment(sql, i)
		return t, next, err
	case c == '\'' || c == '"':
		return quoted(sql, i, i, false)
	case c == '$' && dollarTag(rest) != "":
		return dollarQuoted(sql, i, dollarTag(rest))
	case (c == 'e' || c == 'E') && strings.HasPrefix(rest[1:], "'"):
		return quoted(sql, i, i+1, true)
	case isWord(c):
		next = i + 1
		for next < len(sql) && isWord(sql[next]) {
			next++
		}
		t.text = strings.ToLower(sql[i:next])
		return t, next, nil
	}
	t.text = rest[:1]
	return t, i + 1, nil
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

// dollarTag is the $…$ that s begins with, "" if it does not.
func dollarTag(s string) string {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			return s[:i+1]
		case !isWord(c) || i == 1 && c >= '0' && c <= '9':
			return ""
		}
	}
	return ""
}

// dollarQuoted reads the text between two tags.
func dollarQuoted(sql string, i int, tag string) (token, int, *wire.Error) {
	body := sql[i+len(tag):]
	n := strings.Index(body, tag)
	if n < 0 {
		return token{}, 0, syntaxError(sql, i, "unterminated dollar-quoted text")
	}
	return token{text: body[:n], at: i}, i + n + 2*len(tag), nil
}

// comment gives the offset behind the comment at i. Comments nest, as in PostgreSQL.
func comment(sql string, i int) (int, *wire.Error) {
	depth := 0
	for at := i; at+1 < len(sql); {
		switch sql[at : at+2] {
		case "/*":
			depth++
			at += 2
		case "*/":
			at += 2
			if depth--; depth == 0 {
				return at, nil
			}
		default:
			at++
		}
	}
	return 0, syntaxError(sql, i, "unterminated comment")
}

// quoted reads the literal or identifier whose quote stands at open. Its token starts at i.
func quoted(sql string, i, open int, escapes bool) (token, int, *wire.Error) {
	quote := sql[open]
	var b strings.Builder
	for at := open + 1; at < len(sql); at++ {
		c := sql[at]
		switch {
		case c == quote && at+1 < len(sql) && sql[at+1] == quote, c == '\\' && escapes && at+1 < len(sql):
			at++
			b.WriteByte(sql[at])
		case c == quote:
			return token{text: b.String(), at: i}, at + 1, nil
		default:
			b.WriteByte(c)
		}
	}
	return token{}, 0, syntaxError(sql, i, "unterminated quoted text")
}
