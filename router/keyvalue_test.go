package router

import (
	"math"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

func TestHashLiteral(t *testing.T) {
	const i, x, u = topology.KeyInt, topology.KeyText, topology.KeyUUID
	ok := topology.HashInt
	var zero [16]byte
	for _, c := range []struct {
		kt    topology.KeyType
		text  string
		minus bool
		state keyState
		hash  topology.KeyHash
	}{
		{i, "42", false, keyOK, ok(42)},
		{i, "42", true, keyOK, ok(-42)},
		{i, "007", false, keyOK, ok(7)},
		{i, "9223372036854775807", false, keyOK, ok(math.MaxInt64)},
		{i, "9223372036854775808", false, keyUnknown, 0},
		{i, "9223372036854775808", true, keyOK, ok(math.MinInt64)},
		{i, "9223372036854775809", true, keyUnknown, 0},
		{i, "42.0", false, keyUnknown, 0},
		{i, "1e3", false, keyUnknown, 0},
		{i, "'42'", false, keyOK, ok(42)},
		{i, "'42'", true, keyUnknown, 0},
		{i, "' -42\t'", false, keyOK, ok(-42)},
		{i, `E'\x34\62'`, false, keyOK, ok(42)},
		{i, "$$42$$", false, keyOK, ok(42)},
		{i, "'4'\n'2'", false, keyOK, ok(42)},
		{i, "'x'", false, keyBadInput, 0},
		{i, "'0x2A'", false, keyUnknown, 0},
		{i, "N'42'", false, keyUnknown, 0},
		{i, "B'1'", false, keyUnknown, 0},
		{i, "X'1'", false, keyUnknown, 0},
		{i, "U&'42'", false, keyUnknown, 0},
		{i, `E'\0'`, false, keyUnknown, 0},
		{x, "'it''s'", false, keyOK, topology.HashText("it's")},
		{x, "''", false, keyOK, topology.HashText("")},
		{x, "42", false, keyUnknown, 0},
		{u, "'00000000-0000-0000-0000-000000000000'", false, keyOK, topology.HashUUID(zero)},
		{u, "'nil'", false, keyBadInput, 0},
		{u, "42", false, keyUnknown, 0},
		{topology.KeyNone, "'x'", false, keyUnknown, 0},
	} {
		sql, l := literalOf(t, c.text)
		hash, state := hashLiteral(c.kt, sql, l, c.minus, 0)
		if state != c.state || hash != c.hash {
			t.Errorf("key type %d, %s (minus %v): %x, %d, want %x, %d", c.kt, c.text, c.minus, hash, state, c.hash, c.state)
		}
		if n := testing.AllocsPerRun(10, func() { hashLiteral(c.kt, sql, l, c.minus, 0) }); n != 0 {
			t.Errorf("key type %d, %s: %v allocations", c.kt, c.text, n)
		}
	}
}

func TestHashParam(t *testing.T) {
	const i, x, u = topology.KeyInt, topology.KeyText, topology.KeyUUID
	id := [16]byte{1, 2, 3, 15: 9}
	for _, c := range []struct {
		kt     topology.KeyType
		value  string
		binary bool
		oid    uint32
		state  keyState
		hash   topology.KeyHash
	}{
		{i, "42", false, 0, keyOK, topology.HashInt(42)},
		{i, "42", false, oidInt4, keyOK, topology.HashInt(42)},
		{i, " 42 ", false, oidInt8, keyOK, topology.HashInt(42)},
		{i, "4x", false, oidInt8, keyUnknown, 0},
		{i, "x", false, oidInt8, keyBadInput, 0},
		{i, "42", false, oidText, keyUnknown, 0},
		{i, "42", false, 1700, keyUnknown, 0}, // numeric
		{i, "42", false, 26, keyUnknown, 0},   // oid: unsigned
		{i, "\xff\xfe", true, oidInt2, keyOK, topology.HashInt(-2)},
		{i, "\xff\xff\xff\xfe", true, oidInt4, keyOK, topology.HashInt(-2)},
		{i, "\xff\xff\xff\xff\xff\xff\xff\xfe", true, oidInt8, keyOK, topology.HashInt(-2)},
		{i, "\x00\x00\x00\x07", true, 0, keyOK, topology.HashInt(7)},
		{i, "\x00\x00\x00\x07", true, oidInt8, keyBadInput, 0},
		{i, "\x00\x00\x07", true, 0, keyBadInput, 0},
		{i, "", true, oidInt4, keyBadInput, 0},
		{x, "abc", false, 0, keyOK, topology.HashText("abc")},
		{x, "abc", true, oidText, keyOK, topology.HashText("abc")},
		{x, "abc ", true, oidVarchar, keyOK, topology.HashText("abc ")},
		{x, "abc", false, 1042, keyUnknown, 0}, // bpchar: blanks at the end do not count
		{x, "a\x00", false, oidText, keyBadInput, 0},
		{u, string(id[:]), true, oidUUID, keyOK, topology.HashUUID(id)},
		{u, "01020300-0000-0000-0000-000000000009", false, 0, keyOK, topology.HashUUID(id)},
		{u, string(id[:15]), true, 0, keyBadInput, 0},
		{u, "0102", false, oidUUID, keyBadInput, 0},
		{u, "x", false, oidText, keyUnknown, 0},
	} {
		hash, state := hashParam(c.kt, []byte(c.value), c.binary, c.oid, 0)
		if state != c.state || hash != c.hash {
			t.Errorf("key type %d, %q, binary %v, type %d: %x, %d, want %x, %d", c.kt, c.value, c.binary, c.oid, hash, state, c.hash, c.state)
		}
	}
}

// TestKeyInputAgreesWithServer compares what we read with the input functions of a real server.
func TestKeyInputAgreesWithServer(t *testing.T) {
	s := pgtest.Shared(t)
	conn := s.Connect(t, s.CreateDatabase(t))
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.SliceOfN(rapid.SampledFrom([]string{"0", "1", "9", "42", "922337203685477580", "7", "8", "-", "+", " ", "\t", "\v", "\n", "_", "x", "0x", ".", "e", "\u00a0"}), 0, 5)
		text := strings.Join(digits.Draw(t, "int"), "")
		var v int64
		err := conn.QueryRow(t.Context(), "SELECT $1::text::int8", pgx.QueryExecModeSimpleProtocol, text).Scan(&v)
		switch got, state := parseInt([]byte(text)); {
		case state == keyOK && (err != nil || v != got):
			t.Fatalf("%q is read as %d, by the server as %d, %v", text, got, v, err)
		case state == keyBadInput && err == nil:
			t.Fatalf("%q is refused, the server reads %d", text, v)
		case state == keyUnknown && err == nil && conn.PgConn().ParameterStatus("server_version") < "16":
			t.Fatalf("%q is not known, the server reads %d", text, v)
		}

		hex := rapid.SliceOfN(rapid.SampledFrom([]string{"a0ee", "BC99", "00", "1", "-", "{", "}", " ", "g", "0123456789abcdef0123456789abcdef", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}), 1, 16)
		text = strings.Join(hex.Draw(t, "uuid"), "")
		var id [16]byte
		err = conn.QueryRow(t.Context(), "SELECT $1::text::uuid", pgx.QueryExecModeSimpleProtocol, text).Scan(&id)
		if got, ok := parseUUID([]byte(text)); ok != (err == nil) || ok && got != id {
			t.Fatalf("%q is read as %x, %v, by the server as %x, %v", text, got, ok, id, err)
		}
	})
}
