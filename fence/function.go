package fence

import (
	"fmt"
	"strconv"
	"strings"

	"shardproxy/topology"
)

// function is one of the three that a fence has on a shard.
type function struct {
	name      string
	arguments string
	returns   string
	options   string // behind LANGUAGE plpgsql
	form      string // the options as foundFunction has them
	body      string
}

// What the bodies call is named in full, operators too, so that a client's search_path cannot give it another meaning.
// That is why there is no BETWEEN, NULLIF or IN.

const (
	ownsName    = "owns"
	staleName   = "refuse_stale"
	foreignName = "refuse_foreign"
)

// functions are those of a state, in the order in which they are made.
func functions(st *State) []function {
	return []function{
		{
			name: ownsName, arguments: "hash bigint", returns: "boolean", options: "STABLE STRICT PARALLEL SAFE",
			form: "plpgsql s t s f bool", body: ownsBody(st.Owned),
		},
		{
			name: staleName, returns: "trigger", options: "VOLATILE", form: "plpgsql v f u f trigger",
			body: staleBody(st.Shard, st.Epoch),
		},
		{
			name: foreignName, returns: "trigger", options: "VOLATILE", form: "plpgsql v f u f trigger",
			body: foreignBody(st.Shard),
		},
	}
}

func (f *function) create() string {
	return fmt.Sprintf("CREATE OR REPLACE FUNCTION %s.%s(%s) RETURNS %s LANGUAGE plpgsql %s AS %s",
		Schema, f.name, f.arguments, f.returns, f.options, literal(f.body))
}

// The list of owned hashes is searched by bisection, and is a single constant: a chain of comparisons would be set up anew in
// each transaction, which for 16,384 ranges takes 5 ms and 80 MB (docs/decisions/0007-fences.md).
const (
	ownsHead = `-- Made by shardproxy, which undoes what is changed here. The numbers are pairs: the first key hash of a range that
-- the shard owns, and the first behind it; the last range may have no end. A hash is owned if an odd number of them is at
-- or below it. With the shard key in place of k:  SELECT shardproxy.owns(hashint8extended(k, ` + hashSeed + `))
BEGIN
	RETURN (pg_catalog.width_bucket(hash, '{`
	ownsTail = `}'::bigint[]) OPERATOR(pg_catalog.&) 1) OPERATOR(pg_catalog.=) 1;
END`
)

func ownsBody(owned []topology.KeyRange) string {
	text := make([]byte, 0, len(ownsHead)+len(ownsTail)+42*len(owned))
	text = append(text, ownsHead...)
	for i, r := range owned {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, r.Start.Signed(), 10)
		if r.End != 0 {
			text = append(text, ',')
			text = strconv.AppendInt(text, r.End.Signed(), 10)
		}
	}
	return string(append(text, ownsTail...))
}

// parseOwns reads the list in a body of owns, whose text may be that of another release, or have been edited around the list.
func parseOwns(body string) (owned []topology.KeyRange, ok bool) {
	_, list, ok := strings.Cut(body, "'{")
	if ok {
		list, _, ok = strings.Cut(list, "}'")
	}
	if !ok || list == "" {
		return nil, ok
	}
	var last topology.KeyHash
	for i, text := range strings.Split(list, ",") {
		n, err := strconv.ParseInt(text, 10, 64)
		h := topology.KeyHash(uint64(n) ^ 1<<63)
		switch {
		case err != nil, i > 0 && h <= last:
			return nil, false
		case i%2 == 0:
			owned = append(owned, topology.KeyRange{Start: h})
		default:
			owned[len(owned)-1].End = h
		}
		last = h
	}
	return owned, true
}

// sessionEpoch is what the session says. A setting that nobody has made is NULL, one whose SET LOCAL has ended is "", and the
// 0 before it makes both 0. What is no number is refused by the cast.
const sessionEpoch = "('0'::pg_catalog.text OPERATOR(pg_catalog.||) coalesce(pg_catalog.current_setting('shardproxy.epoch', true), ''))::bigint"

// letMovers lets a session pass that brings rows to where they will be owned, or takes them away from where they were.
const letMovers = `IF pg_catalog.current_setting('shardproxy.move', true) OPERATOR(pg_catalog.<>) ''::pg_catalog.text THEN
		RETURN NULL;
	END IF;`

func staleBody(shard string, epoch topology.Epoch) string {
	return fmt.Sprintf(`-- Made by shardproxy, which undoes what is changed here.
BEGIN
	`+letMovers+`
	IF %[5]s OPERATOR(pg_catalog.<) '%[1]d'::bigint THEN
		RAISE EXCEPTION USING ERRCODE = '40001', SCHEMA = '%[2]s', TABLE = 'fence', CONSTRAINT = '%[3]s',
			MESSAGE = pg_catalog.format('shard %%s takes writes to %%I.%%I from epoch %[1]d of the topology on, and this session is at epoch %%s',
				%[4]s, TG_TABLE_SCHEMA, TG_TABLE_NAME, %[5]s),
			HINT = 'Write through a proxy. To write here all the same, see by shardctl locate that the rows belong here, and SET shardproxy.epoch = %[1]d.';
	END IF;
	RETURN NULL;
END`, epoch, Schema, ConstraintEpoch, literal(shard), sessionEpoch)
}

func foreignBody(shard string) string {
	return fmt.Sprintf(`-- Made by shardproxy, which undoes what is changed here.
BEGIN
	`+letMovers+`
	RAISE EXCEPTION USING ERRCODE = '23514', SCHEMA = '%s', TABLE = 'fence', CONSTRAINT = '%s',
		MESSAGE = pg_catalog.format('shard %%s does not own the shard key of a row of %%I.%%I', %s, TG_TABLE_SCHEMA, TG_TABLE_NAME),
		HINT = 'Write through a proxy; shardctl locate tells which shard owns a key.';
END`, Schema, ConstraintOwner, literal(shard))
}
