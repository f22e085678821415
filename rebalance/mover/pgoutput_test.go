package mover

import (
	"encoding/binary"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// message writes what the reader reads.
type message []byte

func (m message) u16(v int) message     { return binary.BigEndian.AppendUint16(m, uint16(v)) }
func (m message) u32(v int) message     { return binary.BigEndian.AppendUint32(m, uint32(v)) }
func (m message) u64(v int) message     { return binary.BigEndian.AppendUint64(m, uint64(v)) }
func (m message) text(s string) message { return append(append(m, s...), 0) }
func (m message) str(s string) message  { return append(append(m, 't').u32(len(s)), s...) }

var messages = map[string]struct {
	data message
	want any
}{
	"begin":  {message("B").u64(0x123).u64(7).u32(99), beginMessage{commitLSN: 0x123, xid: 99}},
	"commit": {message("C\x00").u64(0x123).u64(0x456).u64(7), commitMessage{0x456}},
	"relation": {
		append(message("R").u32(5).text("").text("pg"), 'd').u16(1).add(1).text("a b").u32(23).u32(-1),
		relationMessage{relation: 5, schema: "pg_catalog", name: "pg", columns: []relationColumn{{name: "a b", typeOID: 23, identity: true}}},
	},
	"insert": {message("I").u32(5).add('N').u16(2).str("x").add('n'), rowMessage{kind: 'I', relation: 5, new: []datum{{value: []byte("x")}, {}}}},
	"update": {
		message("U").u32(5).add('K').u16(1).str("k").add('N').u16(2).str("").add('u'),
		rowMessage{kind: 'U', relation: 5, oldKind: 'K', old: []datum{{value: []byte("k")}}, new: []datum{{value: []byte{}}, {unchanged: true}}},
	},
	"delete":   {message("D").u32(5).add('O').u16(1).str("k"), rowMessage{kind: 'D', relation: 5, oldKind: 'O', old: []datum{{value: []byte("k")}}}},
	"truncate": {message("T").u32(2).add(3).u32(5).u32(6), truncateMessage{[]uint32{5, 6}}},
	"logical":  {append(message("M\x01").u64(9).text("p").u32(2), "cc"...), logicalMessage{[]byte("p"), []byte("cc")}},
}

func (m message) add(b byte) message { return append(m, b) }

func TestDecode(t *testing.T) {
	for name, c := range messages {
		if got, err := decode(c.data); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		for n := range c.data {
			if _, err := decode(c.data[:n]); err == nil && !(name == "commit" || name == "truncate") {
				t.Errorf("%s: %d of %d bytes are taken for all", name, n, len(c.data))
			}
		}
	}
	for _, ignored := range []string{"Y", "Oxx"} {
		if got, err := decode([]byte(ignored)); got != nil || err != nil {
			t.Errorf("%q: %v, %v", ignored, got, err)
		}
	}
	if _, err := decode([]byte("S")); err == nil {
		t.Error("an unknown message is no error")
	}
}

// FuzzDecode: nothing that a server could send makes it panic.
func FuzzDecode(f *testing.F) {
	for _, c := range messages {
		f.Add([]byte(c.data))
	}
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = decode(data) })
}

func TestLSN(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := LSN(rapid.Uint64().Draw(t, "lsn"))
		if got, err := ParseLSN(l.String()); err != nil || got != l {
			t.Fatalf("%s is read as %s, %v", l, got, err)
		}
	})
	for _, bad := range []string{"", "1", "1/", "/1", "x/1", "1/100000000"} {
		if _, err := ParseLSN(bad); err == nil {
			t.Errorf("%q is an LSN", bad)
		}
	}
}
