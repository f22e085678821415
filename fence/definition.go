package fence

import (
	"slices"
	"strings"
)

// sameDefinition says whether two texts of CREATE TRIGGER mean the same trigger. One is ours, the other PostgreSQL's, which
// quotes names only where it must, adds parentheses, drops pg_catalog where the search_path allows it, and shows the casts that it
// made. So parentheses, casts and pg_catalog are passed over.
func sameDefinition(a, b string) bool { return slices.Equal(words(a), words(b)) }

// words are the names, keywords, literals and signs of an SQL text that count for sameDefinition.
func words(sql string) (list []string) {
	for i := 0; i < len(sql); {
		switch c := sql[i]; {
		case c == '"' || c == '\'':
			text, end := quoted(sql, i)
			if c == '\'' {
				text = "'" + text // not the same as a name
			}
			list, i = append(list, text), end
		case isWordByte(c):
			end := i
			for end < len(sql) && isWordByte(sql[end]) {
				end++
			}
			word := strings.ToLower(sql[i:end])
			rest := sql[end:]
			i = end
			switch {
			case word == "pg_catalog" && strings.HasPrefix(rest, "."):
				i++
			case word == "operator" && strings.HasPrefix(rest, "("):
			default:
				list = append(list, word)
			}
		case strings.HasPrefix(sql[i:], "::"):
			i = castEnd(sql, i+2)
		case c == '(' || c == ')' || c == ' ':
			i++
		default:
			list, i = append(list, sql[i:i+1]), i+1
		}
	}
	return list
}

func isWordByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// quoted takes the text in the quotes that begin at i, and gives where it ends.
func quoted(sql string, i int) (text string, end int) {
	var b strings.Builder
	for quote := sql[i]; ; {
		i++
		switch {
		case i == len(sql):
			return b.String(), i
		case sql[i] != quote:
			b.WriteByte(sql[i])
		case i+1 < len(sql) && sql[i+1] == quote:
			b.WriteByte(quote)
			i++
		default:
			return b.String(), i + 1
		}
	}
}

// castEnd is behind the type that begins at i: one word, perhaps with pg_catalog before it.
func castEnd(sql string, i int) int {
	if rest, ok := strings.CutPrefix(sql[i:], "pg_catalog."); ok {
		i = len(sql) - len(rest)
	}
	for i < len(sql) && isWordByte(sql[i]) {
		i++
	}
	return i
}
