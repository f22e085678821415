package proxy

import (
	"strings"
	"testing"
)

// TestExplain holds that the console and EXPLAIN (SHARDPROXY) of a session say the same, and what that is.
func TestExplain(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	a, b := k.keyOn(0, 0), k.keyOn(1, 0)
	replace := strings.NewReplacer("@a", itoa(a), "@b", itoa(b))
	for _, test := range []struct{ sql, want string }{
		{"SELECT * FROM t WHERE user_id = @b", "Kind: keyed|Shards: s2|Writes: no|Tables: sharded public.t by user_id"},
		{"SELECT * FROM t WHERE user_id IN (@a, @b)", "Kind: keyed|Shards: s1, s2|Merge: rows of one shard after those of another|Writes: no|Tables: sharded public.t by user_id"},
		{"SELECT * FROM t WHERE user_id = $1", "Kind: keyed|Shards: depends on parameter 1|Writes: no|Tables: sharded public.t by user_id"},
		{"SELECT * FROM t WHERE user_id IN ($2, $1)", "Kind: keyed|Shards: depends on parameters 1 and 2|Writes: no|Tables: sharded public.t by user_id"},
		{
			"SELECT max(v) FROM t",
			"Kind: scatter|Shards: s1, s2, s3|Merge: s1 does the last step over groups with partial aggregates, which the others give it|" +
				"SQL: SELECT max(v) AS shardproxy_c1_ FROM t|Last step: SELECT pg_catalog.max(shardproxy_rows.shardproxy_c1_) AS max FROM pulled shardproxy_rows|" +
				"Writes: no|Tables: sharded public.t by user_id",
		},
		{"DELETE FROM t", "Kind: scatter|Shards: s1, s2, s3|Merge: counts are added up|Writes: yes|Tables: sharded public.t by user_id"},
		{"UPDATE r SET v = ''", "Kind: all|Shards: s1, s2, s3|Merge: the answer of the first shard, with which the others must agree|Writes: yes|Tables: reference public.r"},
		{"SELECT * FROM r", "Kind: any|Shards: any one|Writes: no|Tables: reference public.r"},
		{
			"INSERT INTO t VALUES (@a, 'x'), (@b, 'y')",
			"Kind: insert|Shards: s1, s2|SQL on s1: INSERT INTO t VALUES (@a, 'x')|SQL on s2: INSERT INTO t VALUES (@b, 'y')|Merge: counts are added up|Writes: yes|Tables: sharded public.t by user_id",
		},
		{"/* shardproxy: shard=s3 */ SELECT count(*) FROM t", "Kind: keyed|Shards: s3|Writes: no|Tables: sharded public.t by user_id"},
	} {
		sql, want := replace.Replace(test.sql), replace.Replace(test.want)
		lines, err := k.srv.Explain(sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		if got := strings.Join(lines, "|"); got != want {
			t.Errorf("%s\n got %s\nwant %s", sql, got, want)
		}
		if strings.Contains(sql, "/*") {
			continue // a hint is of the whole statement
		}
		if got := c.query("EXPLAIN (SHARDPROXY) " + sql); got != "T D:"+strings.ReplaceAll(want, "|", " D:")+" C:EXPLAIN Z:I" {
			t.Errorf("in a session: %s\n got %s\nwant %s", sql, got, want)
		}
	}
	lines, err := k.srv.Explain("SELECT * FROM missing")
	if got := strings.Join(lines, "|"); err != nil || !strings.Contains(got, "Unknown: ") {
		t.Errorf("a table that is not known: %s, %v", got, err)
	}
	lines, err = k.srv.Explain("SELEC 1")
	if got := strings.Join(lines, "|"); err != nil || !strings.Contains(got, "Refused: syntax error") {
		t.Errorf("what is not SQL: %s, %v", got, err)
	}
	if _, err = k.srv.Explain("SELECT " + strings.Repeat("1+", 3000) + "1"); err == nil || err.Code != "54001" {
		t.Errorf("what is too deep: %v", err)
	}
}
