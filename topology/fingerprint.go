package topology

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Fingerprint is the whole schema of one shard, object by object, in texts that are equal on two servers where the
// objects are: without OIDs, with qualified names, whatever the session's settings. Left out is what differs without
// harm, or is no part of what an application sees: the proxy's own schema and its fence triggers, what an extension
// brought (its name and version stand for it), values of sequences, tablespaces, and storage parameters of tables.
//
// A DBA's question comes first: the names of constraints and indexes and the order of columns belong to the schema,
// since statements that run on all shards may depend on them.
type Fingerprint struct {
	Shard string // how Differences calls it
	Sum   string // see ReadFingerprintSum

	objects map[objectKey]object
	columns map[string][]string // of each table, in their order
}

// objectKey names an object: kind and qualified name, quoted where SQL needs it.
type objectKey struct{ kind, name string }

// object is what is compared of one object.
type object struct {
	part   string   // the table, function … that it goes with: where that is missing, it is too
	values []string // of the aspects of its kind
}

// ReadFingerprint reads the whole schema by one statement, which costs the shard some 0.1 ms a table. It runs in a transaction
// of its own, so query must not be in one, and gives up soon where a table is locked. Of the session it leaves
// nothing changed. shard is for Fingerprint.Shard.
func ReadFingerprint(ctx context.Context, query Query, shard string) (*Fingerprint, error) {
	rows, err := query(ctx, fingerprintSettings+fingerprintObjects+"SELECT kind, name, part, place, def FROM objects ORDER BY place")
	if err != nil {
		return nil, fmt.Errorf("reading the schema of shard %s: %w", shard, err)
	}
	f, err := newFingerprint(shard, rows)
	if err != nil {
		return nil, fmt.Errorf("reading the schema of shard %s: %w", shard, err)
	}
	return f, nil
}

// ReadFingerprintSum gives Fingerprint.Sum of the shard, made by the server: two shards with the same sum have the same schema.
// Where sums differ, the schemas may still be equal, if a server does not keep its texts in UTF8. It costs
// the shard what ReadFingerprint costs, and the network next to nothing.
func ReadFingerprintSum(ctx context.Context, query Query) (string, error) {
	rows, err := query(ctx, fingerprintSettings+fingerprintObjects+fingerprintSum)
	if err == nil && (len(rows) != 1 || len(rows[0]) != 1) {
		err = fmt.Errorf("%d rows instead of one value", len(rows))
	}
	if err != nil {
		return "", fmt.Errorf("reading the checksum of the schema: %w", err)
	}
	return rows[0][0], nil
}

// The parts of a row, and the aspects in a definition, are separated by characters that no name has by accident.
const (
	aspectMark = "\x1f"
	partMark   = "\x1e"
)

// fingerprintSum must make of the objects what newFingerprint makes of their rows. The objects come in any order, so
// their hashes are combined by XOR; no two of them are alike.
var fingerprintSum = fmt.Sprintf(`SELECT concat(count(*), ' ',
	bit_xor(hashtextextended(concat(kind, chr(30), name, chr(30), place, chr(30), def) COLLATE "C", %d))) FROM objects`, hashSeed)

func newFingerprint(shard string, rows [][]string) (*Fingerprint, error) {
	f := &Fingerprint{Shard: shard, objects: make(map[objectKey]object, len(rows)), columns: make(map[string][]string)}
	sum := int64(0)
	for _, row := range rows {
		if len(row) != 5 {
			return nil, fmt.Errorf("a row has %d values instead of 5", len(row))
		}
		kind, name, part, place, def := row[0], row[1], row[2], row[3], row[4]
		f.objects[objectKey{kind, name}] = object{part: part, values: strings.Split(def, aspectMark)}
		if kind == kindColumn {
			f.columns[part] = append(f.columns[part], name)
		}
		sum ^= HashText(strings.Join([]string{kind, name, place, def}, partMark)).Signed()
	}
	f.Sum = strconv.Itoa(len(rows)) + " "
	if len(rows) > 0 {
		f.Sum += strconv.FormatInt(sum, 10)
	}
	return f, nil
}

// Difference is something of a schema that is not as on another shard.
type Difference struct {
	Kind string // of the object: table, column, index …
	Name string // of the object, qualified: email of public.users
	What string // what is different, as the end of a sentence: is text here, varchar(20) on s1
}

func (d Difference) String() string { return d.Kind + " " + d.Name + " " + d.What }

// Lesser says that no statement gives another result for it: it may be refused, or be slower.
func (d Difference) Lesser() bool {
	switch d.Kind {
	case kindOwner, kindPrivilege, kindRevocation, kindStatistics:
		return true
	}
	return false
}
