package topology

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// KeyType says how a shard key is hashed.
type KeyType uint8

const (
	KeyNone KeyType = iota
	KeyInt          // int2, int4, int8: hashint8extended
	KeyText         // text, varchar: hashtextextended
	KeyUUID         // uuid: uuid_hash_extended
)

// OIDs of the types that can be a shard key.
const (
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidText    = 25
	oidVarchar = 1043
	oidUUID    = 2950
)

// KeyTypeOf says how a column of this type is hashed; KeyNone where it cannot be a shard key.
func KeyTypeOf(oid uint32) KeyType {
	switch oid {
	case oidInt2, oidInt4, oidInt8:
		return KeyInt
	case oidText, oidVarchar:
		return KeyText
	case oidUUID:
		return KeyUUID
	}
	return KeyNone
}

func (k KeyType) String() string {
	switch k {
	case KeyInt:
		return "int"
	case KeyText:
		return "text"
	case KeyUUID:
		return "uuid"
	}
	return "none"
}

// TableKind says where the rows of a table live.
type TableKind uint8

const (
	Sharded   TableKind = iota + 1 // each row on the shard that owns its key hash
	Reference                      // a full copy on every shard
	View                           // no rows of its own: Table.Definition
	Other                          // a sequence or foreign table: what it gives is another thing on each shard
)

func (k TableKind) String() string {
	switch k {
	case Sharded:
		return "sharded"
	case Reference:
		return "reference"
	case View:
		return "view"
	case Other:
		return "other"
	}
	return "unknown"
}

// Volatility is PostgreSQL's provolatile.
type Volatility byte

const (
	Immutable Volatility = 'i'
	Stable    Volatility = 's'
	Volatile  Volatility = 'v'
)

// TableName is a table's schema and name, without quotes.
type TableName struct{ Schema, Name string }

func (n TableName) String() string { return n.Schema + "." + n.Name }

// Column is one live column of a table, in the order of the table.
type Column struct {
	Name      string
	Type      uint32 // type OID; of a domain, that of the type it stands on
	Length    int    // of a varchar(n): n, in characters; 0 for no limit, and for all other types
	NotNull   bool
	Default   Volatility // of the default expression, 0 where there is none
	Sequence  bool       // the default draws from a sequence (serial, identity, nextval)
	Draws     string     // the sequence, as regclass reads it, of which the default is the next number and nothing else
	Identity  bool       // an identity column
	Always    bool       // GENERATED ALWAYS AS IDENTITY
	Generated bool       // GENERATED ALWAYS AS (…) STORED
	Fuzzy     bool       // its collation is not deterministic: texts may be equal and yet hash differently
}

// keyType says how c is hashed as a shard key, or why it cannot be one.
func (c *Column) keyType() (KeyType, error) {
	t := KeyTypeOf(c.Type)
	switch {
	case t == KeyNone:
		return KeyNone, fmt.Errorf("type OID %d cannot be a shard key; smallint, integer, bigint, text, varchar and uuid can", c.Type)
	case c.Fuzzy:
		return KeyNone, errors.New("a text under a collation that is not deterministic cannot be a shard key")
	case c.Generated:
		return KeyNone, errors.New("a generated column cannot be the shard key, as its value is not known before the row is stored")
	}
	return t, nil
}

// Table is one table or view as the shards have it, with its place in the keyspace.
type Table struct {
	TableName
	Kind        TableKind
	KeyType     KeyType
	Key         int // index into Columns of the shard key; -1 where there is none
	Columns     []Column
	Primary     []string  // the columns of its primary key, in the order of the key
	Definition  string    // of a view: its query, with the names of tables and functions outside pg_catalog qualified
	Triggers    bool      // it, or a partition or child of it, has user triggers or rules (a view: rules besides its own SELECT)
	Stored      bool      // a materialized view: it has rows of its own, each shard those it saw when it was refreshed
	Fenced      bool      // it has the triggers of package fence
	Partitioned bool      // it has partitions, or will; they get its row triggers from PostgreSQL
	Parent      TableName // of a partition or inheritance child: the table whose placement it has
	Problem     string    // why its rows cannot be placed (Kind is Sharded and KeyType KeyNone), "" where all is well
}

// KeyColumn is the name of the shard key, "" where there is none.
func (t *Table) KeyColumn() string {
	if t.Key < 0 {
		return ""
	}
	return t.Columns[t.Key].Name
}

// Function sums up all overloads of one name.
type Function struct {
	Volatility Volatility // the worst of the overloads
	Builtin    bool       // lives in pg_catalog
	Aggregate  bool       // one of them is an aggregate
	SetOf      bool       // one of them returns a set
}

// Operator sums up all operators of one name that neither PostgreSQL nor an extension brought.
type Operator struct {
	Volatility Volatility // the worst of their functions
	Keys       bool       // one of them takes two values of the types that can be a shard key
}

// Schema is what the router knows of the tables and functions. Immutable.
type Schema struct {
	Version   uint64 // differs between any two schemas of this process
	Tables    map[TableName]*Table
	Functions map[string]Function // by bare name
	Operators map[string]Operator // by bare name
	Rules     KeyRules            // that placed the tables, and will place new ones
	Fenced    bool                // the shards have fences, which new tables are to get too
}

// NextSchemaVersion gives a Schema.Version. The counter is the one mutable state of the package: plans
// are cached by version, so no two schemas of the process may share one.
func NextSchemaVersion() uint64 { return schemaVersions.Add(1) }

var schemaVersions atomic.Uint64
