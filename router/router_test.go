package router

import (
	"errors"
	"sync/atomic"
	"testing"
	"unsafe"

	"shardproxy/topology"
)

// newTestRouter is a Router that takes each statement as it is: the analysis is another test's.
func newTestRouter(t testing.TB, config Config) *Router {
	t.Helper()
	r, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	r.analyse = func(_ *topology.Snapshot, _ *Env, sql string, _ []Literal) (*Template, bool, error) {
		return &Template{Text: sql}, true, nil
	}
	return r
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.CacheEntries = 0 },
		func(c *Config) { c.MaxTokens = 0 },
		func(c *Config) { c.MaxTokens = maxTokensCeiling + 1 },
		func(c *Config) { c.MaxBytes = 0 },
		func(c *Config) { c.MaxBytes = maxBytesCeiling + 1 },
	} {
		c := DefaultConfig()
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestTemplateIsCached(t *testing.T) {
	r := newTestRouter(t, DefaultConfig())
	calls, keep := 0, true
	var fail error
	r.analyse = func(_ *topology.Snapshot, _ *Env, sql string, _ []Literal) (*Template, bool, error) {
		calls++
		return &Template{Text: sql}, keep, fail
	}
	env := &Env{ID: 1, StdStrings: true}
	snap := &topology.Snapshot{Schema: &topology.Schema{Version: 1}}
	var sc Scratch
	ask := func(sql string, snap *topology.Snapshot, env *Env, want int) *Template {
		t.Helper()
		before := calls
		got, err := r.Template(snap, env, sql, &sc)
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
		if calls-before != want {
			t.Errorf("%q is analysed %d times, want %d", sql, calls-before, want)
		}
		return got
	}
	first := ask("SELECT a FROM t WHERE b = 1", snap, env, 1)
	if again := ask("select a\nfrom T /* x */ where b = 22;", snap, env, 0); again != first {
		t.Error("equal normal forms give two Templates")
	}
	if sql := "select a\nfrom T /* x */ where b = 22;"; len(sc.Literals) != 1 || sql[sc.Literals[0].Start:sc.Literals[0].End] != "22" {
		t.Errorf("the literals of a hit are %v", sc.Literals)
	}
	ask("SELECT a FROM t WHERE b = 1", snap, &Env{ID: 2, StdStrings: true}, 1)
	ask("SELECT a FROM t WHERE b = 1", &topology.Snapshot{Schema: &topology.Schema{Version: 2}}, env, 1)
	ask("SET a = 1", snap, env, 1)
	ask("SET a = 1", snap, env, 1)
	keep = false
	ask("SELECT b", snap, env, 1)
	ask("SELECT b", snap, env, 1)
	keep, fail = true, errors.New("broken")
	ask("SELECT c", snap, env, 1)
	fail = nil
	ask("SELECT c", snap, env, 1)
}

func TestTemplateKeepsNoText(t *testing.T) {
	r := newTestRouter(t, DefaultConfig())
	text := []byte("SELECT a FROM t")
	got, err := r.Template(nil, &Env{StdStrings: true}, string(text), &Scratch{})
	if err != nil {
		t.Fatal(err)
	}
	buffer := []byte("SELECT b FROM t")
	var sc Scratch
	one, _ := r.Template(nil, &Env{StdStrings: true}, unsafe.String(&buffer[0], len(buffer)), &sc)
	copy(buffer, "xxxxxxxxxxxxxxxx")
	if got.Text != "SELECT a FROM t" || one.Text != "SELECT b FROM t" {
		t.Errorf("a Template aliases the statement's buffer: %q", one.Text)
	}
	copy(buffer, "SELECT b FROM t")
	if two, _ := r.Template(nil, &Env{StdStrings: true}, string(buffer), &sc); two != one {
		t.Error("the cache's key aliases the statement's buffer")
	}
}

func TestBackslashesInOldStrings(t *testing.T) {
	r := newTestRouter(t, DefaultConfig())
	var literals []Literal
	var text string
	r.analyse = func(_ *topology.Snapshot, _ *Env, sql string, lits []Literal) (*Template, bool, error) {
		text, literals = sql, lits
		return &Template{Kind: Any}, true, nil
	}
	env := &Env{ID: 1}
	sql := `SELECT 1, 'it\'s', 2, 'a\\', '3' FROM t`
	var sc Scratch
	if _, err := r.Template(nil, env, sql, &sc); err != nil {
		t.Fatal(err)
	}
	if want := `SELECT 1, E'it\'s', 2, E'a\\', '3' FROM t`; text != want {
		t.Errorf("the grammar gets %s, want %s", text, want)
	}
	want := []string{`1`, `E'it\'s'`, `2`, `E'a\\'`, `'3'`}
	for i, l := range literals {
		if got := text[l.Start:l.End]; got != want[i] {
			t.Errorf("literal %d is %s, want %s", i, got, want[i])
		}
	}
	if len(literals) != len(want) || len(sc.Literals) != len(want) {
		t.Errorf("%d and %d literals, want %d", len(literals), len(sc.Literals), len(want))
	}
	got, err := r.Template(nil, env, `SET a = 'b\'c'`, &sc)
	if err != nil || got.Kind != Reject || got.Reason.Code != "0A000" {
		t.Errorf("SET with a backslash gives %+v, %v", got, err)
	}
}

func TestCacheIsBoundedByBytes(t *testing.T) {
	config := DefaultConfig()
	config.CacheEntries = 100
	r := newTestRouter(t, config)
	var sc Scratch
	for i := range 2000 {
		name := make([]byte, 1000)
		for j := range name {
			name[j] = 'a' + byte((i>>(j%12))&1)
		}
		if _, err := r.Template(nil, &Env{StdStrings: true}, "SELECT "+string(name), &sc); err != nil {
			t.Fatal(err)
		}
	}
	r.cache.entries.CleanUp()
	if n := r.cache.len(); n > 100/2 {
		t.Errorf("%d entries of 1,000 bytes are held, want at most 50", n)
	}
}

const statement100 = "SELECT id, name, email FROM projects WHERE creator_user_id = 12345 AND name = 'abc def' AND id > 17;"

func TestHitDoesNotAllocate(t *testing.T) {
	r := newTestRouter(t, DefaultConfig())
	env := &Env{ID: 1, StdStrings: true}
	var sc Scratch
	ask := func() {
		if _, err := r.Template(nil, env, statement100, &sc); err != nil {
			t.Fatal(err)
		}
	}
	ask()
	// The cache's own upkeep allocates now and then.
	if n := testing.AllocsPerRun(1000, ask); n >= 0.1 {
		t.Errorf("a hit allocates %v times", n)
	}
}

func BenchmarkNormalise100Bytes(b *testing.B) {
	b.ReportAllocs()
	env := &Env{ID: 1, StdStrings: true}
	var sc Scratch
	for b.Loop() {
		normalise(&sc, statement100, env, 7)
	}
}

func BenchmarkCacheHit(b *testing.B) {
	r := newTestRouter(b, DefaultConfig())
	env := &Env{ID: 1, StdStrings: true}
	b.ReportAllocs()
	var failed atomic.Int32
	b.RunParallel(func(pb *testing.PB) {
		var sc Scratch
		for pb.Next() {
			if _, err := r.Template(nil, env, statement100, &sc); err != nil {
				failed.Add(1)
			}
		}
	})
	if failed.Load() > 0 {
		b.Error("a statement failed")
	}
}

func BenchmarkGuard100Bytes(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if err := guard(statement100, true, 2000); err != nil {
			b.Fatal(err)
		}
	}
}
