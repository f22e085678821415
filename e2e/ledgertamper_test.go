package e2e

import (
	"strings"
	"testing"
)

// TestBookSees holds that the book is content with what it was told, and sees each way in which rows can be wrong.
func TestBookSees(t *testing.T) {
	const (
		user, other, idle = 1, 9, 17 // of the first writer
		told              = 3        // is a project that was acknowledged, of each user
		gone              = 4        // was deleted, or refused
		unsure            = 5        // may be there
		both              = 6        // of a transaction over user and other, whose outcome was not told
	)
	open := func() *book {
		b := &book{ledgerTest: &ledgerTest{dsns: []string{""}}}
		for i := range bookWriters {
			b.writers = append(b.writers, newBookWriter(b, i))
		}
		w := b.writers[0]
		w.counted[user], w.upserted[project{user, 1}], w.moved[user] = counter{7, 2}, counter{4, 1}, 10
		w.projects[project{user, told}], w.projects[project{user, gone}], w.projects[project{user, unsure}] = present, absent, either
		w.projects[project{user, both}], w.projects[project{other, both}] = either, either
		w.doubtful = []group{{[]project{{user, both}, {other, both}}, map[int64]int64{user: 5, other: -5}}}
		return b
	}
	fill := func() *stored {
		s := newStored()
		for _, keys := range [][2]int64{{1, bookAccounts}, {bookFixed, bookFixed + bookFixedMax - 1}} {
			for k := keys[0]; k <= keys[1]; k++ {
				s.put("users", project{k, 0}, [2]int64{}, 0, 0)
				s.put("projects", project{k, 0}, [2]int64{}, 0, 0)
			}
		}
		s.tables["users"][project{user, 0}] = [2]int64{8, 10}
		s.put("settings", project{user, 1}, [2]int64{4, 0}, 0, 0)
		s.put("projects", project{user, told}, [2]int64{}, 0, 0)
		return s
	}
	set := func(table string, user, id, a, b int64) func(*stored) {
		return func(s *stored) { s.tables[table][project{user, id}] = [2]int64{a, b} }
	}
	lose := func(table string, user, id int64) func(*stored) {
		return func(s *stored) { delete(s.tables[table], project{user, id}) }
	}
	for name, test := range map[string]struct {
		tamper func(*stored)
		want   string // "": nothing is wrong
	}{
		"nothing":              {func(*stored) {}, ""},
		"what nobody was told": {set("projects", user, unsure, 0, 0), ""},
		"a whole transaction": {func(s *stored) {
			set("projects", user, both, 0, 0)(s)
			set("projects", other, both, 0, 0)(s)
			set("users", user, 0, 8, 15)(s)
			set("users", other, 0, 0, -5)(s)
		}, ""},
		"the most that may be":            {set("users", user, 0, 9, 10), ""},
		"a user is lost":                  {lose("users", idle, 0), "user 17 (there: false)"},
		"a user whom nobody changes":      {lose("users", bookFixed+7, 0), "user 1000007, who was never written, has gone"},
		"a project that nobody changes":   {lose("projects", idle, 0), "project 17, which was never written, has gone"},
		"a project is lost":               {lose("projects", user, told), "project {1 3} is there: false"},
		"a project has come back":         {set("projects", user, gone, 0, 0), "project {1 4} is there: true"},
		"a project that nobody made":      {set("projects", user, 77, 0, 0), "project {1 77} is there, which nobody has made"},
		"a user whom nobody made":         {set("users", 5000, 0, 0, 0), "there are 601 users"},
		"an increment is lost":            {set("users", user, 0, 6, 10), "was counted to 6"},
		"an increment is done twice":      {set("users", user, 0, 10, 10), "was counted to 10"},
		"a transaction is lost":           {set("users", user, 0, 8, 9), "by transactions to 9, want 10"},
		"half a transaction":              {func(s *stored) { set("projects", user, both, 0, 0)(s); set("users", user, 0, 8, 15)(s) }, "of a transaction, 1 of projects"},
		"a transaction without its count": {func(s *stored) { set("projects", user, both, 0, 0)(s); set("projects", other, both, 0, 0)(s) }, "by transactions to 10, want 15"},
		"a setting is lost":               {lose("settings", user, 1), "setting {1 1} (there: false)"},
		"a setting is counted twice":      {set("settings", user, 1, 6, 0), "setting {1 1} (there: true) was counted to 6"},
		"a setting that nobody made":      {set("settings", idle, 2, 1, 0), "setting {17 2}"},
		"a row on two shards":             {func(s *stored) { s.put("users", project{idle, 0}, [2]int64{}, 1, 0) }, "users: row {17 0} is there twice"},
		"a row on the wrong shard":        {func(s *stored) { s.put("settings", project{idle, 0}, [2]int64{}, 2, 1) }, "settings: row {17 0} is on shard s3, its owner is s2"},
	} {
		s := fill()
		test.tamper(s)
		got := strings.Join(open().faults(s), "\n")
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: the book sees %q, want %q", name, got, test.want)
		}
	}
}
