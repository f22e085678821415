package e2e

import (
	"bytes"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
)

// copyOut gives all that a COPY TO STDOUT sends.
func copyOut(t testing.TB, dsn, sql string) []byte {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var out bytes.Buffer
	if _, err := conn.CopyTo(t.Context(), &out, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out.Bytes()
}

// TestCopyBinary brings rows in by COPY's binary format, whole and in ever smaller pieces, and damaged,
// and compares with plain PostgreSQL.
func TestCopyBinary(t *testing.T) {
	const columns = "user_id bigint, t text, f float8, a int[], d date"
	rows := copyOut(t, plainDSN, `COPY (SELECT (g - 20)::bigint, CASE WHEN g % 3 > 0 THEN repeat('ü' || g, g) END,
		g / 7::float8, ARRAY[g, NULL, -g], DATE '2024-02-29' + g FROM generate_series(1, 60) g) TO STDOUT (FORMAT binary)`)
	damaged := func(change func([]byte) []byte) []byte { return change(slices.Clone(rows)) }
	for name, data := range map[string][]byte{
		"whole":            rows,
		"without its end":  rows[:len(rows)-2],
		"cut in a row":     rows[:len(rows)/2],
		"cut in the head":  rows[:10],
		"empty":            nil,
		"no signature":     damaged(func(b []byte) []byte { b[0] = 'X'; return b }),
		"flags unknown":    damaged(func(b []byte) []byte { b[12] = 1; return b }),
		"too many columns": damaged(func(b []byte) []byte { b[20] = 9; return b }),
		"negative length":  damaged(func(b []byte) []byte { b[21] = 0xfe; return b }),
		"bad key length":   damaged(func(b []byte) []byte { b[24] = 7; return b }),
		"behind the end":   append(slices.Clone(rows), "more"...),
	} {
		t.Run(name, func(t *testing.T) {
			var said, table [2][]string
			for i, dsn := range []string{plainDSN, proxyDSN} {
				s := connect(t, dsn)
				s.must(t, "DROP TABLE IF EXISTS copy_binary")
				s.mustf(t, "CREATE TABLE copy_binary (%s)", columns)
				said[i] = s.simple(&entry{sql: "COPY copy_binary FROM STDIN (FORMAT binary)", data: data, hasData: true}).lines
				table[i] = s.must(t, "SELECT * FROM copy_binary").lines
				s.must(t, "DROP TABLE copy_binary")
			}
			if diff := cmp.Diff(said[0], said[1]); diff != "" {
				t.Errorf("answers (-plain +proxy)\n%s", diff)
			}
			if diff := cmp.Diff(table[0], table[1]); diff != "" {
				t.Errorf("rows (-plain +proxy)\n%s", diff)
			}
		})
	}
}
