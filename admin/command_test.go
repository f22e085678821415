package admin

import (
	"context"
	"net"
	"strings"
	"testing"
	"unicode/utf8"

	"shardproxy/wire"
)

func TestParse(t *testing.T) {
	for _, test := range []struct{ sql, want string }{
		{"SHOW POOLS", "show pools"},
		{"a;b ;; c;", "a|b|c"},
		{"a--b\nc--d", "a c"},
		{"a/*b;/*;*/;*/c", "a c"},
		{`Kill "My;DB" now`, `kill "My;DB" now`},
		{`x 'it''s' E'\'' "a""b"`, `x "it's" "'" "a"b"`},
		{"version(1)", "version ( 1 )"},
		{"größe=1", "größe = 1"},
		{"''", `""`},
		{"a $$;$$b $x$;$$;$x$ $1$2", `a ";" b ";$$;" $1$2`},
		{"é $x$ $$", "ERROR 3"},
		{"", ""},
		{"/* unterminated /* */", "ERROR 1"},
		{"é 'open", "ERROR 3"},
		{`a "open""`, "ERROR 3"},
		{"-", "-"},
		{"/", "/"},
	} {
		commands, err := parse(test.sql)
		var got []string
		for _, c := range commands {
			got = append(got, c.words())
		}
		text := strings.Join(got, "|")
		if err != nil {
			text = "ERROR " + string(rune('0'+err.Position))
		}
		if text != test.want {
			t.Errorf("%q: %q, want %q", test.sql, text, test.want)
		}
	}
}

// FuzzParse holds that no text breaks the parser or what is done with its commands, that tokens stand in the order
// of the text, and that a command's error points into it.
func FuzzParse(f *testing.F) {
	for _, v := range verbs() {
		f.Add(v.name + "; -- and\n /* more */ SET x = 'y'")
	}
	for _, sql := range []string{"/*/**/", "'", `E'\`, `"a""`, "select 1;;begin", "deallocate prepare \"x\"", "\xff'\xc3", "locate users 5", `locate a."B" 'x`} {
		f.Add(sql)
	}
	c := NewConsole(testConfig(), newFixed(f))
	f.Fuzz(func(t *testing.T, sql string) {
		commands, err := parse(sql)
		if err != nil {
			if err.Position < 1 || err.Position > utf8.RuneCountInString(sql) {
				t.Errorf("position %d", err.Position)
			}
			return
		}
		near, far := net.Pipe() // a client that says nothing
		defer near.Close()
		defer far.Close()
		at := -1
		for _, command := range commands {
			if len(command.tokens) == 0 {
				t.Fatal("a command without a token")
			}
			for _, token := range command.tokens {
				if token.at <= at || token.at >= len(sql) {
					t.Fatalf("token at %d behind one at %d", token.at, at)
				}
				at = token.at
			}
			s := &session{console: c, client: wire.NewStream(near), user: "watcher", status: 'I'}
			st, err := s.resolve(command)
			if (st == nil) == (err == nil) {
				t.Fatalf("%q is %v and %v", command.words(), st, err)
			}
			if err != nil && err.Code == wire.CodeSyntaxError && (err.Position < 1 || err.Position > utf8.RuneCountInString(sql)) {
				t.Errorf("position %d", err.Position)
			}
			if st != nil && st.rows != nil {
				_, _ = st.rows(context.Background(), s)
			}
		}
	})
}
