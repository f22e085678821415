package join

import (
	"errors"
	"strings"
	"testing"
)

// TestJudge makes one difference at a time.
func TestJudge(t *testing.T) {
	fine := facts{version: 150_018, walLevel: "logical", prepared: 100, encoding: "UTF8", collation: "c de_DE.utf8 de_DE.utf8", collations: "2.36"}
	if err := judge("s5", fine, "s1", fine); err != nil {
		t.Error(err)
	}
	unknown := fine
	unknown.version, unknown.collations = 150_002, "" // a locale without versions, another minor version
	if err := judge("s5", unknown, "s1", fine); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*facts){
		"is in recovery":               func(f *facts) { f.recovery = true },
		"is PostgreSQL 16, and s1 is":  func(f *facts) { f.version = 160_001 },
		"wal_level of shard s5":        func(f *facts) { f.walLevel = "replica" },
		"max_prepared_transactions":    func(f *facts) { f.prepared = 0 },
		"the encoding of shard s5":     func(f *facts) { f.encoding = "LATIN1" },
		"the locale of shard s5":       func(f *facts) { f.collation = "c C C" },
		"has version 2.31, and 2.36 o": func(f *facts) { f.collations = "2.31" },
	} {
		here := fine
		change(&here)
		var r *Refusal
		if err := judge("s5", here, "s1", fine); !errors.As(err, &r) || r.Code != "55000" || r.Hint == "" || !strings.Contains(r.Message, want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

func TestSequencePasses(t *testing.T) {
	for _, up := range []bool{true, false} {
		sign := int64(1)
		if !up {
			sign = -1
		}
		s := sequence{up: up}
		for _, step := range []struct {
			last   int64
			called bool
			want   int64
			given  bool
		}{{1, false, 1, false}, {1, true, 1, true}, {7, false, 7, false}, {5, true, 7, false}, {7, true, 7, true}, {7, false, 7, true}, {-9, true, 7, true}} {
			s.pass(sign*step.last, step.called)
			if s.last != sign*step.want || s.called != step.given {
				t.Errorf("up %v, %+v: %d %v", up, step, s.last, s.called)
			}
		}
	}
}
