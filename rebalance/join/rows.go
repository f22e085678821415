package join

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"shardproxy/topology"
)

const (
	bucketRows = 256     // in one bucket, more or less: what is copied for one row that differs
	bucketsMax = 1 << 16 // of one table
)

// table is one whose rows must be the same on all shards.
type table struct {
	topology.TableName
	from    string // what its own rows are read from
	columns string // that are stored, as a list
	buckets int    // a power of two
}

// referenceTables lists the reference tables of a schema by name: a partitioned one stands for its partitions, and one with children
// for itself.
func referenceTables(schema *topology.Schema) (list []*table) {
	for _, t := range schema.Tables {
		parent := schema.Tables[t.Parent]
		if t.Kind != topology.Reference || t.Problem != "" || parent != nil && parent.Partitioned {
			continue
		}
		one := &table{TableName: t.TableName, from: "ONLY " + qualified(t.TableName), buckets: 1}
		if t.Partitioned {
			one.from = qualified(t.TableName)
		}
		var columns []string
		for _, c := range t.Columns {
			if !c.Generated {
				columns = append(columns, identifier(c.Name))
			}
		}
		one.columns = strings.Join(columns, ", ")
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b *table) int { return strings.Compare(a.from, b.from) })
	return list
}

// hash of a row, whose bits also say which bucket it is in: so a row that was changed is in two buckets which differ.
const hash = "pg_catalog.hashtextextended((t.*)::pg_catalog.text, 0)"

// sums gives count and sum of hashes of the rows of each bucket that has some.
func (t *table) sums(ctx context.Context, s *session) (map[int]string, error) {
	rows, err := s.query(ctx, fmt.Sprintf("SELECT h & %d, count(*), sum(h::numeric) FROM (SELECT %s AS h FROM %s t) x GROUP BY 1", t.buckets-1, hash, t.from))
	if err != nil {
		return nil, err
	}
	sums := make(map[int]string, len(rows))
	for _, row := range rows {
		bucket, err := strconv.Atoi(row[0])
		if err != nil {
			return nil, err
		}
		sums[bucket] = row[1] + " " + row[2]
	}
	return sums, nil
}

// size chooses the number of buckets by the larger of both sides.
func (t *table) size(ctx context.Context, sessions ...*session) error {
	for _, s := range sessions {
		rows, err := s.column(ctx, "SELECT count(*) FROM "+t.from+" t")
		if err != nil {
			return err
		}
		for n, _ := strconv.Atoi(rows[0]); t.buckets < bucketsMax && t.buckets*bucketRows < n; {
			t.buckets *= 2
		}
	}
	return nil
}

// syncRows makes the tables on the new shard what they are on the other by one snapshot, and says in which of them something
// was different.
func (a *addition) syncRows(ctx context.Context, tables []*table) (changed []*table, err error) {
	defer func() {
		for _, s := range []*session{a.old, a.new} {
			end := "COMMIT"
			if err != nil {
				end = "ROLLBACK"
			}
			if _, e := s.query(context.WithoutCancel(ctx), end); err == nil {
				err = e
			}
		}
	}()
	if _, err := a.old.query(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"+topology.StableTexts); err != nil {
		return nil, err
	}
	if _, err := a.new.query(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL session_replication_role = replica;"+topology.StableTexts); err != nil {
		return nil, err
	}
	for _, t := range tables {
		differs, err := a.syncTable(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("table %v: %w", t.TableName, err)
		}
		if differs {
			changed = append(changed, t)
		}
	}
	return changed, nil
}

func (a *addition) syncTable(ctx context.Context, t *table) (differs bool, err error) {
	there, here, err := a.sumsOfBoth(ctx, t)
	if err != nil {
		return false, err
	}
	var buckets []string
	for bucket, sum := range there {
		if here[bucket] != sum {
			buckets = append(buckets, strconv.Itoa(bucket))
		}
	}
	for bucket := range here {
		if there[bucket] == "" {
			buckets = append(buckets, strconv.Itoa(bucket))
		}
	}
	if len(buckets) == 0 {
		return false, nil
	}
	where := fmt.Sprintf(" WHERE %s & %d = ANY ('{%s}')", hash, t.buckets-1, strings.Join(buckets, ","))
	if len(here) == 0 { // and then all
		where = ""
	} else if _, err := a.new.query(ctx, "DELETE FROM "+t.from+" t"+where); err != nil {
		return false, err
	}
	return true, a.copyRows(ctx, t, where)
}

// sumsOfBoth lets both shards read at the same time.
func (a *addition) sumsOfBoth(ctx context.Context, t *table) (there, here map[int]string, err error) {
	done := make(chan error, 1)
	go func() {
		var err error
		there, err = t.sums(ctx, a.old)
		done <- err
	}()
	here, err = t.sums(ctx, a.new)
	if e := <-done; e != nil {
		err = e
	}
	return there, here, err
}

func (a *addition) copyRows(ctx context.Context, t *table, where string) error {
	if t.columns == "" {
		return fmt.Errorf("it has no columns that can be copied")
	}
	from, to := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := a.old.PgConn().CopyTo(ctx, to, "COPY (SELECT "+t.columns+" FROM "+t.from+" t"+where+") TO STDOUT")
		_ = to.CloseWithError(err)
		done <- err
	}()
	tag, err := a.new.PgConn().CopyFrom(ctx, from, "COPY "+qualified(t.TableName)+" ("+t.columns+") FROM STDIN")
	_ = from.CloseWithError(err)
	if e := <-done; e != nil && err == nil {
		err = e
	}
	a.copied += tag.RowsAffected()
	return err
}

// sameRows refuses a table that is not the same on both: after all that was done, that would be a fault of ours, or a row whose text
// means another one there.
func (a *addition) sameRows(ctx context.Context, tables []*table) error {
	for _, s := range []*session{a.old, a.new} {
		if _, err := s.query(ctx, "BEGIN READ ONLY;"+topology.StableTexts); err != nil {
			return err
		}
		defer func() { _, _ = s.query(context.WithoutCancel(ctx), "ROLLBACK") }()
	}
	for _, t := range tables {
		there, here, err := a.sumsOfBoth(ctx, t)
		if err != nil {
			return err
		}
		if len(there) != len(here) {
			return a.otherRows(t)
		}
		for bucket, sum := range there {
			if here[bucket] != sum {
				return a.otherRows(t)
			}
		}
	}
	return nil
}

func (a *addition) otherRows(t *table) error {
	return refuse(notInState, "Look whether its values are the same text on both servers, and whether somebody writes there past the proxies.",
		"reference table %v has other rows on the new shard than on %s", t.TableName, a.old.name)
}

// empty refuses rows of sharded tables on a shard that owns no keys: statements for all keys would count them.
func (a *addition) empty(ctx context.Context) error {
	for _, t := range a.schema.Tables {
		if t.Kind != topology.Sharded {
			continue
		}
		rows, err := a.new.column(ctx, "SELECT true FROM ONLY "+qualified(t.TableName)+" LIMIT 1")
		if err != nil {
			return failed("the new shard cannot be looked at", err)
		}
		if len(rows) > 0 {
			return refuse(notInState, "A new shard begins as an empty database: createdb.", "the new shard owns no keys, but has rows of table %v", t.TableName)
		}
	}
	return nil
}
