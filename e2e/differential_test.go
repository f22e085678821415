package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	statementsMin   = 1700 // the corpus may only grow
	differencesShow = 12   // a first difference makes others
)

// variants are the ways in which a driver may send one statement.
var variants = []struct {
	name string
	run  func(*session, *entry) *transcript
	only func(*entry) bool
}{
	{"simple", (*session).simple, func(*entry) bool { return true }},
	{"extended text", (*session).extended, func(e *entry) bool { return !e.simple }},
	{"prepared binary", (*session).prepared, func(e *entry) bool { return !e.simple }},
}

// TestDifferential sends every statement of the corpus to one plain PostgreSQL and to the proxy with its
// shards. Each must be answered alike, or be refused where the corpus says so. A file is run from its
// beginning in every variant, so it must clean up what it made.
func TestDifferential(t *testing.T) {
	paths, err := filepath.Glob("corpus/*.sql")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	total := 0
	expected := map[string]int{}
	for _, path := range paths {
		entries := readCorpus(t, path)
		total += len(entries)
		for _, e := range entries {
			expected[e.expect]++
		}
		t.Run(strings.TrimSuffix(filepath.Base(path), ".sql"), func(t *testing.T) {
			for _, v := range variants {
				t.Run(v.name, func(t *testing.T) {
					d := &differ{t: t, plain: connect(t, plainDSN), proxy: connect(t, proxyDSN), run: v.run}
					for _, e := range entries {
						if v.only(e) && !d.compare(e) {
							return
						}
					}
				})
			}
		})
	}
	t.Logf("%d statements: %d must be equal, %d must be refused (%.1f%%), %d may be either", total, expected["equal"],
		expected["refused"], 100*float64(expected["refused"])/float64(max(total, 1)), expected["either"])
	if total < statementsMin {
		t.Errorf("the corpus has %d statements, at least %d are wanted", total, statementsMin)
	}
}

// differ runs entries on both servers and compares.
type differ struct {
	t            *testing.T
	plain, proxy *session
	run          func(*session, *entry) *transcript
	differences  int
}

// compare is false when it makes no sense to go on.
func (d *differ) compare(e *entry) bool {
	if e.expect == "refused" && cluster == nil { // PostgreSQL refuses nothing: only hold that the corpus makes sense
		d.undone(d.plain, e)
		d.undone(d.proxy, e)
		return d.resume()
	}
	got := d.run(d.proxy, e)
	if line, refused := got.refusal(); refused && e.expect == "either" {
		d.checkRefusal(e, line)
		return true
	}
	if e.expect == "refused" {
		line, refused := got.refusal()
		if !refused {
			d.report(e, "is to be refused, but was answered:\n"+strings.Join(got.lines, "\n"))
		}
		d.checkRefusal(e, line)
		d.undone(d.plain, e)
		return d.resume()
	}
	want := d.run(d.plain, e)
	if diff := cmp.Diff(want.lines, got.lines); diff != "" {
		d.report(e, "(-plain +proxy)\n"+diff)
	}
	return d.resume()
}

// checkRefusal holds that a refusal names the next step.
func (d *differ) checkRefusal(e *entry, line string) {
	if strings.Contains(line, `hint=""`) {
		d.report(e, "is refused without a hint: "+line)
	}
}

// undone runs e on a plain server, where it must succeed (a statement that is wrong proves nothing), and
// takes it back. A transaction is failed afterwards, as the proxy's is.
func (d *differ) undone(s *session, e *entry) {
	begin, end := "BEGIN", "ROLLBACK"
	if s.tx == 'T' {
		begin, end = "SAVEPOINT e2e_refused", "ROLLBACK TO e2e_refused"
	}
	s.must(d.t, begin)
	if line, failed := s.simple(e).failed(); failed {
		d.report(e, "is refused by the proxy, but PostgreSQL has an error too: "+line)
	}
	s.must(d.t, end)
	if s.tx == 'T' {
		s.simple(&entry{sql: "SELECT 1/0"})
	}
}

// resume brings two sessions back together whose transactions differ after a difference.
func (d *differ) resume() bool {
	if d.plain.tx == 0 || d.proxy.tx == 0 {
		return false
	}
	if d.plain.tx != d.proxy.tx {
		d.plain.simple(&entry{sql: "ROLLBACK"})
		d.proxy.simple(&entry{sql: "ROLLBACK"})
	}
	return d.differences < differencesShow
}

func (d *differ) report(e *entry, what string) {
	d.t.Helper()
	d.differences++
	d.t.Errorf("%v:\n%s\n%s", e, abridge(e.sql), what)
}

// abridge shortens a long statement for a message.
func abridge(sql string) string {
	if len(sql) > 2000 {
		return sql[:2000] + "…"
	}
	return sql
}
