package rebalance

import (
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestBlockersOfOtherRoles holds that a lock is seen of a session that one may not look into, such as a VACUUM of a superuser's,
// and a prepared transaction is named.
func TestBlockersOfOtherRoles(t *testing.T) {
	pg := pgtest.Start(t)
	pg.Exec(t, "postgres", `CREATE ROLE service LOGIN; CREATE TABLE users (id bigint PRIMARY KEY); CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER shardproxy_epoch BEFORE INSERT ON users FOR EACH STATEMENT EXECUTE FUNCTION pass()`)
	config := pg.Connect(t, "postgres").Config()
	config.User, config.Password = "service", ""
	s := &side{name: "s1", config: config}
	t.Cleanup(s.close)
	if names, err := s.blockers(t.Context()); err != nil || len(names) != 0 {
		t.Fatalf("of nobody: %q, %v", names, err)
	}
	other := pg.Connect(t, "postgres")
	if _, err := other.Exec(t.Context(), "BEGIN; LOCK TABLE users IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	names, err := s.blockers(t.Context())
	if err != nil || len(names) != 1 || !strings.Contains(names[0], "ShareUpdateExclusiveLock on users") {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := other.Exec(t.Context(), "PREPARE TRANSACTION 'forgotten'"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		names, err := s.blockers(t.Context())
		if err != nil || time.Now().After(end) {
			t.Fatalf("%q, %v", names, err)
		}
		if len(names) == 1 && strings.Contains(names[0], "prepared transaction forgotten, user ") {
			return
		}
	}
}
