package proxy

import (
	"maps"
	"slices"
	"strings"

	"shardproxy/backend"
	"shardproxy/wire"
)

// startupSettings are the run-time parameters of a startup message: its own, and those in "options".
func startupSettings(params map[string]string) (*backend.Settings, error) {
	settings := backend.NoSettings
	for _, name := range slices.Sorted(maps.Keys(params)) {
		switch name {
		case "user", "database", "replication", "options":
			continue
		}
		settings = settings.With(strings.ToLower(name), params[name])
	}
	if v := params["replication"]; v != "" && v != "false" && v != "off" && v != "0" && v != "no" {
		return nil, wire.Fatalf(wire.CodeFeatureNotSupported, "replication connections are not supported").
			WithHint("Connect to the shard itself.")
	}
	words := splitOptions(params["options"])
	for i := 0; i < len(words); i++ {
		var assignment string
		switch w := words[i]; {
		case w == "-c" && i+1 < len(words):
			i++
			assignment = words[i]
		case strings.HasPrefix(w, "-c"):
			assignment = w[2:]
		case strings.HasPrefix(w, "--"):
			assignment = w[2:]
		default:
			return nil, wire.Fatalf(wire.CodeInvalidParameterValue, "invalid command-line argument for server process: %s", w).
				WithHint("Only -c name=value and --name=value can be given.")
		}
		name, value, ok := strings.Cut(assignment, "=")
		if !ok {
			return nil, wire.Fatalf(wire.CodeSyntaxError, "-c %s requires a value", assignment)
		}
		settings = settings.With(strings.ToLower(strings.ReplaceAll(name, "-", "_")), value)
	}
	for _, e := range settings.All() {
		if strings.HasPrefix(e.Name, "shardproxy.") {
			return nil, wire.Fatalf(wire.CodeInsufficientPrivilege, "permission denied to set parameter \"%s\"", e.Name).
				WithHint("SET shardproxy.key and SET shardproxy.shard bind the session to a shard.")
		}
	}
	return settings, nil
}

// splitOptions cuts "options" into words as PostgreSQL does: at blanks, a backslash takes the next byte as it is.
func splitOptions(s string) []string {
	var words []string
	var word []byte
	in := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			word, in = append(word, s[i]), true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if in {
				words = append(words, string(word))
				word, in = word[:0], false
			}
		default:
			word, in = append(word, c), true
		}
	}
	if in {
		words = append(words, string(word))
	}
	return words
}
