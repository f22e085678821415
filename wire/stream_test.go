package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// pieces is a connection that gives its bytes in pieces of the given sizes, again and again.
type pieces struct {
	net.Conn
	data  []byte
	sizes []int
	i     int
	wrote bytes.Buffer
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := min(max(1, p.sizes[p.i%len(p.sizes)]), len(p.data), len(b))
	p.i++
	copy(b, p.data[:n])
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error) { return p.wrote.Write(b) }

func testMessage(typ byte, size int) []byte {
	m := AppendHead(nil, typ, size)
	for i := range size {
		m = append(m, byte(i*31+int(typ)))
	}
	return m
}

// Whatever the sizes of reads and messages are, every byte arrives once and in order, by each way of reading.
func TestStreamPassesAllBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var data []byte
		var stopped int
		count := rapid.IntRange(0, 30).Draw(t, "messages")
		for range count {
			typ := rapid.SampledFrom([]byte("DDDDTZCE")).Draw(t, "type")
			size := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 3*smallBuffer)).Draw(t, "size")
			data = append(data, testMessage(typ, size)...)
			if typ == 'Z' || typ == 'E' {
				stopped++
			}
		}
		sizes := rapid.SliceOfN(rapid.IntRange(1, 40_000), 1, 5).Draw(t, "reads")
		src := NewStream(&pieces{data: data, sizes: sizes})
		sink := &pieces{}
		dst := NewStream(sink)
		seen := 0
		for {
			typ, err := src.Forward(dst, TypesOf("ZE"))
			if err == io.ErrUnexpectedEOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if typ != 'Z' && typ != 'E' {
				t.Fatalf("stopped at %q", typ)
			}
			seen++
			switch seen % 3 {
			case 0:
				m, err := src.Next(1 << 20)
				if err != nil {
					t.Fatal(err)
				}
				dst.Write(m)
			case 1:
				head, err := src.Peek(5)
				if err != nil {
					t.Fatal(err)
				}
				dst.Write(head)
				src.Skip(5)
				if err := src.ForwardBody(dst); err != nil {
					t.Fatal(err)
				}
			default:
				head, err := src.Peek(9)
				if err != nil {
					t.Fatal(err)
				}
				dst.Write(head)
				src.Skip(len(head))
				for {
					p, err := src.Chunk()
					if err != nil {
						t.Fatal(err)
					}
					if p == nil {
						break
					}
					dst.Write(p)
				}
			}
		}
		if err := dst.Flush(); err != nil {
			t.Fatal(err)
		}
		if seen != stopped {
			t.Fatalf("stopped %d times, want %d", seen, stopped)
		}
		if !bytes.Equal(sink.wrote.Bytes(), data) {
			t.Fatalf("%d bytes arrived of %d, or others", sink.wrote.Len(), len(data))
		}
	})
}

func TestStreamErrors(t *testing.T) {
	read := func(data string) *Stream { return NewStream(&pieces{data: []byte(data), sizes: []int{3}}) }
	if _, _, err := read("").Head(); err != io.EOF {
		t.Errorf("an end between messages: %v", err)
	}
	if _, _, err := read("Q\x00\x00").Head(); err != io.ErrUnexpectedEOF {
		t.Errorf("an end within a head: %v", err)
	}
	if _, err := read("Q\x00\x00\x00\x09ab").Next(100); err != io.ErrUnexpectedEOF {
		t.Errorf("an end within a body: %v", err)
	}
	if _, _, err := read("Q\x00\x00\x00\x03ab").Head(); !errors.Is(err, ErrMalformed) {
		t.Errorf("a length below 4: %v", err)
	}
	if _, _, err := read("Q\xff\x00\x00\x03ab").Head(); !errors.Is(err, ErrMalformed) {
		t.Errorf("a negative length: %v", err)
	}
	if _, err := read("Q\x00\x00\x00\x09abcde").Next(4); !errors.Is(err, ErrTooLong) {
		t.Errorf("a body above the limit: %v", err)
	}
	if _, err := read("D\x00\x00\x00\x02").Forward(nil, TypesOf("Z")); !errors.Is(err, ErrMalformed) {
		t.Errorf("Forward of a length below 4: %v", err)
	}
}

// A broken writer must be told apart from a broken reader.
func TestForwardTellsSidesApart(t *testing.T) {
	a, b := tcpPair(t)
	_ = a.Close()
	src := NewStream(&pieces{data: bytes.Repeat(testMessage('D', 100_000), 200), sizes: []int{100_000}})
	var w *WriteError
	if _, err := src.Forward(NewStream(b), TypesOf("Z")); !errors.As(err, &w) {
		t.Errorf("a closed client: %v", err)
	}
}

// An idle stream holds no buffer while it waits.
func TestIdleStreamHoldsNothing(t *testing.T) {
	a, b := tcpPair(t)
	s := NewStream(b)
	for range 3 {
		go func() { _, _ = a.Write(testMessage('Q', 10)) }()
		if _, err := s.Next(100); err != nil {
			t.Fatal(err)
		}
		s.Write(testMessage('Z', 1))
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		s.Rest()
		if s.buf != nil || s.out != nil {
			t.Fatal("an idle stream has buffers")
		}
	}
}

