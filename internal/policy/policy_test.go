package policy

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "shardproxy"
	root   = "../.."
)

// policy has one rule a line: "a b < c" says that package c, and the packages in its folder, may import a and
// b. Nothing else is allowed, but for the standard library. A name also stands for what lies below it, unless
// a longer name is listed somewhere; c may always import what lies in its own folder. "NONE < c" allows nothing.
//
// Arrows of the data path point to the right: wire and topology know of nobody, cmd knows of all.
const policy = `
	pgproto3 scram stringprep                       < wire
	pgx pgconn memberlist consistent errgroup       < topology
	topology                                        < fence
	topology pg_query protobuf otter                < router
	wire topology otter errgroup                    < backend
	wire topology router backend fence errgroup     < proxy
	topology fence pgx pgconn pgproto3 errgroup     < rebalance
	topology fence errgroup                         < doctor
	wire topology router backend proxy rebalance    < admin
	doctor                                          < admin
	fence prometheus errgroup                       < admin

	topology toml                                   < internal/config
	prometheus                                      < internal/metrics
	unix                                            < internal/postgres
	internal/postgres pgx                           < internal/pgtest
	internal/postgres topology pgx errgroup         < internal/devcluster
	NONE                                            < internal/policy
	NONE                                            < internal/plot

	wire topology router backend proxy fence        < cmd/shardproxy
	admin rebalance doctor internal/config          < cmd/shardproxy
	internal/metrics internal/devcluster            < cmd/shardproxy
	internal/postgres cobra errgroup unix           < cmd/shardproxy
	topology internal/config cobra pgconn           < cmd/shardctl
	admin progressbar                               < cmd/shardctl

	internal/postgres internal/config topology      < bench
	internal/devcluster pgx errgroup unix           < bench
	internal/plot rebalance pgconn e2e              < bench
	internal/postgres pgconn pgx errgroup           < e2e
`

// testPolicy says what any test may import beside what its package may.
var testPolicy = []string{
	"internal/pgtest", "internal/postgres", "internal/config", "internal/plot", "wire", "topology", "fence",
	"pgx", "pgconn", "pgproto3", "libpq", "cmp", "goleak", "rapid", "errgroup",
}

// foreign gives other people's packages short names. One that is missing here may be imported by nobody.
var foreign = map[string]string{
	"cmp":         "github.com/google/go-cmp/cmp",
	"cobra":       "github.com/spf13/cobra",
	"consistent":  "github.com/buraksezer/consistent",
	"errgroup":    "golang.org/x/sync/errgroup",
	"goleak":      "go.uber.org/goleak",
	"libpq":       "github.com/lib/pq",
	"memberlist":  "github.com/hashicorp/memberlist",
	"otter":       "github.com/maypok86/otter/v2",
	"pg_query":    "github.com/pganalyze/pg_query_go/v6",
	"pgconn":      "github.com/jackc/pgx/v5/pgconn",
	"pgproto3":    "github.com/jackc/pgx/v5/pgproto3",
	"pgx":         "github.com/jackc/pgx/v5",
	"progressbar": "github.com/schollz/progressbar/v3",
	"prometheus":  "github.com/prometheus/client_golang/prometheus",
	"protobuf":    "google.golang.org/protobuf", // the nodes of pg_query are its messages
	"rapid":       "pgregory.net/rapid",
	"scram":       "github.com/xdg-go/scram",
	"stringprep":  "github.com/xdg-go/stringprep",
	"toml":        "github.com/pelletier/go-toml/v2",
	"unix":        "golang.org/x/sys/unix",
}

// impure are packages of the standard library that the router must do without: it has no I/O and no clock.
var impure = []string{"net", "os", "os/exec", "io/fs", "time", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "database/sql"}

// rules maps a package to the short names that it may import.
type rules map[string][]string

