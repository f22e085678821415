package fence

import (
	"strings"

	"shardproxy/topology"
)

// literal writes s as a string literal that reads the same under every setting of standard_conforming_strings and
// backslash_quote.
func literal(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}

func identifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// qualified writes the name of a table.
func qualified(n topology.TableName) string { return identifier(n.Schema) + "." + identifier(n.Name) }
