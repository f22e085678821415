package router

import (
	"testing"

	"shardproxy/topology"
)

func TestHint(t *testing.T) {
	uuid := [16]byte{0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11}
	none := topology.KeyHash(0)
	for _, c := range []struct {
		sql  string
		want Hint
		hash topology.KeyHash
	}{
		{"/* shardproxy: key=42 */ SELECT 1", Hint{Present: true, Key: "42"}, topology.HashInt(42)},
		{"/*shardproxy:key=-42*/SELECT 1", Hint{Present: true, Key: "-42"}, topology.HashInt(-42)},
		{"SELECT 1 /* shardproxy: key = '42' */", Hint{Present: true, Key: "42", Quoted: true}, topology.HashText("42")},
		{"SELECT 1 /* shardproxy: key='it''s' */", Hint{Present: true, Key: "it's", Quoted: true}, topology.HashText("it's")},
		{"SELECT 1 /* shardproxy: key=abc */", Hint{Present: true, Key: "abc"}, topology.HashText("abc")},
		{"SELECT 1 /* shardproxy: key=a=b */", Hint{Present: true, Key: "a=b"}, topology.HashText("a=b")},
		{"SELECT 1 /* shardproxy: key=99999999999999999999 */", Hint{Present: true, Key: "99999999999999999999"}, topology.HashText("99999999999999999999")},
		{"SELECT /* shardproxy: key=A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11 */ 1", Hint{Present: true, Key: "A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11"}, topology.HashUUID(uuid)},
		{"SELECT 1\n/* shardproxy: shard=s1 */;", Hint{Present: true, Shard: "s1"}, none},
		{"/* shardproxy: shard=a */ SELECT /* shardproxy: shard=b */ 1", Hint{Present: true, Shard: "a"}, none},
		{"/* other */ SELECT /* shardproxy: shard=b */ 1", Hint{Present: true, Shard: "b"}, none},
		{"/* shardproxy: colour=red */ SELECT 1", Hint{Present: true}, none},
		{"/* shardproxy: key= */ SELECT 1", Hint{Present: true}, none},
		{"SELECT '/* shardproxy: key=1 */', \"/* shardproxy: key=1 */\", $$/* shardproxy: key=1 */$$", Hint{}, none},
		{"-- shardproxy: key=1\nSELECT 1", Hint{}, none},
		{"/* not shardproxy: key=1 */ SELECT 1", Hint{}, none},
		{"/* /* shardproxy: key=1 */ */ SELECT 1", Hint{}, none},
	} {
		var sc Scratch
		normalise(&sc, c.sql, &Env{StdStrings: true}, 0)
		if sc.Hint != c.want {
			t.Errorf("%s has %+v, want %+v", c.sql, sc.Hint, c.want)
		}
		if got := findHint(c.sql, true); got != c.want {
			t.Errorf("findHint finds %+v in %s, want %+v", got, c.sql, c.want)
		}
		if got := sc.Hint.Readable(); got != (c.want.Key != "" || c.want.Shard != "") {
			t.Errorf("%s: readable is %v", c.sql, got)
		}
		if c.hash != none && sc.Hint.Hash() != c.hash {
			t.Errorf("%s hashes to %x, want %x", c.sql, sc.Hint.Hash(), c.hash)
		}
	}
}

func TestHintIsPartOfTheKey(t *testing.T) {
	key := func(sql string) string {
		var sc Scratch
		if !normalise(&sc, sql, &Env{StdStrings: true}, 0) {
			t.Fatalf("%s is not cached", sql)
		}
		return string(sc.key)
	}
	plain := key("SELECT 1")
	a, b := key("/* shardproxy: key=1 */ SELECT 1"), key("/* shardproxy: key=2 */ SELECT 1")
	if a == plain || a == b {
		t.Errorf("keys %q, %q and %q should differ", plain, a, b)
	}
}
