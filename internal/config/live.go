package config

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keys says of each key of the file whether a running proxy can change it (live) or has to be started again. A list of
// tables such as [[users]] is one key. The order is that of SHOW CONFIG.
const keys = `
	listen.addresses            restart
	listen.unix_socket_dir      restart
	listen.tls_cert             live
	listen.tls_key              live
	listen.tls_client_ca        live
	listen.tls_client_certs     live
	listen.tls_require          live
	listen.max_clients          live
	listen.max_unauthenticated  live
	listen.login_timeout        live
	listen.max_startup_bytes    live
	listen.drain_timeout        live
	admin.http                  restart
	admin.users                 live
	admin.stats_users           live
	admin.pprof                 restart
	auth.user_file              live
	auth.query                  live
	auth.query_user             live
	auth.query_password         live
	auth.rules                  live
	users                       live
	pool.mode                   live
	pool.max_backends           live
	pool.size_min               live
	pool.size_max               live
	pool.acquire_timeout        live
	pool.connect_timeout        live
	pool.idle_timeout           live
	pool.lifetime               live
	pool.check_after            live
	pool.prepared_statements    live
	limits.message_bytes        live
	limits.query_bytes          live
	limits.parser_tokens        restart
	limits.plan_cache_entries   restart
	limits.prepared_statements  live
	limits.finish_bytes         live
	limits.finish_rows          live
	server_tls.sslmode          live
	server_tls.root_cert        live
	server_tls.cert             live
	server_tls.key              live
	cluster.name                restart
	cluster.database            restart
	cluster.service_user        live
	cluster.service_password    live
	shards                      restart
	ranges                      restart
	tables.explicit             restart
	tables.reference            restart
	tables.columns              restart
	tables.named                restart
	tables.unlisted             restart
	moves.copy_bytes_per_second live
	moves.replica_lag_bytes     live
	catalog.dsn                 restart
	catalog.state_file          restart
	gossip.listen               restart
	gossip.advertise            restart
	gossip.name                 restart
	gossip.seeds                restart
	gossip.keys                 restart
	log.level                   live
	log.format                  restart
`

// key is one line of keys.
type key struct {
	name string // such as pool.size_max
	live bool
}

func allKeys() (list []key) {
	for line := range strings.Lines(strings.TrimSpace(keys)) {
		name, when, _ := strings.Cut(strings.TrimSpace(line), " ")
		list = append(list, key{name, strings.TrimSpace(when) == "live"})
	}
	return list
}

// field of c that a key is read into. The zero Value for a key that there is not.
func (c *Config) field(name string) reflect.Value {
	v := reflect.ValueOf(c).Elem()
	for part := range strings.SplitSeq(name, ".") {
		if v.Kind() != reflect.Struct {
			return reflect.Value{}
		}
		i := slices.IndexFunc(reflect.VisibleFields(v.Type()), func(f reflect.StructField) bool {
			return f.IsExported() && f.Tag.Get("toml") == part
		})
		if i < 0 {
			return reflect.Value{}
		}
		v = v.Field(i)
	}
	return v
}

// Setting is one key with its values as text. Secrets are not shown.
type Setting struct {
	Key, Value, Default string
	Live                bool // see Merge
}

// Settings lists all keys of c.
func (c *Config) Settings() []Setting {
	var list []Setting
	usual := Default()
	for _, k := range allKeys() {
		list = append(list, Setting{Key: k.name, Value: text(c.field(k.name)), Default: text(usual.field(k.name)), Live: k.live})
	}
	return list
}

// text shows a value as the file has it. Of a list of tables it gives the length: they hold secrets.
func text(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case Secret:
		if value == "" {
			return ""
		}
		return redacted
	case Duration:
		return value.String()
	case string:
		return value
	}
	if v.Kind() != reflect.Slice {
		return fmt.Sprint(v.Interface())
	}
	switch v.Type().Elem().Kind() {
	case reflect.Struct:
		return fmt.Sprintf("%d entries", v.Len())
	case reflect.String:
		list := make([]string, v.Len())
		for i := range list {
			list[i] = strconv.Quote(text(v.Index(i)))
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// Merge gives what is to be in force when next has been read while running is in force: the live keys of next, and all
// others of running. Where they differ, changed names the live keys and restart the others.
func Merge(running, next *Config) (merged *Config, changed, restart []string) {
	merged = new(Config)
	*merged = *running
	merged.path, merged.lines = next.path, next.lines
	for _, k := range allKeys() {
		from, to := next.field(k.name), merged.field(k.name)
		switch {
		case equal(from, to):
		case k.live:
			changed = append(changed, k.name)
		default:
			restart = append(restart, k.name)
		}
		if k.live {
			to.Set(from)
		}
	}
	return merged, changed, restart
}

// equal takes an empty list and none for the same.
func equal(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// Errors of With.
var (
	ErrUnknownKey = errors.New("there is no such key")
	ErrFixedKey   = errors.New("it cannot be changed without a restart")
	ErrListKey    = errors.New("it is a list or a secret")
)

// With gives c with another value of one live key, which is a word, a number, a duration, or true or false, not quoted.
// The error says why that cannot be.
func (c *Config) With(name, value string) (*Config, error) {
	next := new(Config)
	*next = *c
	at := slices.IndexFunc(allKeys(), func(k key) bool { return k.name == name })
	if at < 0 {
		return nil, ErrUnknownKey
	}
	if !allKeys()[at].live {
		return nil, ErrFixedKey
	}
	field := next.field(name)
	var err error
	switch into := field.Addr().Interface().(type) {
	case *string:
		*into = value
	case *bool:
		*into, err = strconv.ParseBool(value)
	case *int:
		*into, err = strconv.Atoi(value)
	case *Duration:
		into.Duration, err = time.ParseDuration(value)
	default:
		return nil, ErrListKey
	}
	if err != nil {
		return nil, fmt.Errorf("%q is not a %s", value, kindOf(field))
	}
	// Its place in the file does not matter any more.
	next.path, next.lines = "", nil
	for _, p := range next.Check() {
		if p.Key == name || strings.HasPrefix(p.Key, name+"[") {
			return nil, errors.New(p.Message)
		}
		err = errors.New(p.String())
	}
	next.path, next.lines = c.path, c.lines
	return next, err
}

func kindOf(v reflect.Value) string {
	switch v.Interface().(type) {
	case Duration:
		return `duration such as "250ms", "2s" or "1h30m"`
	case int:
		return "number"
	}
	return "boolean"
}
