package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestWire holds conversations in the extended protocol with one plain PostgreSQL and with the proxy:
// pipelines, portals with row limits, Flush, errors in mid-pipeline. Both must answer message by message
// alike. wire/*.txt have one message to send a line:
//
//	query SQL | parse NAME SQL | bind PORTAL NAME [VALUE …] | describe S|P NAME | execute PORTAL MAX
//	close S|P NAME | flush | sync | data TEXT | done | fail TEXT
//
// "" stands for the empty name, \N for NULL, \n in data for a line's end. "bind binary" asks for binary
// results. query and sync are followed by reading up to ReadyForQuery; "await TYPE" reads up to a message of
// that type, which must come without a Sync. Empty lines part conversations of their own connection.
func TestWire(t *testing.T) {
	paths, err := filepath.Glob("wire/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, script := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
			lines := strings.Split(script, "\n")
			name := strings.TrimPrefix(lines[0], "# ")
			t.Run(fmt.Sprintf("%s/%d %s", filepath.Base(path), i+1, name), func(t *testing.T) {
				want := converse(t, plainDSN, lines)
				got := converse(t, proxyDSN, lines)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-plain +proxy)\n%s", diff)
				}
			})
		}
	}
}

// converse plays a conversation and gives what the server said, with what it was answering.
func converse(t *testing.T, dsn string, lines []string) []string {
	t.Helper()
	s := connect(t, dsn)
	var said []string
	for _, line := range lines {
		if strings.HasPrefix(line, "#") {
			continue
		}
		said = append(said, "> "+line)
		tr := &transcript{strict: true}
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "await":
			s.send(&pgproto3.Flush{})
			s.flush()
			for msg, ok := s.next(tr); ok && strings.TrimPrefix(fmt.Sprintf("%T", msg), "*pgproto3.") != rest; msg, ok = s.next(tr) {
				if _, failed := msg.(*pgproto3.ErrorResponse); failed {
					break
				}
			}
		default:
			msg, err := message(verb, rest)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			s.send(msg)
			if verb == "query" || verb == "sync" {
				s.flush()
				s.untilReady(tr, func() { s.send(&pgproto3.CopyFail{Message: "no data here"}) })
			}
		}
		tr.flush()
		said = append(said, tr.lines...)
	}
	return said
}

// message makes the message that a line of a conversation asks for.
func message(verb, rest string) (pgproto3.FrontendMessage, error) {
	words := strings.Fields(rest)
	name := func(i int) string {
		if i >= len(words) || words[i] == `""` {
			return ""
		}
		return words[i]
	}
	switch verb {
	case "query":
		return &pgproto3.Query{String: rest}, nil
	case "parse":
		_, sql, _ := strings.Cut(rest, " ")
		return &pgproto3.Parse{Name: name(0), Query: sql}, nil
	case "bind":
		b := &pgproto3.Bind{}
		if name(0) == "binary" {
			b.ResultFormatCodes = []int16{1}
			words = words[1:]
		}
		b.DestinationPortal, b.PreparedStatement = name(0), name(1)
		for _, w := range words[2:] {
			if w == `\N` {
				b.Parameters = append(b.Parameters, nil)
			} else {
				b.Parameters = append(b.Parameters, []byte(w))
			}
		}
		return b, nil
	case "describe":
		return &pgproto3.Describe{ObjectType: name(0)[0], Name: name(1)}, nil
	case "execute":
		limit, err := strconv.ParseUint(name(1), 10, 32)
		return &pgproto3.Execute{Portal: name(0), MaxRows: uint32(limit)}, err
	case "close":
		return &pgproto3.Close{ObjectType: name(0)[0], Name: name(1)}, nil
	case "flush":
		return &pgproto3.Flush{}, nil
	case "sync":
		return &pgproto3.Sync{}, nil
	case "data":
		return &pgproto3.CopyData{Data: []byte(strings.ReplaceAll(rest, `\n`, "\n"))}, nil
	case "done":
		return &pgproto3.CopyDone{}, nil
	case "fail":
		return &pgproto3.CopyFail{Message: rest}, nil
	}
	return nil, fmt.Errorf("unknown message %q", verb)
}
