package doctor

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"shardproxy/topology"
)

const (
	versionMin = 140_000     // server_version_num: earlier ones lack functions that the proxy calls
	skewMax    = time.Second // of clocks: more makes times of different shards incomparable for people and for now()
)

// judgePrimaries looks at each primary by itself, and at what must not be on two shards.
func (x *examination) judgePrimaries(shards []shardVisit) {
	answer := 0
	identities := make(map[string]string) // identity → shard
	for i := range shards {
		v := &shards[i]
		is := func(status Status, detail, hint string) { x.notes.add(checkPrimaries, status, v.Name, detail, hint) }
		if v.primary.err != nil {
			is(Error, fmt.Sprintf("the primary %s does not answer: %v", v.primary.node.Address(), v.primary.err),
				"Look after the server, and whether the service user may log in. If another node was promoted: shardctl node primary.")
			continue
		}
		if v.primary.recovery {
			is(Error, fmt.Sprintf("the primary %s is in recovery: it is a replica", v.primary.node.Address()), "shardctl node primary names the node that was promoted.")
			continue
		}
		answer++
		x.judgeServer(shards, v, is)
		if other, ok := identities[v.primary.identity]; ok {
			is(Error, fmt.Sprintf("%s is the same database as that of shard %s", v.primary.node.Address(), other),
				"Two names lead to one server: give each shard a database of its own, before rows are counted twice.")
		}
		identities[v.primary.identity] = v.Name
		if v.primary.partly != nil {
			is(Warning, "not all could be looked at: "+v.primary.partly.Error(), "Look at the rights of the service user.")
		}
	}
	x.judgeConnections(shards)
	x.notes.ok(checkPrimaries, "%s", agree(answer, "primary", "answers and takes writes", "answer and take writes"))
}

// judgeServer looks at version and settings of a primary.
func (x *examination) judgeServer(shards []shardVisit, v *shardVisit, is func(status Status, detail, hint string)) {
	p := &v.primary
	if p.version < versionMin {
		is(Error, "PostgreSQL "+versionText(p.version)+" is too old", "PostgreSQL 14 is the oldest that works.")
	}
	if f := first(shards); majorOf(p.version) != majorOf(f.primary.version) {
		is(Warning, fmt.Sprintf("PostgreSQL %d here, %d on %s", majorOf(p.version), majorOf(f.primary.version), f.Name), "Bring all shards to one major version: answers may differ in details.")
	}
	if p.preparedMax == 0 && len(shards) > 1 {
		is(Error, "max_prepared_transactions is 0: no transaction can write on this shard and another one", "Set it to at least the number of connections that may commit at a time, and restart the server.")
	}
	if p.walLevel != "logical" {
		is(Warning, "wal_level is "+p.walLevel+": no key range can be moved away from this shard", "Set it to logical and restart the server, before the first move.")
	}
	if off := p.skew.Abs() - p.skewError; off > skewMax {
		way := "ahead of"
		if p.skew < 0 {
			way = "behind"
		}
		is(Warning, fmt.Sprintf("the clock is %v %s this proxy's", off.Round(100*time.Millisecond), way), "Let NTP or its like set the clocks of servers and proxies.")
	}
}

func versionText(n int) string {
	if n >= 100_000 {
		return fmt.Sprintf("%d.%d", majorOf(n), n%10_000)
	}
	return fmt.Sprintf("%d.%d", majorOf(n), n/100%100)
}

// judgeConnections compares what servers allow with what all proxies together may open.
func (x *examination) judgeConnections(shards []shardVisit) {
	if x.Connections == nil {
		return
	}
	proxies := 1
	if x.Peers != nil {
		for _, p := range x.Peers() {
			if p.Status == topology.PeerAlive || p.Status == topology.PeerSuspect {
				proxies++
			}
		}
	}
	databases := make(map[string]int) // by server
	for i := range shards {
		databases[shards[i].primary.node.Address()]++
	}
	for i := range shards {
		p := &shards[i].primary
		n := databases[p.node.Address()]
		need := proxies * x.Connections(n)
		if p.err != nil || n == 0 || need <= p.connections {
			continue
		}
		databases[p.node.Address()] = 0 // said once
		x.notes.add(checkPrimaries, Warning, p.node.Address(),
			fmt.Sprintf("takes %s, and %s may open %d", plural(p.connections, "connection"), plural(proxies, "proxy"), need),
			"Raise max_connections, or lower pool.size_max or pool.max_backends.")
	}
}

// judgeReplicas looks whether replicas are what the map says.
func (x *examination) judgeReplicas(shards []shardVisit) {
	well := 0
	for i := range shards {
		primary := &shards[i].primary
		for j := range shards[i].replicas {
			r := &shards[i].replicas[j]
			is := func(status Status, detail, hint string) {
				x.notes.add(checkReplicas, status, shards[i].Name+" "+nodeName(r.node), detail, hint)
			}
			switch {
			case r.err != nil:
				is(Warning, fmt.Sprintf("does not answer: %v", r.err), "Look after the server, or take it out: shardctl node remove.")
			case !r.recovery:
				is(Error, "is no replica: it takes writes", "If it was promoted: shardctl node primary. Else make it a replica again, or take it out: shardctl node remove.")
			case primary.err == nil && primary.server != r.server:
				is(Error, "is a replica of another database than the shard's primary", "Take it out: shardctl node remove.")
			default:
				well++
			}
		}
	}
	x.notes.ok(checkReplicas, "%s", agree(well, "replica", "answers and is in recovery", "answer and are in recovery"))
}

func nodeName(n topology.Node) string {
	return net.JoinHostPort(n.Host, strconv.Itoa(n.Port)) + "/" + n.Database
}

// judgeSettings compares what must be equal on all databases with the first that answers.
func (x *examination) judgeSettings(shards []shardVisit) {
	reference := first(shards)
	if reference == nil {
		return
	}
	n := 0
	for i := range shards {
		v := &shards[i]
		if !v.answers() {
			continue
		}
		n++
		differ := func(status Status, what, here, there, hint string) {
			if here != there {
				x.notes.add(checkSettings, status, v.Name, fmt.Sprintf("%s is %s here, %s on %s", what, orNone(here), orNone(there), reference.Name), hint)
			}
		}
		const anew = "It can only be chosen when a database is made: make the shard anew, and move its keys there."
		differ(Error, "the encoding", v.primary.encoding, reference.primary.encoding, "Texts hash differently in other encodings. "+anew)
		differ(Error, "the default collation", v.primary.collation, reference.primary.collation, "Texts are sorted and compared differently. "+anew)
		if v.primary.settings == reference.primary.settings {
			continue
		}
		here, there := v.primary.settingValues(), reference.primary.settingValues()
		for j, name := range comparedSettings {
			differ(Warning, name, here[j], there[j],
				"A client that does not set it gets one or the other. Set it alike: ALTER DATABASE … SET, ALTER ROLE … SET, or postgresql.conf.")
		}
	}
	x.notes.ok(checkSettings, "encoding, collation and %s are the same on %s", plural(len(comparedSettings), "setting"), plural(n, "shard"))
}

func orNone(s string) string {
	if s == "" {
		return "empty"
	}
	return s
}
