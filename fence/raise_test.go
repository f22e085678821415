package fence

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRaise holds that only the writers of the given tables are waited for, and that older maps cannot write to any afterwards.
func TestRaise(t *testing.T) {
	s, now, _ := users(t)
	plans := slices.DeleteFunc(s.tables(), func(t Table) bool { return t.Key != "" })
	other, writer := s.session(5), s.session(5)
	s.must(other, "BEGIN; INSERT INTO users VALUES (1)")
	s.must(writer, "BEGIN; INSERT INTO plans VALUES (1)")
	if err := Raise(t.Context(), s.query, 6, plans); !errors.Is(err, ErrBusy) {
		t.Errorf("with a writer: %v", err)
	}
	if diff := cmp.Diff(now, s.read()); diff != "" {
		t.Errorf("something was changed: %s", diff)
	}
	s.must(writer, "COMMIT")
	if err := Raise(t.Context(), s.query, 6, plans); err != nil {
		t.Fatal(err)
	}
	raised := now
	raised.Epoch = 6
	if diff := cmp.Diff(raised, s.read()); diff != "" {
		t.Error(diff)
	}
	if found := s.check(raised); found != nil {
		t.Errorf("%q", found)
	}
	for _, sql := range []string{"INSERT INTO plans VALUES (2)", "INSERT INTO users VALUES (2)"} {
		if got := refusal(s.exec(s.session(5), sql)); got != staleWrite {
			t.Errorf("%s by the older map: %q", sql, got)
		}
		s.must(s.session(6), sql)
	}
	s.must(other, "COMMIT") // what it had written is as right by the later map
	before := s.picture()
	if err := Raise(t.Context(), s.query, 5, plans); err != nil || s.picture() != before {
		t.Errorf("back: %v, %s", err, cmp.Diff(before, s.picture()))
	}
}

func TestRaiseRefuses(t *testing.T) {
	s := newShard(t, "CREATE TABLE plans (id int PRIMARY KEY)")
	if err := Raise(t.Context(), s.query, 6, s.tables()); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("without a fence: %v", err)
	}
	s.install(State{Shard: "s1", Epoch: 5, Owned: all})
	s.must(s.conn, "DROP TRIGGER shardproxy_epoch ON plans")
	var incomplete *IncompleteError
	if err := Raise(t.Context(), s.query, 6, s.tables()); !errors.As(err, &incomplete) {
		t.Errorf("without a trigger: %v", err)
	}
}
