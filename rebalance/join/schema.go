package join

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"shardproxy/fence"
	"shardproxy/topology"
)

// differencesNamed is how many differences of the new shard's schema its refusal names.
const differencesNamed = 3

// makeSchema gives the new shard its fence and the schema of the other. The fence comes first: the dump has the triggers of all
// tables, but not the functions that they call, which are of each shard.
func (a *addition) makeSchema(ctx context.Context) error {
	relations, fenced, err := a.found(ctx)
	if err != nil {
		return err
	}
	differences, err := a.differences(ctx)
	switch {
	case err != nil:
		return err
	case len(differences) > 0 && len(relations) > 0 && !fenced:
		return refuse(notInState, "A new shard begins as an empty database: createdb.", "the database of shard %s is not empty: it has %s", a.shard.Name, some(relations))
	case len(differences) > 0 && len(relations) > 0:
		return a.otherSchema(differences)
	}
	owns := fence.State{Shard: a.shard.Name, Epoch: a.Keeper.Snapshot().Epoch}
	if err := fence.Install(ctx, a.new.query, owns, nil); err != nil {
		return failed("the new shard cannot be fenced", err)
	}
	if len(differences) > 0 {
		if err := a.restore(ctx); err != nil {
			return err
		}
		if err := a.sameSchema(ctx); err != nil {
			return err
		}
	}
	a.note("it has the schema of shard %s", a.old.name)
	if err := fence.Install(ctx, a.new.query, owns, fence.Tables(a.schema)); err != nil {
		return failed("the new shard cannot be fenced", err)
	}
	return nil
}

// restore pipes pg_dump of the other shard into psql at the new one, which makes all of it or nothing.
func (a *addition) restore(ctx context.Context) error {
	dir, err := a.Tools(a.major)
	if err != nil {
		return refuse(undefined, fmt.Sprintf("Install postgresql-client of version %d or newer there. Or restore pg_dump --schema-only --exclude-schema=shardproxy of %s by hand, and repeat this.", a.major, a.old.name),
			"pg_dump and psql cannot be run by the proxy: %v", err)
	}
	dump := a.tool(ctx, dir, a.old.node, "pg_dump", "--schema-only", "--exclude-schema=shardproxy", "--no-publications", "--no-subscriptions",
		"--no-tablespaces", "--lock-wait-timeout=10s")
	var sql, said bytes.Buffer
	dump.Stdout, dump.Stderr = &sql, &said
	if err := dump.Run(); err != nil {
		return toolFailed("pg_dump of shard "+a.old.name, err, said.String())
	}
	said.Reset()
	psql := a.tool(ctx, dir, a.new.node, "psql", "--no-psqlrc", "--quiet", "--single-transaction", "--output="+os.DevNull, "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose")
	psql.Stdin, psql.Stderr = &sql, &said
	if err := psql.Run(); err != nil {
		return toolFailed("the schema of "+a.old.name+" cannot be made on shard "+a.shard.Name, err, said.String())
	}
	return nil
}

// tool is one of PostgreSQL's programs, which finds its database by its environment: command lines are for all to see.
func (a *addition) tool(ctx context.Context, dir string, node topology.Node, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(dir, name), append(args, "--no-password")...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(append(cmd.Env, "LC_ALL=C", "PGCLIENTENCODING=UTF8", "PGOPTIONS=-c statement_timeout=0"), a.Environment(node)...)
	return cmd
}

var serverError = regexp.MustCompile(`ERROR:\s+([0-9A-Z]{5}): (.*)`)

func toolFailed(what string, err error, said string) error {
	code, message := notInState, strings.Join(strings.Fields(said), " ")
	if m := serverError.FindStringSubmatch(said); m != nil {
		code, message = m[1], m[2]
	}
	if message == "" {
		message = err.Error()
	}
	hint := "Nothing of it was made. Repeat the command once that is mended."
	if code == noPrivilege {
		hint = "The service user must be a superuser on the new server, or have what it needs to make the objects and give them to their owners. An extension or event trigger that only a superuser may make can be made there before. " + hint
	}
	return refuse(code, hint, "%s: %s", what, message)
}

// sameSchema refuses a schema on which a statement would do something else than on the other shard.
func (a *addition) sameSchema(ctx context.Context) error {
	differences, err := a.differences(ctx)
	if err != nil || len(differences) == 0 {
		return err
	}
	return a.otherSchema(differences)
}

func (a *addition) otherSchema(differences []string) error {
	return refuse(notInState, "If the schema was changed meanwhile, or an earlier attempt was long ago: make the database anew, empty, and repeat this.",
		"the schema of the new shard is not that of %s: %s", a.old.name, some(differences))
}

func (a *addition) differences(ctx context.Context) (list []string, err error) {
	var found [2]*topology.Fingerprint
	for i, s := range []*session{a.old, a.new} {
		if found[i], err = topology.ReadFingerprint(ctx, s.query, s.name); err != nil {
			return nil, failed("the schemas cannot be compared", err)
		}
	}
	for _, d := range topology.Differences(found[0], found[1]) {
		if !d.Lesser() {
			list = append(list, d.String())
		}
	}
	return list, nil
}

func some(list []string) string {
	text := strings.Join(list[:min(len(list), differencesNamed)], "; ")
	if more := len(list) - differencesNamed; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}
