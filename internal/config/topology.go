package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/topology"
)

// Topology is the shards, and the ranges of the ring that they own: those of the file, else equal
// ones in the order of the shards. It is for a Config that passes Check.
func (c *Config) Topology() ([]topology.Shard, []topology.KeyRange, error) {
	shards := make([]topology.Shard, len(c.Shards))
	ids := make(map[string]topology.ShardID, len(c.Shards))
	for i, s := range c.Shards {
		shards[i] = topology.Shard{Name: s.Name, Nodes: s.topologyNodes()}
		ids[s.Name] = topology.ShardID(i)
	}
	if len(c.Ranges) == 0 {
		return shards, topology.EqualRanges(len(shards)), nil
	}
	ranges := make([]topology.KeyRange, len(c.Ranges))
	for i, r := range c.Ranges {
		id, ok := ids[r.Shard]
		if !ok {
			return nil, nil, keyErrorf("ranges[%d].shard", i, fmt.Errorf("%q is not one of the shards", r.Shard))
		}
		start, err := parseHash(r.Start)
		if err != nil {
			return nil, nil, keyErrorf("ranges[%d].start", i, err)
		}
		end := topology.KeyHash(0) // of the ring
		if r.End != "" {
			if end, err = parseHash(r.End); err != nil {
				return nil, nil, keyErrorf("ranges[%d].end", i, err)
			}
		}
		ranges[i] = topology.KeyRange{Start: start, End: end, Shard: id}
	}
	slices.SortFunc(ranges, func(a, b topology.KeyRange) int { return cmp.Compare(a.Start, b.Start) })
	return shards, ranges, nil
}

// topologyNodes is the nodes of s with the primary first.
func (s *Shard) topologyNodes() []topology.Node {
	nodes := make([]topology.Node, 0, len(s.Nodes))
	for _, role := range []topology.Role{topology.Primary, topology.Replica} {
		for _, n := range s.Nodes {
			if n.Role == role.String() {
				nodes = append(nodes, topology.Node{Host: n.Host, Port: n.Port, Database: n.Database, Role: role})
			}
		}
	}
	return nodes
}

// KeyRules is the section [tables]. It is for a Config that passes Check.
func (c *Config) KeyRules() (topology.KeyRules, error) {
	rules := topology.KeyRules{
		Explicit:       map[topology.TableName]string{},
		Reference:      map[topology.TableName]bool{},
		Columns:        c.Tables.Columns,
		Named:          map[topology.TableName]string{},
		RefuseUnlisted: c.Tables.Unlisted == "refuse",
	}
	for i, s := range c.Tables.Explicit {
		table, column, err := parseColumn(s, "public")
		if err != nil {
			return rules, keyErrorf("tables.explicit[%d]", i, err)
		}
		rules.Explicit[table] = column
	}
	for i, s := range c.Tables.Reference {
		table, err := parseTable(s)
		if err != nil {
			return rules, keyErrorf("tables.reference[%d]", i, err)
		}
		rules.Reference[table] = true
	}
	for i, s := range c.Tables.Named {
		table, column, err := parseColumn(s, "")
		if err != nil {
			return rules, keyErrorf("tables.named[%d]", i, err)
		}
		rules.Named[table] = column
	}
	return rules, nil
}

// parseHash reads a border of a range, all 16 digits of it: fewer would look like a fraction of the ring.
func parseHash(s string) (topology.KeyHash, error) {
	digits := strings.TrimPrefix(s, "0x")
	h, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || len(digits) != 16 {
		return 0, fmt.Errorf("%q is not 16 hexadecimal digits", s)
	}
	return topology.KeyHash(h), nil
}

// parseTable reads table or schema.table.
func parseTable(s string) (topology.TableName, error) {
	parts, err := nameParts(s)
	switch {
	case err != nil:
	case len(parts) == 1:
		return topology.TableName{Schema: "public", Name: parts[0]}, nil
	case len(parts) == 2:
		return topology.TableName{Schema: parts[0], Name: parts[1]}, nil
	default:
		err = fmt.Errorf("%q is not of the form table or schema.table", s)
	}
	return topology.TableName{}, err
}

// parseColumn reads table.column or schema.table.column; the first form is of a table in schema.
func parseColumn(s, schema string) (topology.TableName, string, error) {
	parts, err := nameParts(s)
	switch {
	case err != nil:
	case len(parts) == 2:
		return topology.TableName{Schema: schema, Name: parts[0]}, parts[1], nil
	case len(parts) == 3:
		return topology.TableName{Schema: parts[0], Name: parts[1]}, parts[2], nil
	default:
		err = fmt.Errorf("%q is not of the form table.column or schema.table.column", s)
	}
	return topology.TableName{}, "", err
}

