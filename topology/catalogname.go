package topology

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseKeyHash reads a border of a range, all 16 digits of it: fewer would look like a fraction of the ring.
func ParseKeyHash(s string) (KeyHash, error) {
	h, err := strconv.ParseUint(s, 16, 64)
	if err != nil || len(s) != 16 {
		return 0, fmt.Errorf("%q is not 16 hexadecimal digits", s)
	}
	return KeyHash(h), nil
}

func hexHash(h KeyHash) string { return fmt.Sprintf("%016x", uint64(h)) }

// ParseTableName reads table or schema.table; the first form is of a table in schema.
func ParseTableName(s, schema string) (TableName, error) {
	switch parts, err := splitName(s); {
	case err != nil:
		return TableName{}, err
	case len(parts) == 1:
		return TableName{schema, parts[0]}, nil
	case len(parts) == 2:
		return TableName{parts[0], parts[1]}, nil
	}
	return TableName{}, fmt.Errorf("%q is not of the form table or schema.table", s)
}

// ParseColumnName reads table.column or schema.table.column; the first form is of a table in schema.
func ParseColumnName(s, schema string) (TableName, string, error) {
	switch parts, err := splitName(s); {
	case err != nil:
		return TableName{}, "", err
	case len(parts) == 2:
		return TableName{schema, parts[0]}, parts[1], nil
	case len(parts) == 3:
		return TableName{parts[0], parts[1]}, parts[2], nil
	}
	return TableName{}, "", fmt.Errorf("%q is not of the form table.column or schema.table.column", s)
}

// joinName is the inverse of splitName.
func joinName(parts ...string) string {
	quoted := make([]string, len(parts))
	for i, p := range parts {
		if strings.ContainsAny(p, `."`) {
			p = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
		}
		quoted[i] = p
	}
	return strings.Join(quoted, ".")
}

// splitName cuts a name at its dots. A part may stand in double quotes, in which "" is one of them; nothing is
// folded to lower case.
func splitName(s string) (parts []string, err error) {
	for rest := s; ; rest = rest[1:] {
		part, after, ok := cutPart(rest)
		if !ok || part == "" || after != "" && after[0] != '.' {
			return nil, fmt.Errorf("%q is not a name", s)
		}
		parts = append(parts, part)
		if rest = after; rest == "" {
			return parts, nil
		}
	}
}

// cutPart cuts off the first part of a name, without its quotes; false if a quote is not closed.
func cutPart(s string) (part, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexByte(s, '.')
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], true
	}
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '"':
		case i+1 < len(s) && s[i+1] == '"':
			i++
		default:
			return strings.ReplaceAll(s[1:i], `""`, `"`), s[i+1:], true
		}
	}
	return "", "", false
}
