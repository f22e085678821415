package backend

import (
	"slices"
	"strings"
)

// Setting is one run-time parameter that a client has set.
type Setting struct{ Name, Value string }

// Settings is the immutable set of a session's run-time parameters that differ from what a fresh backend has.
// The nil pointer is not the empty set: on a Conn it stands for "unknown".
type Settings struct{ list []Setting } // sorted by name

// NoSettings is the empty set: what a fresh backend has.
var NoSettings = &Settings{}

// Get gives the value of name.
func (s *Settings) Get(name string) (string, bool) {
	if i, ok := s.find(name); ok {
		return s.list[i].Value, true
	}
	return "", false
}

func (s *Settings) find(name string) (int, bool) {
	return slices.BinarySearchFunc(s.list, name, func(e Setting, n string) int { return strings.Compare(e.Name, n) })
}

// With is s where name has the given value.
func (s *Settings) With(name, value string) *Settings {
	i, ok := s.find(name)
	if ok && s.list[i].Value == value {
		return s
	}
	list := slices.Clone(s.list)
	if ok {
		list[i].Value = value
	} else {
		list = slices.Insert(list, i, Setting{name, value})
	}
	return &Settings{list}
}

// Without is s where name is not set.
func (s *Settings) Without(name string) *Settings {
	i, ok := s.find(name)
	if !ok {
		return s
	}
	return &Settings{slices.Delete(slices.Clone(s.list), i, i+1)}
}

// All gives the settings in the order of their names. The caller must not change them.
func (s *Settings) All() []Setting { return s.list }

// Equal says whether both set the same values. Two unknown sets are not equal.
func (s *Settings) Equal(t *Settings) bool {
	return s != nil && t != nil && (s == t || slices.Equal(s.list, t.list))
}

// identity settings decide what the others may do: they are reset first and set last, in this order.
var identity = []string{"session_authorization", "role"}

// Difference is the SQL that brings a backend from the settings it has (nil: unknown) to want,
// "" where nothing needs doing. It contains no semicolon-separated transaction control and is safe for
// every standard_conforming_strings and client_encoding.
func (s *Settings) Difference(want *Settings) string {
	if s.Equal(want) {
		return ""
	}
	var sql strings.Builder
	have := s
	if have == nil {
		sql.WriteString("RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL;")
		have = NoSettings
	}
	reset := func(name string) {
		sql.WriteString(`RESET "` + strings.ReplaceAll(name, `"`, `""`) + `";`)
	}
	changed := false
	for _, name := range identity {
		a, hadIt := have.Get(name)
		b, wantsIt := want.Get(name)
		if hadIt != wantsIt || a != b {
			changed = true
		}
	}
	if changed {
		for i := len(identity) - 1; i >= 0; i-- {
			if _, ok := have.Get(identity[i]); ok {
				reset(identity[i])
			}
		}
	}
	for _, e := range have.list {
		if _, keep := want.Get(e.Name); !keep && !slices.Contains(identity, e.Name) {
			reset(e.Name)
		}
	}
	for _, e := range want.list {
		if old, ok := have.Get(e.Name); (ok && old == e.Value) || slices.Contains(identity, e.Name) {
			continue
		}
		set(&sql, e)
	}
	if changed {
		for _, name := range identity {
			if v, ok := want.Get(name); ok {
				set(&sql, Setting{name, v})
			}
		}
	}
	return sql.String()
}

func set(sql *strings.Builder, e Setting) {
	sql.WriteString("SELECT pg_catalog.set_config(" + Literal(e.Name) + "," + Literal(e.Value) + ",false);")
}

// Literal writes s as a string literal that reads the same under every setting of standard_conforming_strings.
func Literal(s string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
