// Command relay is the floor under every proxy written in Go: one goroutine and one backend
// connection for each client, no pool, no routing, no parsing beyond frame headers. What it costs
// is what reading and writing two sockets costs; what a real proxy costs above it is its own doing.
//
// It serves pgbench and the harness, not applications: trust authentication only, no TLS, no COPY
// FROM STDIN, no Flush without a Sync, no notifications while idle.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"log"
	"net"
)

// Codes that stand where a startup packet has its protocol version.
const (
	cancelRequest = 80877102
	sslRequest    = 80877103
	gssEncRequest = 80877104
)

const (
	bufferBytes     = 16 << 10 // a pgbench answer is 100 bytes; a large result wants a few rows a read
	startupBytesMax = 10_000   // PostgreSQL's MAX_STARTUP_PACKET_LENGTH
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	backend := flag.String("backend", "127.0.0.1:5432", "address of the PostgreSQL server")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("relay: ")

	ctx := context.Background() // it runs until it is killed
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on %s, backend %s", l.Addr(), *backend)
	for {
		client, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer client.Close()
			if err := serve(ctx, client, *backend); err != nil && !errors.Is(err, io.EOF) {
				log.Printf("client %s: %v", client.RemoteAddr(), err)
			}
		}()
	}
}

// serve carries one client's bytes until either side closes.
func serve(ctx context.Context, client net.Conn, address string) error {
	startup, err := readStartup(client)
	if err != nil {
		return err
	}
	backend, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer backend.Close()
	if _, err := backend.Write(startup); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(startup[4:]) == cancelRequest {
		return nil
	}

	// pending counts the ReadyForQuery that the backend still owes: one for the startup packet and
	// one for each Query, FunctionCall and Sync. While it is above zero it is the backend's turn.
	pending := 1
	terminated := false
	var requests, answers walker
	countRequest := func(kind byte) {
		switch kind {
		case 'Q', 'F', 'S':
			pending++
		case 'X':
			terminated = true
		}
	}
	countAnswer := func(kind byte) {
		if kind == 'Z' {
			pending--
		}
	}
	buf := make([]byte, bufferBytes)
	for !terminated {
		for pending > 0 {
			if err := forward(client, backend, buf, &answers, countAnswer); err != nil {
				return err
			}
		}
		if err := forward(backend, client, buf, &requests, countRequest); err != nil {
			return err
		}
	}
	return nil
}

// forward moves what one read of src gives to dst.
func forward(dst, src net.Conn, buf []byte, w *walker, count func(kind byte)) error {
	n, err := src.Read(buf)
	if err != nil {
		return err
	}
	w.walk(buf[:n], count)
	_, err = dst.Write(buf[:n])
	return err
}

// readStartup reads the startup or cancel packet and declines encryption asked for before it.
func readStartup(client net.Conn) ([]byte, error) {
	for {
		packet := make([]byte, 8)
		if _, err := io.ReadFull(client, packet); err != nil {
			return nil, err
		}
		size := int(binary.BigEndian.Uint32(packet))
		code := binary.BigEndian.Uint32(packet[4:])
		if size == 8 && (code == sslRequest || code == gssEncRequest) {
			if _, err := client.Write([]byte{'N'}); err != nil {
				return nil, err
			}
			continue
		}
		if size < 8 || size > startupBytesMax {
			return nil, errors.New("not a startup packet")
		}
		packet = append(packet, make([]byte, size-8)...)
		_, err := io.ReadFull(client, packet[8:])
		return packet, err
	}
}
