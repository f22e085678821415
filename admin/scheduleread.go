package admin

import (
	"slices"
	"strconv"
	"strings"

	"shardproxy/rebalance"
	"shardproxy/topology"
	"shardproxy/wire"
)

// hash takes a key hash: a signed decimal number, as hashint8extended gives it, or 0x and the hexadecimal form. A number of 16
// digits may be either, and is refused.
func (a *arguments) hash(what string) topology.KeyHash {
	at := a.end
	if len(a.list) > 0 {
		at = a.list[0][0].at
	}
	text := a.text(what)
	if a.err != nil {
		return 0
	}
	h, err := parseHash(text)
	if err != "" {
		a.fail(at, "%q is not %s: %s", text, what, err)
	}
	return h
}

func parseHash(text string) (h topology.KeyHash, problem string) {
	const hexDigits = 16
	if digits, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		n, err := strconv.ParseUint(digits, 16, 64)
		if err != nil {
			return 0, "0x is followed by at most 16 hexadecimal digits"
		}
		return topology.KeyHash(n), ""
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch _, hex := strconv.ParseUint(text, 16, 64); {
	case hex == nil && len(text) == hexDigits && err == nil:
		return 0, "write 0x before it if it is hexadecimal, and + if it is decimal"
	case err != nil && hex == nil:
		return 0, "write 0x before it if it is hexadecimal"
	case err != nil:
		return 0, "a hash is a signed decimal number of 64 bits, or 0x and hexadecimal digits"
	}
	return topology.KeyHash(uint64(n) ^ 1<<63), ""
}

// names takes one or more names with commas between them.
func (a *arguments) names(what string) (list []string) {
	var tokens []token
	for len(a.list) > 0 && a.err == nil {
		g := a.list[0]
		if len(tokens) > 0 && !tokens[len(tokens)-1].is(",") && !g[0].is(",") {
			break
		}
		tokens = append(tokens, g...)
		a.list = a.list[1:]
	}
	var name []token
	for i := 0; i <= len(tokens); i++ {
		if i < len(tokens) && !tokens[i].is(",") {
			name = append(name, tokens[i])
			continue
		}
		at := a.end
		if i < len(tokens) {
			at = tokens[i].at
		}
		switch {
		case len(name) == 0:
			a.fail(at, "%s is missing", what)
			return nil
		case len(name) == 1 && !name[0].bare:
			list = append(list, name[0].text)
		default:
			list = append(list, a.verbatim(name))
		}
		name = nil
	}
	return list
}

// to takes TO and the name of a shard.
func (a *arguments) to() string {
	if !a.word("to") {
		a.want("TO shard")
	}
	return a.shard()
}

// want fails because of what is not there.
func (a *arguments) want(what string) {
	at := a.end
	if len(a.list) > 0 {
		at = a.list[0][0].at
	}
	a.fail(at, "%s is missing", what)
}

func (a *arguments) bySize() bool {
	if !a.word("by") {
		return false
	}
	if a.word("load") {
		if a.err == nil {
			a.err = wire.Errorf(wire.CodeFeatureNotSupported, "key ranges cannot be weighed by load: neither PostgreSQL nor a proxy counts it by key").
				WithHint("pg_stat_database of the shards tells which one is busy: SPLIT SHARD gives a part of it away, ISOLATE one hot key. BY SIZE weighs bytes.")
		}
		return false
	}
	if !a.word("size") {
		a.want("SIZE")
	}
	return true
}

