package topology

import (
	"errors"
	"fmt"
	"slices"
)

func (c AddShard) apply(d *draft) error {
	s := c.Shard
	if err := checkShard(&s); err != nil {
		return err
	}
	if len(d.Shards) == ShardsMax {
		return fmt.Errorf("there are %d shards already, the most that is possible", ShardsMax)
	}
	at, found := d.findName(s.Name)
	if found {
		return errors.New("there is a shard of that name already")
	}
	for i, n := range s.Nodes {
		if slices.ContainsFunc(s.Nodes[:i], n.same) {
			return fmt.Errorf("node %v is listed twice", n)
		}
		if err := d.checkNew(n); err != nil {
			return err
		}
	}
	s.Nodes = slices.Clone(s.Nodes)
	id := ShardID(len(d.Shards))
	d.Shards = append(d.mutableShards(), s)
	d.names = slices.Insert(d.mutableNames(), at, id)
	d.sum += d.shardSum(&s)
	return nil
}

// checkNew refuses a node that a shard has already.
func (d *draft) checkNew(n Node) error {
	for i := range d.Shards {
		if slices.ContainsFunc(d.Shards[i].Nodes, n.same) {
			return fmt.Errorf("node %v is a node of shard %q already", n, d.Shards[i].Name)
		}
	}
	return nil
}

// apply renumbers the shards behind the one that goes.
func (c RemoveShard) apply(d *draft) error {
	id, err := d.shard(c.Name)
	if err != nil {
		return err
	}
	owned := 0
	for i := range d.ranges {
		if d.ranges[i].Shard == id {
			owned++
		}
	}
	if owned > 0 {
		return fmt.Errorf("it owns key ranges (%d of them); move them to other shards first", owned)
	}
	if id == 0 {
		return errors.New("it is the first shard, which has the sequences of all; give it another primary instead")
	}
	d.sum -= d.shardSum(&d.Shards[id])
	at, _ := d.findName(c.Name)
	d.names = slices.Delete(d.mutableNames(), at, at+1)
	d.Shards = slices.Delete(d.mutableShards(), int(id), int(id)+1)
	for i, other := range d.names {
		if other > id {
			d.names[i]--
		}
	}
	ranges := d.mutableRanges()
	for i := range ranges {
		if ranges[i].Shard > id {
			ranges[i].Shard--
		}
	}
	return nil
}

func (c SetShardState) apply(d *draft) error {
	id, err := d.shard(c.Name)
	if err != nil {
		return err
	}
	s := d.Shards[id]
	switch {
	case s.State == c.State:
		return fmt.Errorf("it is %v already", s.State)
	case c.State == ShardJoining:
		return errors.New("only a new shard can be joining")
	case s.State == ShardJoining && c.State != ShardActive:
		return errors.New("it is being added")
	}
	s.State = c.State
	if err := checkShard(&s); err != nil {
		return err
	}
	d.setShard(id, s)
	return nil
}

func (c AddNode) apply(d *draft) error {
	id, err := d.shard(c.Shard)
	if err != nil {
		return err
	}
	if c.Node.Role != Replica {
		return errors.New("only a replica can be added; it can be made the primary then")
	}
	if err := checkNode(&c.Node); err != nil {
		return err
	}
	if err := d.checkNew(c.Node); err != nil {
		return err
	}
	return d.setNodes(id, append(slices.Clone(d.Shards[id].Nodes), c.Node))
}

func (c RemoveNode) apply(d *draft) error {
	id, at, err := d.node(c.Shard, c.Node)
	if err != nil {
		return err
	}
	nodes := d.Shards[id].Nodes
	if nodes[at].Role == Primary {
		return errors.New("it is the primary; make another node the primary first, or remove the shard")
	}
	return d.setNodes(id, slices.Delete(slices.Clone(nodes), at, at+1))
}

func (c SetPrimary) apply(d *draft) error {
	id, at, err := d.node(c.Shard, c.Node)
	if err != nil {
		return err
	}
	if at == 0 {
		return errors.New("it is the primary already")
	}
	nodes := slices.Clone(d.Shards[id].Nodes)
	nodes[0].Role, nodes[at].Role = Replica, Primary
	return d.setNodes(id, nodes)
}

// node finds a node of a shard.
func (d *draft) node(shard string, n Node) (id ShardID, at int, err error) {
	if id, err = d.shard(shard); err != nil {
		return -1, -1, err
	}
	if at = slices.IndexFunc(d.Shards[id].Nodes, n.same); at < 0 {
		return -1, -1, fmt.Errorf("shard %q has no node %v", shard, n)
	}
	return id, at, nil
}

// setNodes gives a shard other nodes; the list becomes the draft's.
func (d *draft) setNodes(id ShardID, nodes []Node) error {
	s := d.Shards[id]
	s.Nodes = nodes
	if err := checkShard(&s); err != nil {
		return err
	}
	d.setShard(id, s)
	return nil
}

func (c SetTable) apply(d *draft) error {
	if err := checkTable(c.Table, false); err != nil {
		return err
	}
	column, sharded := d.Rules.Explicit[c.Table]
	switch {
	case c.Column != "" && c.Reference:
		return errors.New("a table is sharded or a reference table, not both")
	case c.Column == "" && !c.Reference && !sharded && !d.Rules.Reference[c.Table]:
		return errors.New("the rules do not list the table")
	case c.Column != "" && column == c.Column, c.Reference && d.Rules.Reference[c.Table]:
		return errors.New("that is its rule already")
	}
	before := rulesSum(&d.Rules)
	rules := d.mutableRules()
	delete(rules.Explicit, c.Table)
	delete(rules.Reference, c.Table)
	switch {
	case c.Column != "":
		rules.Explicit[c.Table] = c.Column
	case c.Reference:
		rules.Reference[c.Table] = true
	}
	d.sum += rulesSum(rules) - before
	return checkRules(rules)
}

func (c SetRules) apply(d *draft) error {
	if err := checkRules(&c.Rules); err != nil {
		return err
	}
	if sameRules(&c.Rules, &d.Rules) {
		return errors.New("these are the rules already")
	}
	d.sum += rulesSum(&c.Rules) - rulesSum(&d.Rules)
	d.Rules, d.ownRules = c.Rules, false
	return nil
}
