package topology

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	logEvery   = time.Minute // the same complaint is not told more often
	logKindMax = 256         // kinds of complaints that are kept apart
)

// limitedLog tells a complaint once a minute and counts the others, as most are caused from outside: by each packet
// under a wrong key, by each try of a seed that is down.
type limitedLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]*complaint
}

type complaint struct {
	at     time.Time
	hidden int
}

func newLimitedLog(l *slog.Logger) *limitedLog {
	return &limitedLog{log: l, last: map[string]*complaint{}}
}

func (l *limitedLog) warn(msg string, args ...any) { l.tell(slog.LevelWarn, msg, msg, args...) }

// tell logs msg unless the same kind was logged within a minute.
func (l *limitedLog) tell(level slog.Level, kind, msg string, args ...any) {
	l.mu.Lock()
	c := l.last[kind]
	if c == nil {
		if len(l.last) >= logKindMax {
			clear(l.last)
		}
		c = &complaint{}
		l.last[kind] = c
	}
	if time.Since(c.at) < logEvery {
		c.hidden++
		l.mu.Unlock()
		return
	}
	hidden := c.hidden
	c.at, c.hidden = time.Now(), 0
	l.mu.Unlock()
	if hidden > 0 {
		args = append(args, "also", hidden)
	}
	l.log.Log(context.Background(), level, msg, args...)
}

// memberlistLog turns the lines of memberlist into records: its errors are warnings of ours, its warnings are info,
// both at most once a minute for each kind, and the rest is debug.
func (g *Gossip) memberlistLog() *log.Logger {
	return log.New(memberlistWriter{g.limited}, "", 0)
}

type memberlistWriter struct{ log *limitedLog }

func (w memberlistWriter) Write(b []byte) (int, error) {
	line := string(bytes.TrimSpace(b))
	level, text, _ := strings.Cut(line, "] ")
	text = strings.TrimPrefix(text, "memberlist: ")
	kind, _, _ := strings.Cut(text, " from=")
	kind = strings.Map(func(r rune) rune { // addresses, ports and times are no other kind
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, kind)
	switch level {
	case "[ERR", "[ERROR":
		w.log.tell(slog.LevelWarn, kind, "gossip: "+text)
	case "[WARN":
		w.log.tell(slog.LevelInfo, kind, "gossip: "+text)
	default:
		if text == "" {
			text = line
		}
		w.log.log.Debug("gossip: " + text)
	}
	return len(b), nil
}