func readSplit(a *arguments) request {
	var split rebalance.Split
	var start topology.KeyHash
	switch {
	case a.word("shard"):
		split.Shard = a.shard()
	case a.word("range"):
		start = a.hash("the first hash of a range")
	default:
		a.want("SHARD or RANGE")
	}
	at := false
	switch {
	case a.word("at"):
		at, split.At = true, a.hash("a hash")
	case a.word("into"):
		text := a.text("the number of parts")
		n, err := strconv.Atoi(text)
		if a.err == nil && (err != nil || n < 2) {
			a.fail(a.from, "%q is not the number of parts, which is 2 or more", text)
		}
		split.Into = n
	}
	split.BySize = a.bySize()
	if a.word("to") {
		split.To = a.names("the name of a shard")
	}
	return request{bySize: split.BySize, plan: func(p rebalance.Planner) (s rebalance.Schedule, _ error) {
		if at && split.At == 0 {
			return s, wire.Errorf(wire.CodeObjectNotInPrerequisite, "the ring cannot be cut at its lowest hash: it begins there")
		}
		if split.Shard == "" {
			r, unknown := rangeAt(p.Snapshot, start)
			if unknown != nil {
				return s, unknown
			}
			split.Range = r
		}
		return p.Split(split)
	}}
}

func readMoveRange(a *arguments) request {
	start, to := a.hash("the first hash of a range"), a.to()
	return request{plan: func(p rebalance.Planner) (rebalance.Schedule, error) {
		r, unknown := rangeAt(p.Snapshot, start)
		if unknown != nil {
			return rebalance.Schedule{}, unknown
		}
		return p.Move(r, to)
	}}
}

func readMoveKey(a *arguments) request {
	table, key, to := a.table(), a.text("the key"), a.to()
	return request{plan: func(p rebalance.Planner) (rebalance.Schedule, error) {
		at, unknown := placeKey(p.Snapshot, table, key)
		if unknown != nil {
			return rebalance.Schedule{}, unknown
		}
		return p.Move(rebalance.Range{Start: at.in.Start, End: at.in.End}, to)
	}}
}

func readIsolate(a *arguments) request {
	table, key, to := a.table(), a.text("the key"), a.to()
	return request{plan: func(p rebalance.Planner) (rebalance.Schedule, error) {
		at, unknown := placeKey(p.Snapshot, table, key)
		if unknown != nil {
			return rebalance.Schedule{}, unknown
		}
		return p.Isolate(at.hash, to)
	}}
}

func readMerge(a *arguments) request {
	start := a.hash("the first hash of a range")
	return request{plan: func(p rebalance.Planner) (rebalance.Schedule, error) { return p.Merge(start) }}
}

func readRebalance(a *arguments) request {
	if a.word("consistent") {
		return readConsistent(a)
	}
	r := request{bySize: a.bySize()}
	tolerance := 0.0
	if a.word("tolerance") {
		text := a.text("the tolerance")
		var err error
		if tolerance, err = strconv.ParseFloat(text, 64); a.err == nil && (err != nil || tolerance <= 0 || tolerance >= 1) {
			a.fail(a.from, "%q is not a tolerance, such as 0.1", text)
		}
	}
	r.plan = func(p rebalance.Planner) (rebalance.Schedule, error) { return p.Rebalance(tolerance) }
	return r
}

// readConsistent is REBALANCE by the placement that `init` has, too.
func readConsistent(a *arguments) request {
	slots := 0
	if a.word("slots") {
		text := a.text("the number of slots")
		var err error
		if slots, err = strconv.Atoi(text); a.err == nil && (err != nil || slots < 1 || slots > topology.SlotsMax) {
			a.fail(a.from, "%q is not the number of slots, which is %d at most", text, topology.SlotsMax)
		}
	}
	return request{plan: func(p rebalance.Planner) (rebalance.Schedule, error) { return p.Place(slots) }}
}

// readDrain marks the shard in any case. There is nothing to move where it owns nothing, and nowhere to move it without another shard.
func readDrain(a *arguments) request {
	shard := a.shard()
	return request{drains: shard, plan: func(p rebalance.Planner) (s rebalance.Schedule, err error) {
		id, ok := p.Snapshot.ShardByName(shard)
		owns := slices.ContainsFunc(p.Snapshot.Ranges(), func(r topology.KeyRange) bool { return r.Shard == id })
		others := slices.ContainsFunc(p.Snapshot.Shards, func(o topology.Shard) bool {
			return o.Name != shard && o.State == topology.ShardActive
		})
		if ok && !(owns && others) {
			return s, nil
		}
		return p.Drain(shard)
	}}
}
