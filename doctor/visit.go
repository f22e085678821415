package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unique"

	"golang.org/x/sync/errgroup"

	"shardproxy/topology"
)

// visit is what was found at one node.
type visit struct {
	node topology.Node
	err  error // why nothing is known of it
	facts

	// Of a primary only. partly says what could not be read of that.
	partly   error
	prepared []prepared
	records  records
	slots    []slot
	sum      string // of its schema
}

// shardVisit is what was found at the nodes of one shard.
type shardVisit struct {
	*topology.Shard
	id       topology.ShardID
	primary  visit
	replicas []visit
}

// visitAll asks all nodes, the shards in the order of the map.
func (x *examination) visitAll(ctx context.Context) []shardVisit {
	list := make([]shardVisit, len(x.snap.Shards))
	each(len(list), func(i int) {
		v := &list[i]
		v.Shard, v.id = &x.snap.Shards[i], topology.ShardID(i)
		for _, node := range v.Nodes {
			if node.Role == topology.Primary {
				v.primary = x.visitPrimary(ctx, node)
			} else {
				v.replicas = append(v.replicas, x.visitNode(ctx, node, func(context.Context, topology.Query, *visit) error { return nil }))
			}
		}
	})
	return list
}

// each calls f for the numbers below n, for some at a time.
func each(n int, f func(i int)) {
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := range n {
		g.Go(func() error {
			f(i)
			return nil
		})
	}
	_ = g.Wait() // nobody gives an error
}

// visitNode asks a node for its facts, and then for more.
func (x *examination) visitNode(ctx context.Context, node topology.Node, more func(context.Context, topology.Query, *visit) error) visit {
	ctx, cancel := context.WithTimeout(ctx, x.ShardTime)
	defer cancel()
	v := visit{node: node}
	known := false
	err := x.OnNode(ctx, node, func(query topology.Query) (err error) {
		if v.facts, err = readFacts(ctx, query); err != nil {
			return err
		}
		known = true
		v.partly = more(ctx, query, &v)
		return nil
	})
	if !known {
		v.err = err
		if err == nil || ctx.Err() != nil {
			v.err = fmt.Errorf("no answer within %v", x.ShardTime)
		}
	}
	return v
}

func (x *examination) visitPrimary(ctx context.Context, node topology.Node) visit {
	return x.visitNode(ctx, node, func(ctx context.Context, query topology.Query, v *visit) error {
		if v.recovery {
			return nil // what is on it is its primary's
		}
		var errs []error
		for _, read := range []func(context.Context, topology.Query, *visit) error{readSum, readPrepared, readRecords, readSlots} {
			errs = append(errs, read(ctx, query, v))
		}
		return errors.Join(errs...)
	})
}

// answers says that the shard's primary was asked and may be compared with others.
func (v *shardVisit) answers() bool { return v.primary.err == nil && !v.primary.recovery }

// first gives the first shard that answers, nil for none: the one that statements are planned with, and that the others are
// compared with.
func first(shards []shardVisit) *shardVisit {
	for i := range shards {
		if shards[i].answers() {
			return &shards[i]
		}
	}
	return nil
}

// facts are the properties of a server and its database.
type facts struct {
	version     int // as server_version_num
	recovery    bool
	preparedMax int // max_prepared_transactions
	walLevel    string
	connections int           // that ordinary roles may open
	server      string        // the database, as its replicas have it too
	identity    string        // the database on this server, for as long as that runs
	skew        time.Duration // of the clock, against ours
	skewError   time.Duration // it may be off by this much
	encoding    string
	collation   string
	settings    unique.Handle[string] // values of comparedSettings, kept once for all shards that have the same
}

// comparedSettings are what a session begins with and what changes results. A client that sets none of them must find the same
// on each shard.
var comparedSettings = []string{
	"TimeZone", "DateStyle", "IntervalStyle", "search_path", "standard_conforming_strings", "default_transaction_isolation",
	"default_transaction_read_only", "default_text_search_config", "bytea_output", "extra_float_digits", "lc_monetary", "lc_numeric", "lc_time",
	"backslash_quote", "array_nulls", "transform_null_equals", "xmloption", "row_security",
}

// majorOf is the major version of a server_version_num.
func majorOf(version int) int { return version / 10_000 }

var factsQuery = func() string {
	var b strings.Builder
	b.WriteString(`SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.pg_is_in_recovery(),
		pg_catalog.current_setting('max_prepared_transactions'), pg_catalog.current_setting('wal_level'),
		pg_catalog.current_setting('max_connections')::pg_catalog.int4 - pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4
			- coalesce(nullif(pg_catalog.current_setting('reserved_connections', true), ''), '0')::pg_catalog.int4,
		pg_catalog.concat((SELECT c.system_identifier FROM pg_catalog.pg_control_system() c), ' ', d.oid),
		pg_catalog.concat(pg_catalog.current_setting('port'), ' ', EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time())),
		(EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::pg_catalog.int8,
		pg_catalog.pg_encoding_to_char(d.encoding),
		pg_catalog.concat_ws(' ', j->>'datlocprovider', d.datcollate, d.datctype, coalesce(j->>'datlocale', j->>'daticulocale'), j->>'daticurules')`)
	for _, name := range comparedSettings {
		b.WriteString(", pg_catalog.current_setting('" + name + "')")
	}
	b.WriteString(" FROM pg_catalog.pg_database d CROSS JOIN LATERAL pg_catalog.to_jsonb(d) j WHERE d.datname = pg_catalog.current_database()")
	return b.String()
}()

// settingsOf keeps values of comparedSettings.
func settingsOf(values []string) unique.Handle[string] {
	return unique.Make(strings.Join(values, "\x1f"))
}

// settingValues gives the values again.
func (f *facts) settingValues() []string { return strings.Split(f.settings.Value(), "\x1f") }

const factsBefore = 10 // values before those of comparedSettings

func readFacts(ctx context.Context, query topology.Query) (f facts, err error) {
	from := time.Now()
	rows, err := query(ctx, factsQuery)
	took := time.Since(from)
	if err != nil {
		return f, err
	}
	if len(rows) != 1 || len(rows[0]) != factsBefore+len(comparedSettings) {
		return f, fmt.Errorf("%d rows instead of one with %d values", len(rows), factsBefore+len(comparedSettings))
	}
	row := rows[0]
	number := func(i int) int64 {
		n, e := strconv.ParseInt(row[i], 10, 64)
		if e != nil && err == nil {
			err = e
		}
		return n
	}
	f = facts{
		version: int(number(0)), recovery: row[1] == "t", preparedMax: int(number(2)), walLevel: row[3], connections: int(number(4)),
		server: row[5], identity: row[5] + " " + row[6], encoding: row[8], collation: row[9], settings: settingsOf(row[factsBefore:]),
	}
	f.skew = time.UnixMicro(number(7)).Sub(from.Add(took / 2))
	f.skewError = took / 2
	return f, err
}