// nameParts cuts a name at its dots. A part may be written in double quotes; as they stand, names
// are as the catalog has them: nothing is folded to lower case.
func nameParts(s string) (parts []string, err error) {
	for rest := s; ; rest = rest[1:] {
		var part string
		if strings.HasPrefix(rest, `"`) {
			if part, rest, err = quoted(rest); err != nil {
				return nil, err
			}
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			part, rest = rest[:end], rest[end:]
		}
		if part == "" || rest != "" && rest[0] != '.' {
			return nil, errors.New(strconv.Quote(s) + " is not a name")
		}
		parts = append(parts, part)
		if rest == "" {
			return parts, nil
		}
	}
}

// adminDatabase is the virtual database of the admin console.
const adminDatabase = "shardproxy"

func (k *checker) cluster(c *Cluster) {
	k.nonEmpty("cluster.name", c.Name)
	k.nonEmpty("cluster.database", c.Database)
	if c.Database == adminDatabase {
		k.addf("cluster.database", "%q is the admin console's", adminDatabase)
	}
	if c.ServiceUser == "" && len(k.config.Users) == 0 {
		k.addf("cluster.service_user", "is missing, and there is no user whose role could serve instead")
	}
}

func (k *checker) shards(shards []Shard) {
	if len(shards) == 0 {
		k.addf("shards", "there are none: at least one [[shards]] is needed")
	}
	names := map[string]bool{}
	nodes := map[Node]string{}
	for i := range shards {
		s := &shards[i]
		key := fmt.Sprintf("shards[%d]", i)
		k.nonEmpty(key+".name", s.Name)
		if names[s.Name] {
			k.addf(key+".name", "shard %q is listed twice", s.Name)
		}
		names[s.Name] = true
		primaries := 0
		for j, n := range s.Nodes {
			nodeKey := fmt.Sprintf("%s.nodes[%d]", key, j)
			k.node(nodeKey, n)
			if n.Role == topology.Primary.String() {
				primaries++
			}
			n.Role = "" // the same node under another role is still the same
			if other, ok := nodes[n]; ok {
				k.addf(nodeKey, "is also a node of shard %q: two would hold each other's rows", other)
			}
			nodes[n] = s.Name
		}
		if primaries != 1 {
			k.addf(key+".nodes", "has %d primaries, not one", primaries)
		}
	}
}

func (k *checker) node(key string, n Node) {
	k.nonEmpty(key+".host", n.Host)
	k.between(key+".port", n.Port, 1, 65535)
	k.nonEmpty(key+".database", n.Database)
	k.oneOf(key+".role", n.Role, topology.Primary.String(), topology.Replica.String())
}

func (k *checker) ranges(ranges []Range) {
	if len(ranges) == 0 {
		return
	}
	shards, keyRanges, err := k.config.Topology()
	if err != nil {
		k.keyError(err)
		return
	}
	if _, err := topology.NewSnapshot(0, shards, keyRanges, nil); err != nil && len(shards) > 0 {
		k.addf("ranges", "in order of their start, counted from 0: %s", strings.TrimPrefix(err.Error(), "topology: "))
	}
}

func (k *checker) tables(t *Tables) {
	k.oneOf("tables.unlisted", t.Unlisted, "reference", "refuse")
	for i, column := range t.Columns {
		k.nonEmpty(fmt.Sprintf("tables.columns[%d]", i), column)
	}
	rules, err := k.config.KeyRules()
	if err != nil {
		k.keyError(err)
		return
	}
	if len(rules.Explicit) < len(t.Explicit) {
		k.addf("tables.explicit", "a table is listed twice")
	}
	for i, s := range t.Reference {
		if table, _ := parseTable(s); rules.Explicit[table] != "" {
			k.addf(fmt.Sprintf("tables.reference[%d]", i), "table %v is in tables.explicit too", table)
		}
	}
}

// keyError is a fault of one key.
type keyError struct {
	key string
	err error
}

// keyErrorf is the fault err of the i-th element of a list.
func keyErrorf(format string, i int, err error) error {
	return &keyError{fmt.Sprintf(format, i), err}
}

func (e *keyError) Error() string { return e.key + ": " + e.err.Error() }
func (e *keyError) Unwrap() error { return e.err }

func (k *checker) keyError(err error) {
	var fault *keyError
	if errors.As(err, &fault) {
		k.addf(fault.key, "%v", fault.err)
	}
}
