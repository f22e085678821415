package topology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// File is the topology for people: what `shardctl export` writes and `init` and `import` read, as TOML. Its keys are
// those of the configuration file of a proxy without a catalog.
type File struct {
	Cluster FileCluster `toml:"cluster"`
	Shards  []FileShard `toml:"shards"`
	Ranges  []FileRange `toml:"ranges"`
	Tables  FileTables  `toml:"tables"`
}

// FileCluster names the cluster. Epoch is the one that the file was exported at, 0 in a file made by hand.
type FileCluster struct {
	Name  string `toml:"name"`
	Epoch uint64 `toml:"epoch,omitempty"`
}

// FileShard is one shard.
type FileShard struct {
	Name  string     `toml:"name"`
	State string     `toml:"state,omitempty"` // "" is active
	Nodes []FileNode `toml:"nodes"`
}

// FileNode is one node of a shard.
type FileNode struct {
	Host     string `toml:"host"`
	Port     int    `toml:"port"`
	Database string `toml:"database"`
	Role     string `toml:"role"`
}

// FileRange is [Start, End): 16 hexadecimal digits each; an empty End is the end of the ring.
type FileRange struct {
	Start string `toml:"start"`
	End   string `toml:"end"`
	Shard string `toml:"shard"`
}

// FileTables are the rules: names are schema.table and schema.table.column, with a part in double quotes that
// holds a dot or a quote. In Named the schema may be left out, for any.
type FileTables struct {
	Explicit  []string `toml:"explicit"`
	Reference []string `toml:"reference"`
	Columns   []string `toml:"columns"`
	Named     []string `toml:"named"`
	Unlisted  string   `toml:"unlisted"` // "reference" or "refuse"
}

// File gives s for export.
func (s *Snapshot) File() File {
	f := File{
		Cluster: FileCluster{Name: s.Cluster, Epoch: uint64(s.Epoch)},
		Shards:  make([]FileShard, len(s.Shards)), Ranges: make([]FileRange, len(s.ranges)),
		Tables: FileTables{Columns: slices.Clone(s.Rules.Columns), Explicit: columnNames(s.Rules.Explicit), Named: columnNames(s.Rules.Named), Unlisted: "reference"},
	}
	for i, shard := range s.Shards {
		f.Shards[i] = FileShard{Name: shard.Name}
		if shard.State != ShardActive {
			f.Shards[i].State = shard.State.String()
		}
		for _, n := range shard.Nodes {
			f.Shards[i].Nodes = append(f.Shards[i].Nodes, FileNode{Host: n.Host, Port: n.Port, Database: n.Database, Role: n.Role.String()})
		}
	}
	for i, r := range s.ranges {
		f.Ranges[i] = FileRange{Start: hexHash(r.Start), Shard: s.Shards[r.Shard].Name}
		if r.End != 0 {
			f.Ranges[i].End = hexHash(r.End)
		}
	}
	for _, t := range slices.SortedFunc(maps.Keys(s.Rules.Reference), compareTables) {
		f.Tables.Reference = append(f.Tables.Reference, joinName(t.Schema, t.Name))
	}
	if s.Rules.RefuseUnlisted {
		f.Tables.Unlisted = "refuse"
	}
	return f
}

// columnNames writes table → column as schema.table.column.
func columnNames(columns map[TableName]string) (names []string) {
	for _, t := range slices.SortedFunc(maps.Keys(columns), compareTables) {
		if t.Schema == "" {
			names = append(names, joinName(t.Name, columns[t]))
			continue
		}
		names = append(names, joinName(t.Schema, t.Name, columns[t]))
	}
	return names
}

// Content reads f. Without ranges the shards get equal ones, in their order; without an epoch it is the first.
// Whether it all fits together is for New to say.
func (f *File) Content() (Content, error) {
	c, err := f.content()
	if err != nil {
		return Content{}, fmt.Errorf("topology: %w", err)
	}
	return c, nil
}

func (f *File) content() (c Content, err error) {
	c.Cluster, c.Epoch = f.Cluster.Name, max(1, Epoch(f.Cluster.Epoch))
	if c.Shards, err = f.shards(); err != nil {
		return c, err
	}
	if c.Ranges, err = f.ranges(); err != nil {
		return c, err
	}
	c.Rules, err = f.Tables.rules()
	return c, err
}

func (f *File) shards() ([]Shard, error) {
	shards := make([]Shard, len(f.Shards))
	for i, s := range f.Shards {
		shards[i].Name = s.Name
		var known bool
		if shards[i].State, known = parseShardState(cmp.Or(s.State, ShardActive.String())); !known {
			return nil, fmt.Errorf("shards[%d].state: %q is neither active, draining nor joining", i, s.State)
		}
		for j, n := range s.Nodes {
			node := Node{Host: n.Host, Port: n.Port, Database: n.Database, Role: Primary}
			switch n.Role {
			case Primary.String():
			case Replica.String():
				node.Role = Replica
			default:
				return nil, fmt.Errorf("shards[%d].nodes[%d].role: %q is neither primary nor replica", i, j, n.Role)
			}
			shards[i].Nodes = append(shards[i].Nodes, node)
		}
	}
	return shards, nil
}

func (f *File) ranges() (ranges []KeyRange, err error) {
	if len(f.Ranges) == 0 {
		return EqualRanges(len(f.Shards)), nil
	}
	ids := make(map[string]ShardID, len(f.Shards))
	for i, s := range f.Shards {
		ids[s.Name] = ShardID(i)
	}
	ranges = make([]KeyRange, len(f.Ranges))
	for i, r := range f.Ranges {
		id, ok := ids[r.Shard]
		if !ok {
			return nil, fmt.Errorf("ranges[%d].shard: %q is not one of the shards", i, r.Shard)
		}
		ranges[i].Shard = id
		if ranges[i].Start, err = ParseKeyHash(r.Start); err != nil {
			return nil, fmt.Errorf("ranges[%d].start: %w", i, err)
		}
		if r.End == "" {
			continue
		}
		if ranges[i].End, err = ParseKeyHash(r.End); err != nil {
			return nil, fmt.Errorf("ranges[%d].end: %w", i, err)
		}
	}
	slices.SortFunc(ranges, func(a, b KeyRange) int { return cmp.Compare(a.Start, b.Start) })
	return ranges, nil
}

func (t *FileTables) rules() (KeyRules, error) {
	r := KeyRules{Explicit: map[TableName]string{}, Reference: map[TableName]bool{}, Columns: slices.Clone(t.Columns), Named: map[TableName]string{}}
	switch t.Unlisted {
	case "", "reference":
	case "refuse":
		r.RefuseUnlisted = true
	default:
		return r, fmt.Errorf("tables.unlisted: %q is neither reference nor refuse", t.Unlisted)
	}
	for i, s := range t.Explicit {
		table, column, err := ParseColumnName(s, "public")
		if err != nil {
			return r, fmt.Errorf("tables.explicit[%d]: %w", i, err)
		}
		if _, twice := r.Explicit[table]; twice {
			return r, fmt.Errorf("tables.explicit[%d]: table %v is listed twice", i, table)
		}
		r.Explicit[table] = column
	}
	for i, s := range t.Reference {
		table, err := ParseTableName(s, "public")
		if err != nil {
			return r, fmt.Errorf("tables.reference[%d]: %w", i, err)
		}
		r.Reference[table] = true
	}
	for i, s := range t.Named {
		table, column, err := ParseColumnName(s, "")
		if err != nil {
			return r, fmt.Errorf("tables.named[%d]: %w", i, err)
		}
		r.Named[table] = column
	}
	return r, nil
}
