package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// both opens a differ over fresh sessions of the simple protocol.
func both(t *testing.T, run func(*session, *entry) *transcript) *differ {
	t.Helper()
	return &differ{t: t, plain: connect(t, plainDSN), proxy: connect(t, proxyDSN), run: run}
}

// TestLongStatements sends statements that are long in every way that applications make them long.
func TestLongStatements(t *testing.T) {
	list := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, ", "+format, i)
		}
		return b.String()[2:]
	}
	statements := []string{
		"DROP TABLE IF EXISTS long_t",
		"CREATE TABLE long_t (user_id bigint PRIMARY KEY, t text)",
		"INSERT INTO long_t VALUES " + list(5000, "(%d, 'row')"),
		"INSERT INTO long_t VALUES (10000, '" + strings.Repeat("it''s long; ", 30_000) + "')",
		"INSERT INTO long_t VALUES (10001, $$" + strings.Repeat("dollar ' \" ; -- /* ", 30_000) + "$$)",
		"SELECT length(t), md5(t) FROM long_t WHERE user_id = 10000",
		"SELECT length(t), md5(t) FROM long_t WHERE user_id = 10001",
		"SELECT user_id FROM long_t WHERE user_id IN (" + list(3000, "%d") + ")",
		"SELECT user_id FROM long_t WHERE user_id = ANY ('{" + list(6000, "%d") + "}')",
		"SELECT user_id FROM long_t WHERE user_id = 7 AND t IN (" + list(3000, "'t%d'") + ", 'row')",
		"SELECT user_id /* " + strings.Repeat("a comment ", 50_000) + " */ FROM long_t WHERE user_id = 8",
		"SELECT user_id FROM long_t WHERE" + strings.Repeat(" \n\t", 100_000) + "user_id = 9",
		"SELECT " + list(1600, "%d AS column_number_%[1]d") + " FROM long_t WHERE user_id = 9",
		"SELECT " + list(1700, "%d") + " FROM long_t WHERE user_id = 9",
		"UPDATE long_t SET t = CASE user_id " + strings.ReplaceAll(list(900, "WHEN %d THEN 'x'"), ",", "") + " END WHERE user_id = 10",
		"SELECT t FROM long_t WHERE user_id = 10",
		"SELECT 1" + strings.Repeat("; SELECT 1", 2000),
		"DROP TABLE long_t",
	}
	for _, run := range []func(*session, *entry) *transcript{(*session).simple, (*session).extended} {
		d := both(t, run)
		for i, sql := range statements {
			d.compare(&entry{file: "long", line: i, sql: sql, expect: "equal"})
		}
	}
}

// TestRandomTransactions compares a seeded mix of transactions over many keys: writes that succeed and that
// fail, savepoints, rollbacks, and reads of one key, several keys and all.
func TestRandomTransactions(t *testing.T) {
	const seed, transactions, keys = 8816678312871386365, 150, 24
	random := rand.New(rand.NewPCG(seed, 0))
	key := func() int { return random.IntN(keys) }
	statement := func() string {
		switch random.IntN(12) {
		case 0, 1:
			return fmt.Sprintf("INSERT INTO mix VALUES (%d, %d)", key(), random.IntN(100))
		case 2:
			return fmt.Sprintf("INSERT INTO mix VALUES (%d, 1), (%d, 2), (%d, 3) ON CONFLICT (user_id) DO NOTHING", key(), key()+keys, key()+2*keys)
		case 3:
			return fmt.Sprintf("INSERT INTO mix VALUES (%d, 1) ON CONFLICT (user_id) DO UPDATE SET n = mix.n + 1 RETURNING n", key())
		case 4, 5:
			return fmt.Sprintf("UPDATE mix SET n = n + %d WHERE user_id = %d RETURNING n", random.IntN(20), key())
		case 6:
			if random.IntN(2) == 0 {
				return fmt.Sprintf("UPDATE mix SET n = n - 5 WHERE user_id = %d", key()) // n >= 0 may be violated
			}
			return fmt.Sprintf("UPDATE mix SET n = n + 5 WHERE user_id IN (%d, %d, %d)", key(), key(), key())
		case 7:
			return fmt.Sprintf("DELETE FROM mix WHERE user_id IN (%d, %d)", key(), key()+keys)
		case 8:
			return fmt.Sprintf("SELECT n FROM mix WHERE user_id = %d", key())
		case 9:
			return fmt.Sprintf("SELECT user_id, n FROM mix WHERE user_id = ANY ('{%d,%d,%d}')", key(), key(), key())
		case 10:
			return "SELECT user_id, n FROM mix"
		default:
			return fmt.Sprintf("SELECT 10 / n FROM mix WHERE user_id = %d", key()) // n may be 0
		}
	}
	script := []string{"DROP TABLE IF EXISTS mix", "CREATE TABLE mix (user_id bigint PRIMARY KEY, n int CHECK (n >= 0))"}
	for range transactions {
		if random.IntN(3) == 0 {
			script = append(script, statement())
			continue
		}
		script = append(script, "BEGIN")
		for range 1 + random.IntN(6) {
			switch random.IntN(6) {
			case 0:
				script = append(script, fmt.Sprintf("SAVEPOINT s%d", random.IntN(3)))
			case 1:
				script = append(script, fmt.Sprintf("ROLLBACK TO s%d", random.IntN(3)))
			case 2:
				script = append(script, fmt.Sprintf("RELEASE s%d", random.IntN(3)))
			}
			script = append(script, statement())
		}
		script = append(script, []string{"COMMIT", "COMMIT", "ROLLBACK"}[random.IntN(3)], "SELECT user_id, n FROM mix")
	}
	script = append(script, "DROP TABLE mix")

	d := both(t, (*session).simple)
	for i, sql := range script {
		d.run = variants[i%len(variants)].run
		if !d.compare(&entry{file: "seed " + fmt.Sprint(uint64(seed)), line: i, sql: sql, expect: "equal"}) {
			return
		}
	}
}