func parsePolicy(text string) (rules, error) {
	r := rules{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		allowed, pkg, ok := strings.Cut(line, "<")
		pkg = strings.TrimSpace(pkg)
		if !ok || pkg == "" || strings.Contains(pkg, " ") {
			return nil, fmt.Errorf("%q is not of the form a b < c", line)
		}
		for _, name := range strings.Fields(allowed) {
			if name != "NONE" {
				r[pkg] = append(r[pkg], name)
			}
		}
		r[pkg] = append(r[pkg], pkg)
	}
	return r, nil
}

// longest is the name among names that imp is or lies below; "" if there is none.
func longest(names []string, imp string) (best string) {
	for _, name := range names {
		if (imp == name || strings.HasPrefix(imp, name+"/")) && len(name) > len(best) {
			best = name
		}
	}
	return best
}

// check says why the package in folder pkg (below the module) may not import imp, or "".
func (r rules) check(pkg, imp string, test bool) string {
	rule := longest(r.packages(), pkg)
	if rule == "" {
		return "the policy does not know the package"
	}
	if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") && first != module {
		if rule == "router" && !test && slices.Contains(impure, imp) {
			return "the router is pure"
		}
		return ""
	}
	name := r.shortName(imp)
	switch {
	case name == "":
		return "the policy does not know what it imports"
	case slices.Contains(r[rule], name), test && slices.Contains(testPolicy, name):
		return ""
	}
	return fmt.Sprintf("no rule %q", name+" < "+rule)
}

func (r rules) packages() []string {
	var names []string
	for name := range r {
		names = append(names, name)
	}
	return append(names, testPolicy...)
}

func (r rules) shortName(imp string) string {
	if ours, ok := strings.CutPrefix(imp, module+"/"); ok {
		return longest(r.packages(), ours)
	}
	best, found := "", ""
	for name, p := range foreign {
		if (imp == p || strings.HasPrefix(imp, p+"/")) && len(p) > len(found) {
			best, found = name, p
		}
	}
	return best
}

func TestImports(t *testing.T) {
	r, err := parsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && file != root && (name[0] == '.' || name == "testdata" || name == "bin" || name == "node_modules") {
			return filepath.SkipDir
		}
		if d.IsDir() || path.Ext(file) != ".go" {
			return nil
		}
		files++
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := r.check(filepath.ToSlash(filepath.Dir(rel)), imp, strings.HasSuffix(file, "_test.go")); why != "" {
				t.Errorf("%s may not import %s: %s", rel, imp, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Error("no file was looked at")
	}
}

func TestPolicyRefuses(t *testing.T) {
	r, err := parsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pkg, imp string
		test     bool
		allowed  bool
	}{
		{"router", "shardproxy/topology", false, true},
		{"topology", "shardproxy/router", false, false},
		{"wire", "shardproxy/topology", false, false},
		{"wire", "github.com/jackc/pgx/v5", false, false},
		{"wire", "github.com/jackc/pgx/v5/pgproto3", false, true},
		{"proxy", "github.com/jackc/pgx/v5/pgproto3", false, false},
		{"proxy", "github.com/jackc/pgx/v5/pgproto3", true, true},
		{"backend", "github.com/pganalyze/pg_query_go/v6", false, false},
		{"router", "github.com/pganalyze/pg_query_go/v6/parser", false, true},
		{"router", "time", false, false},
		{"router", "time", true, true},
		{"proxy", "time", false, true},
		{"proxy", "github.com/pelletier/go-toml/v2/unstable", false, false},
		{"internal/config", "github.com/pelletier/go-toml/v2/unstable", false, true},
		{"proxy", "shardproxy/internal/config", false, false},
		{"wire", "example.com/new", false, false},
		{"util", "fmt", false, false},
	} {
		if why := r.check(c.pkg, c.imp, c.test); (why == "") != c.allowed {
			t.Errorf("%s imports %s (test: %v): allowed %v, got %q", c.pkg, c.imp, c.test, c.allowed, why)
		}
	}
}
