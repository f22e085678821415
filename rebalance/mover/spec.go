package mover

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"shardproxy/topology"
)

// Table is one sharded table whose rows move.
type Table struct {
	topology.TableName
	Key     string // the column of the shard key
	KeyType topology.KeyType
}

// Spec says what moves from where to where. Columns, primary keys and partitions are read from the databases.
type Spec struct {
	Cluster string // name of the cluster; with ID it names the slot
	ID      int64  // of the move, above 0
	// Tables are all sharded tables of the keyspace. Partitions may be listed; they go with their table.
	Tables []Table
	Ranges []topology.KeyRange // the owner is ignored
	// Source and Target lead directly to the primaries, not through a pool: replication, exported snapshots
	// and session locks need a session. Password, TLS and the like are taken from them.
	Source, Target *pgx.ConnConfig
}

// Side is one of the two databases.
type Side uint8

const (
	Source Side = iota // has the rows
	Target             // gets them
)

func (s Side) String() string { return [...]string{"source", "target"}[s] }

// Mover does the work of one move in one direction. Its methods may be called again after any error; those
// that write may not overlap.
type Mover struct {
	spec    Spec
	name    string // of slot, publication, progress row, lock and mark
	reverse bool
	ranges  ranges
}

// New checks the spec. It connects to nobody.
func New(spec Spec) (*Mover, error) {
	switch {
	case spec.ID <= 0:
		return nil, errors.New("a move needs a number above 0")
	case spec.Source == nil || spec.Target == nil:
		return nil, errors.New("a move needs a source and a target")
	case len(spec.Tables) == 0:
		return nil, errors.New("a move needs tables")
	}
	for _, t := range spec.Tables {
		if t.Key == "" || t.KeyType == topology.KeyNone {
			return nil, fmt.Errorf("table %s has no shard key", t.TableName)
		}
	}
	r, err := newRanges(spec.Ranges)
	if err != nil {
		return nil, err
	}
	spec.Tables = slices.Clone(spec.Tables)
	return &Mover{spec: spec, name: moveName(spec.Cluster, spec.ID), ranges: r}, nil
}

// Reverse is the mover of the way back: what the target writes after it was opened flows to the source.
func (m *Mover) Reverse() *Mover {
	back := *m
	back.spec.Source, back.spec.Target = m.spec.Target, m.spec.Source
	back.reverse = !m.reverse
	if back.name = moveName(m.spec.Cluster, m.spec.ID); back.reverse {
		back.name += "_back"
	}
	return &back
}

// Spec gives what the mover was made from, for another one like it.
func (m *Mover) Spec() Spec {
	spec := m.spec
	spec.Tables, spec.Ranges = slices.Clone(spec.Tables), slices.Clone(spec.Ranges)
	return spec
}

// Name of the replication slot, the publication and the progress row. Journal it before Prepare.
func (m *Mover) Name() string { return m.name }

// mark is the same for both directions, so that neither streams what the other wrote.
func (m *Mover) mark() string { return moveName(m.spec.Cluster, m.spec.ID) }

// NamePrefix begins the names of all moves, so that what a vanished cluster left can be found.
const NamePrefix = "shardproxy_move_"

// moveName fits a replication slot: lower-case letters, digits and _, at most 63. A cluster whose name does not
// fit is told by a hash.
func moveName(cluster string, id int64) string {
	const room = 20 // 63 - prefix - "_" - 19 digits - "_back" leaves 22
	fits := len(cluster) <= room && strings.Trim(cluster, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
	if !fits {
		h := fnv.New64a()
		h.Write([]byte(cluster))
		cluster = fmt.Sprintf("x%016x", h.Sum64())
	}
	return fmt.Sprintf("%s%s_%d", NamePrefix, cluster, id)
}

func (m *Mover) config(side Side) *pgx.ConnConfig {
	if side == Source {
		return m.spec.Source
	}
	return m.spec.Target
}

func quote(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

func quoteName(n topology.TableName) string { return quote(n.Schema, n.Name) }

// literal quotes a string for SQL; backslashes are plain because our sessions set standard_conforming_strings.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
