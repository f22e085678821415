package main

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
)

func frame(kind byte, body string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))
	return append(b, body...)
}

// Wherever a read cuts the stream, the walker sees the same messages end.
func TestWalkerThroughCuts(t *testing.T) {
	stream := slices.Concat(frame('T', "columns"), frame('D', ""), frame('C', "SELECT 1\x00"), frame('Z', "I"))
	for first := range len(stream) {
		for second := first; second < len(stream); second++ {
			var w walker
			var got []byte
			end := func(kind byte) { got = append(got, kind) }
			w.walk(stream[:first], end)
			w.walk(stream[first:second], end)
			if second == len(stream)-1 && slices.Contains(got, 'Z') {
				t.Fatalf("cut at %d, %d: Z counted before its last byte", first, second)
			}
			w.walk(stream[second:], end)
			if string(got) != "TDCZ" {
				t.Fatalf("cut at %d, %d: got %q", first, second, got)
			}
		}
	}
}

// A session through the relay: SSLRequest declined, startup, a query in two parts, a pipeline with
// two Syncs answered at once, Terminate.
func TestServe(t *testing.T) {
	backends, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backends.Close()
	client, server := net.Pipe()
	defer client.Close()
	served := make(chan error, 1)
	go func() { served <- serve(t.Context(), server, backends.Addr().String()) }()

	send := func(c net.Conn, b ...[]byte) {
		t.Helper()
		if _, err := c.Write(slices.Concat(b...)); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(c net.Conn, b ...[]byte) {
		t.Helper()
		want := slices.Concat(b...)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || !slices.Equal(got, want) {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	packet := func(code uint32, body string) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
		return append(binary.BigEndian.AppendUint32(b, code), body...)
	}
	ready := frame('Z', "I")

	send(client, packet(sslRequest, ""))
	expect(client, []byte{'N'})
	startup := packet(196608, "user\x00u\x00\x00")
	send(client, startup)
	backend, err := backends.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	expect(backend, startup)
	send(backend, frame('R', "\x00\x00\x00\x00"), ready)
	expect(client, frame('R', "\x00\x00\x00\x00"), ready)

	query := frame('Q', "SELECT 1\x00")
	send(client, query[:7])
	expect(backend, query[:7])
	send(client, query[7:])
	expect(backend, query[7:])
	send(backend, frame('C', "SELECT 1\x00"), ready)
	expect(client, frame('C', "SELECT 1\x00"), ready)

	sync := frame('S', "")
	send(client, sync, sync)
	expect(backend, sync, sync)
	send(backend, ready)
	expect(client, ready)
	send(backend, ready)
	expect(client, ready)

	send(client, frame('X', ""))
	expect(backend, frame('X', ""))
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}