// One round trip through a stream does not allocate.
func TestStreamDoesNotAllocate(t *testing.T) {
	a, b := tcpPair(t)
	s := NewStream(b)
	query, answer := testMessage('Q', 50), make([]byte, 100)
	round := func() {
		if _, err := a.Write(query); err != nil {
			t.Fatal(err)
		}
		m, err := s.Next(1000)
		if err != nil {
			t.Fatal(err)
		}
		s.Write(m)
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		s.Rest()
		if _, err := io.ReadFull(a, answer[:len(query)]); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if n := testing.AllocsPerRun(200, round); n > 0.5 { // sync.Pool may be emptied in between
		t.Errorf("%v allocations a round", n)
	}
}

func TestBindParams(t *testing.T) {
	body := []byte("portal\x00stmt\x00\x00\x02\x00\x01\x00\x00\x00\x02" + "\x00\x00\x00\x02hi" + "\xff\xff\xff\xff" + "\x00\x01\x00\x01")
	b, err := ParseBind(body)
	if err != nil {
		t.Fatal(err)
	}
	b.Types = []byte{0, 0, 0, 20}
	if b.Portal != "portal" || b.Statement != "stmt" || b.Count() != 2 || b.ParamType(0) != 20 || b.ParamType(1) != 0 {
		t.Errorf("%+v", b)
	}
	v, bin, null, ok := b.Param(0)
	if string(v) != "hi" || !bin || null || !ok {
		t.Errorf("parameter 1: %q %v %v %v", v, bin, null, ok)
	}
	if v, bin, null, ok = b.Param(1); len(v) != 0 || bin || !null || !ok {
		t.Errorf("parameter 2: %q %v %v %v", v, bin, null, ok)
	}
	if _, _, _, ok = b.Param(2); ok || b.Missed {
		t.Errorf("parameter 3 of two: %v, missed %v", ok, b.Missed)
	}
	rest, err := b.Subset(nil, []int{1, 0})
	if err != nil {
		t.Fatal(err)
	}
	swapped, err := ParseBind(append([]byte("\x00\x00"), rest...))
	if err != nil {
		t.Fatal(err)
	}
	if v, bin, _, _ := swapped.Param(1); string(v) != "hi" || !bin {
		t.Errorf("parameter 1 as the second of a subset: %q %v", v, bin)
	}
	if f, ok := swapped.ResultFormats(); !ok || !bytes.Equal(f, []byte{0, 1, 0, 1}) {
		t.Errorf("result formats %v", f)
	}
	part, err := ParseBind(body[:len("portal\x00stmt\x00")+11])
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, ok := part.Param(0); ok || !part.Missed {
		t.Errorf("a parameter behind the bytes at hand: %v, missed %v", ok, part.Missed)
	}
}

func TestSplitTag(t *testing.T) {
	for _, test := range []struct {
		tag, verb string
		rows      int64
		counted   bool
	}{
		{"SELECT 3", "SELECT", 3, true},
		{"INSERT 0 12", "INSERT 0", 12, true},
		{"BEGIN", "BEGIN", 0, false},
		{"CREATE TABLE", "CREATE TABLE", 0, false},
		{"", "", 0, false},
		{"COPY 0", "COPY", 0, true},
	} {
		verb, rows, counted := SplitTag(test.tag)
		if verb != test.verb || rows != test.rows || counted != test.counted {
			t.Errorf("SplitTag(%q) = %q, %d, %v", test.tag, verb, rows, counted)
		}
	}
}

// FuzzStream reads garbage in random pieces: it must end with an error, never hang, panic or hold more than asked.
func FuzzStream(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x0dSELECT 1\x00X\x00\x00\x00\x04"), uint64(1))
	f.Add([]byte("B\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x00S\x00\x00\x00\x04"), uint64(2))
	f.Add([]byte(strings.Repeat("D\x00\x00\x00\x06ab", 50)), uint64(3))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		s := NewStream(&pieces{data: bytes.Clone(data), sizes: []int{1 + r.IntN(20), 1 + r.IntN(300)}})
		for range len(data) + 1 {
			typ, _, err := s.Head()
			if err != nil {
				return
			}
			m, err := s.Next(1 << 16)
			if err != nil {
				return
			}
			switch typ {
			case 'Q':
				_, _ = QueryText(m[5:])
			case 'P':
				_, _ = ParseParse(m[5:])
			case 'D':
				_, _ = DataRow(m[5:])
			case 'B':
				if b, err := ParseBind(m[5:]); err == nil {
					for i := range min(b.Count(), 100) {
						_, _, _, _ = b.Param(i)
					}
					_, _ = b.Subset(nil, []int{0})
				}
			}
		}
		t.Fatal("more messages than bytes")
	})
}
