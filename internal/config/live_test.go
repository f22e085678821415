package config

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestKeysAreThoseOfTheFile holds that the table has every key of the file once, and says of each whether it is live.
func TestKeysAreThoseOfTheFile(t *testing.T) {
	var have, want []string
	for _, k := range allKeys() {
		have = append(have, k.name)
		if v := Default().field(k.name); !v.IsValid() {
			t.Errorf("there is no field for %s", k.name)
		}
	}
	lists := []string{"users", "shards", "ranges", "auth.rules"}
	for _, name := range fieldKeys("", reflect.TypeFor[Config]()) {
		section := !strings.Contains(name, ".") && !slices.Contains(lists, name)
		inner := slices.ContainsFunc(lists, func(l string) bool { return strings.HasPrefix(name, l+".") })
		if !section && !inner {
			want = append(want, name)
		}
	}
	slices.Sort(have)
	slices.Sort(want)
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("(-file +table)\n%s", diff)
	}
	for line := range strings.Lines(strings.TrimSpace(keys)) {
		if words := strings.Fields(line); len(words) != 2 || words[1] != "live" && words[1] != "restart" {
			t.Errorf("line %q of the table", line)
		}
	}
}

const liveText = `
[listen]
tls_require = false
[auth]
query_password = "hidden"
[[users]]
name = "app"
secret = "hidden too"
[pool]
size_max = 7
[gossip]
keys = ["hidden as well"]
[[shards]]
name = "s1"
nodes = [{host = "h"}]
`

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parse("f.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSettings(t *testing.T) {
	got := map[string]Setting{}
	for _, s := range parsed(t, liveText).Settings() {
		got[s.Key] = s
		if strings.Contains(s.Value, "hidden") {
			t.Errorf("%s shows %s", s.Key, s.Value)
		}
	}
	for _, want := range []Setting{
		{"listen.addresses", `["127.0.0.1:6432"]`, `["127.0.0.1:6432"]`, false},
		{"listen.tls_require", "false", "false", true},
		{"pool.size_max", "7", "20", true},
		{"pool.acquire_timeout", "10s", "10s", true},
		{"auth.query_password", "[redacted]", "", true},
		{"gossip.keys", `["[redacted]"]`, "[]", false},
		{"catalog.dsn", "", "", false},
		{"users", "1 entries", "0 entries", true},
		{"auth.rules", "2 entries", "2 entries", true},
	} {
		if got[want.Key] != want {
			t.Errorf("got %+v, want %+v", got[want.Key], want)
		}
	}
}

func TestMerge(t *testing.T) {
	running := parsed(t, liveText)
	next := parsed(t, strings.NewReplacer("size_max = 7", "size_max = 8\nmode = \"session\"", "hidden too", "other", `host = "h"`, `host = "i"`).Replace(liveText)+"[log]\nformat = \"json\"\n")
	merged, changed, restart := Merge(running, next)
	if want := []string{"users", "pool.mode", "pool.size_max"}; !slices.Equal(changed, want) {
		t.Errorf("changed %v, want %v", changed, want)
	}
	if want := []string{"shards", "log.format"}; !slices.Equal(restart, want) {
		t.Errorf("restart %v, want %v", restart, want)
	}
	if merged.Pool.SizeMax != 8 || merged.Users[0].Secret.Reveal() != "other" || merged.Shards[0].Nodes[0].Host != "h" || merged.Log.Format != "text" {
		t.Errorf("merged: %+v", merged)
	}
	if running.Pool.SizeMax != 7 {
		t.Error("what was in force has been changed")
	}
	if _, changed, restart := Merge(running, parsed(t, liveText)); len(changed)+len(restart) > 0 {
		t.Errorf("the same file: %v, %v", changed, restart)
	}
}

func TestWith(t *testing.T) {
	c := parsed(t, liveText)
	for _, test := range []struct{ key, value, want string }{
		{"pool.size_max", "9", ""},
		{"pool.mode", "session", ""},
		{"pool.idle_timeout", "90s", ""},
		{"pool.idle_timeout", "0s", ""},
		{"log.level", "debug", ""},
		{"pool.size_max", "0", "0 is not between 1 and 1000"},
		{"pool.size_max", "many", `"many" is not a number`},
		{"pool.mode", "statement", `"statement" is not one of transaction, session`},
		{"pool.idle_timeout", "90", `"90" is not a duration such as "250ms", "2s" or "1h30m"`},
		{"pool.idle_timeout", "-1s", "-1s is below zero"},
		{"pool.max_backends", "3", "pool.size_max: 7 is not between 1 and 3"},
		{"listen.tls_require", "maybe", `"maybe" is not a boolean`},
		{"listen.tls_require", "on", `"on" is not a boolean`},
	} {
		next, err := c.With(test.key, test.value)
		if test.want == "" {
			if err != nil || text(next.field(test.key)) == text(c.field(test.key)) && test.value != "0s" {
				t.Errorf("%s = %s: %v", test.key, test.value, err)
			}
			continue
		}
		if err == nil || err.Error() != test.want {
			t.Errorf("%s = %s: %v, want %s", test.key, test.value, err, test.want)
		}
	}
	for key, want := range map[string]error{
		"nosuch.key": ErrUnknownKey, "pool": ErrUnknownKey, "log.format": ErrFixedKey, "admin.users": ErrListKey, "auth.query_password": ErrListKey,
	} {
		if _, err := c.With(key, "x"); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", key, err, want)
		}
	}
	if c.Pool.SizeMax != 7 {
		t.Error("the configuration has been changed")
	}
}
