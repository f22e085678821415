package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	large     = 200 << 20 // bytes of one value, and of one COPY
	growthMax = 48 << 20  // of the proxy meanwhile: buffers and garbage not yet collected
)

// TestLargeMessagesStream moves 200 MB values and COPYs in both directions through a proxy of its own, whose
// peak of memory must stay far below that.
func TestLargeMessagesStream(t *testing.T) {
	c := needCluster(t)
	p := startProxy(t, c, "")
	s := connect(t, p.DSN)
	s.must(t, "DROP TABLE IF EXISTS large")
	s.must(t, "CREATE TABLE large (user_id bigint PRIMARY KEY, t text)")
	s.must(t, "INSERT INTO large VALUES (1, 'x')")
	for _, step := range []struct {
		name string
		run  func(*testing.T, *session)
	}{
		{"value to the client", func(t *testing.T, s *session) {
			s.send(&pgproto3.Query{String: fmt.Sprintf("SELECT repeat(t, %d) FROM large WHERE user_id = 1", large)})
			s.flush()
			s.drain(t, large)
		}},
		{"value from the client", func(t *testing.T, s *session) {
			s.send(
				&pgproto3.Parse{Query: "SELECT length($2::text) FROM large WHERE user_id = $1"},
				&pgproto3.Bind{Parameters: [][]byte{[]byte("1"), bytes.Repeat([]byte("x"), large)}},
				&pgproto3.Execute{}, &pgproto3.Sync{},
			)
			s.flush()
			tr := &transcript{}
			if s.untilReady(tr, nil); len(tr.lines) < 3 || tr.lines[2] != fmt.Sprintf("row %q", strconv.Itoa(large)) {
				t.Fatal(tr.lines)
			}
		}},
		{"COPY from the client", copyLarge},
		{"COPY to the client", func(t *testing.T, s *session) {
			s.send(&pgproto3.Query{String: "COPY large TO STDOUT"})
			s.flush()
			s.drain(t, large)
		}},
		{"many rows to the client", func(t *testing.T, s *session) {
			s.send(&pgproto3.Query{String: "SELECT t FROM large"})
			s.flush()
			s.drain(t, large)
		}},
	} {
		t.Run(step.name, func(t *testing.T) {
			before := resident(t, p.PID())
			step.run(t, connect(t, p.DSN))
			if grown := peak(t, p.PID()) - before; grown > growthMax {
				t.Errorf("the proxy grew by %d MB, at most %d MB are fine", grown>>20, growthMax>>20)
			} else {
				t.Logf("the proxy grew by %d KB", grown>>10)
			}
		})
	}
	s.must(t, "DROP TABLE large")
}

// copyLarge sends rows of 1 KB by one COPY FROM.
func copyLarge(t *testing.T, s *session) {
	tr := &transcript{}
	filler := bytes.Repeat([]byte("y"), 1000)
	s.send(&pgproto3.Query{String: "COPY large FROM STDIN"})
	s.flush()
	s.untilReady(tr, func() {
		var chunk []byte
		for i := range large / len(filler) {
			chunk = append(strconv.AppendInt(chunk, int64(i+10), 10), '\t')
			chunk = append(append(chunk, filler...), '\n')
			if len(chunk) > 64<<10 {
				s.send(&pgproto3.CopyData{Data: chunk})
				s.flush()
				chunk = chunk[:0]
			}
		}
		s.send(&pgproto3.CopyData{Data: chunk}, &pgproto3.CopyDone{})
	})
	if want := fmt.Sprintf("tag COPY %d", large/len(filler)); len(tr.lines) < 2 || tr.lines[1] != want {
		t.Fatalf("%v, want %s", tr.lines, want)
	}
}

// drain reads to ReadyForQuery without keeping anything, and wants at least so many bytes and no error.
func (s *session) drain(t *testing.T, bytesMin int64) {
	t.Helper()
	var read int64
	header := make([]byte, 5)
	for {
		if _, err := io.ReadFull(s.conn, header); err != nil {
			t.Fatal(err)
		}
		n := int64(binary.BigEndian.Uint32(header[1:])) - 4
		if header[0] == 'E' {
			message, _ := io.ReadAll(io.LimitReader(s.conn, n))
			t.Fatalf("error after %d bytes: %q", read, message)
		}
		if _, err := io.CopyN(io.Discard, s.conn, n); err != nil {
			t.Fatal(err)
		}
		if read += n; header[0] == 'Z' {
			break
		}
	}
	if read < bytesMin {
		t.Fatalf("%d bytes came, at least %d are wanted", read, bytesMin)
	}
}

// resident is the memory of a process in bytes; its peak is counted anew from now on.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	const resetPeak = "5" // proc(5), /proc/PID/clear_refs
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte(resetPeak), 0); err != nil {
		t.Fatal(err)
	}
	return statusBytes(t, pid, "VmRSS")
}

func peak(t *testing.T, pid int) int64 { return statusBytes(t, pid, "VmHWM") }

// statusBytes reads a line of /proc/PID/status that is in kB.
func statusBytes(t *testing.T, pid int, key string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(status) {
		var kb int64
		if n, _ := fmt.Sscanf(string(line), key+": %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatalf("no %s in /proc/%d/status", key, pid)
	return 0
}
