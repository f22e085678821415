package proxy

import (
	"strconv"
	"strings"
	"sync"

	"shardproxy/backend"
	"shardproxy/router"
)

// defaults is what a fresh backend reports: learned from the first one.
type defaults struct {
	params     map[string]string
	searchPath string
}

// envs gives Envs of equal content equal IDs.
type envs struct {
	mu   sync.Mutex // guards the fields below
	byID map[string]*router.Env
	last uint64
}

const envsMax = 10_000 // beyond, an Env gets an ID of its own and shares no plan

func (e *envs) of(d *defaults, settings *backend.Settings, user string, bound bool) *router.Env {
	path, ok := settings.Get("search_path")
	if !ok {
		path = d.searchPath
	}
	standard, ok := settings.Get("standard_conforming_strings")
	if !ok {
		standard = d.params["standard_conforming_strings"]
	}
	for _, name := range []string{"session_authorization", "role"} { // CURRENT_USER
		if as, ok := settings.Get(name); ok && as != "none" {
			user = as
		}
	}
	key := path + "\x00" + user + "\x00" + standard + "\x00" + strconv.FormatBool(bound)
	e.mu.Lock()
	defer e.mu.Unlock()
	if env, ok := e.byID[key]; ok {
		return env
	}
	e.last++
	env := &router.Env{ID: e.last, SearchPath: splitPath(path, user), StdStrings: standard != "off", Bound: bound}
	if e.byID == nil {
		e.byID = make(map[string]*router.Env)
	}
	if len(e.byID) < envsMax {
		e.byID[key] = env
	}
	return env
}

// splitPath reads a search_path as SHOW prints it: names apart by commas, quoted where needed.
func splitPath(path, user string) []string {
	var schemas []string
	for len(path) > 0 {
		path = strings.TrimLeft(path, " ,\t\n")
		if path == "" {
			break
		}
		var name string
		if path[0] == '"' {
			var b strings.Builder
			i := 1
			for i < len(path) {
				if path[i] == '"' {
					if i+1 < len(path) && path[i+1] == '"' {
						i++
					} else {
						break
					}
				}
				b.WriteByte(path[i])
				i++
			}
			name, path = b.String(), path[min(i+1, len(path)):]
		} else {
			i := strings.IndexByte(path, ',')
			if i < 0 {
				i = len(path)
			}
			name, path = strings.ToLower(strings.TrimSpace(path[:i])), path[i:]
		}
		if name == "$user" {
			name = user
		}
		if name != "" {
			schemas = append(schemas, name)
		}
	}
	return schemas
}
