package e2e

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPsqlAndPgDump compares what psql's backslash commands and pg_dump print. They put OIDs of one answer in
// the next question, so all of a client's catalog queries must meet one shard.
func TestPsqlAndPgDump(t *testing.T) {
	for _, program := range []string{"psql", "pg_dump"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	setup := []string{
		"DROP TABLE IF EXISTS client_t, client_r CASCADE",
		"CREATE TABLE client_r (id int PRIMARY KEY, label varchar(20) NOT NULL DEFAULT 'none')",
		"CREATE TABLE client_t (user_id bigint NOT NULL, id int, ref int REFERENCES client_r, price numeric(8,2) CHECK (price > 0), tags text[], PRIMARY KEY (user_id, id))",
		"CREATE INDEX client_t_lower ON client_t (lower(tags[1])) WHERE price > 5",
		"CREATE VIEW client_v AS SELECT user_id, price FROM client_t",
		"COMMENT ON TABLE client_t IS 'a comment'",
		"INSERT INTO client_r VALUES (1, 'one')",
		"INSERT INTO client_t VALUES (1, 1, 1, 9.99, '{a,b}'), (2, 1, NULL, 3, NULL)",
	}
	for _, dsn := range []string{plainDSN, proxyDSN} {
		s := connect(t, dsn)
		for _, sql := range setup {
			s.must(t, sql)
		}
		defer s.must(t, "DROP TABLE client_t, client_r CASCADE")
	}
	for _, args := range [][]string{
		{"psql", "-c", `\d client_t`},
		{"psql", "-c", `\d+ client_t`},
		{"psql", "-c", `\d client_v`},
		{"psql", "-c", `\dt client*`},
		{"psql", "-c", `\di client*`},
		{"psql", "-c", `\dv client*`},
		{"psql", "-c", `\df pg_catalog.lower`},
		{"psql", "-c", `\dn public`},
		{"psql", "-c", `\dT pg_catalog.int4`},
		{"psql", "-c", `\x`, "-c", "SELECT * FROM client_t WHERE user_id = 1"},
		{"psql", "-c", `SELECT price FROM client_t WHERE user_id = 1 \gdesc`},
		{"psql", "-c", `SELECT nosuch FROM client_t WHERE user_id = 1`},
		{"psql", "-1", "-c", "INSERT INTO client_t VALUES (50, 1)", "-c", "SELECT 1/0"},
		{"psql", "-c", "SELECT count(*) FROM client_t WHERE user_id = 50"},
		{"psql", "-v", "FETCH_COUNT=1", "-c", "SELECT id FROM client_t WHERE user_id = 1"},
		{"psql", "-c", `\copy client_r to stdout csv`},
		{"psql", "-c", `\copy (select label from client_r) to stdout`},
		{"pg_dump", "--schema-only", "-t", "client_*"},
		{"pg_dump", "--data-only", "-t", "client_v", "-t", "client_r"},
		{"pg_dump", "--data-only", "--inserts", "-t", "client_r"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			plain, proxied := output(t, plainDSN, args), output(t, proxyDSN, args)
			if diff := cmp.Diff(plain, proxied); diff != "" {
				t.Errorf("(-plain +proxy)\n%s", diff)
			}
		})
	}
}

// volatile is what differs between any two runs of pg_dump, and the fences, which only shards have.
var volatile = regexp.MustCompile(`(?m)^\\(un)?restrict .*\n|^Triggers:\n(    shardproxy_.*\n)+|^--\n-- Name: \w+ shardproxy_\w+; Type: TRIGGER; .*\n--\n\nCREATE TRIGGER .*\n\n\n`)

// output runs a client program and gives what it prints, and whether it failed.
func output(t *testing.T, dsn string, args []string) []string {
	t.Helper()
	command := []string{"-d", dsn}
	if args[0] == "psql" {
		command = append(command, "-X")
	}
	cmd := exec.CommandContext(t.Context(), args[0], append(command, args[1:]...)...)
	out, err := cmd.CombinedOutput()
	lines := strings.Split(volatile.ReplaceAllString(string(out), ""), "\n")
	if err != nil {
		lines = append(lines, err.Error())
	}
	return lines
}
