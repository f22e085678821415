package mover

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"shardproxy/topology"
)

// differencesMax is how many differing rows are named per table by default.
const differencesMax = 10

// VerifyOptions of a comparison.
type VerifyOptions struct {
	// Frozen are the states that are compared, by Side; nil is the present one. After the cutover the source stands still in
	// the ranges, and the target's state is that of just before it was opened.
	Frozen [2]*Frozen
	Max    int // differing rows to name per table; 0 for 10
}

// TableCheck is what came of one table.
type TableCheck struct {
	Table       topology.TableName
	Rows        [2]int64 // by Side
	Differences []Difference
	More        bool // there are more differences than are named
}

// Difference is one row that is not the same on both sides.
type Difference struct {
	Identity []string // the values of the primary key
	Key      string   // the shard key
	On       [2]bool  // by Side: whether the row is there
}

func (d Difference) String() string {
	what := "differs"
	switch {
	case !d.On[Source]:
		what = "is on the target only"
	case !d.On[Target]:
		what = "is missing on the target"
	}
	return fmt.Sprintf("(%s) of key %s %s", strings.Join(d.Identity, ", "), d.Key, what)
}

// Frozen is a state of one side, as it was at Freeze. It holds a transaction open, which keeps VACUUM from its work: Close it soon.
type Frozen struct {
	conn *pgx.Conn
	name string
}

// Freezer connects to a side, so that Freeze takes no longer than a query. Close it.
func (m *Mover) Freezer(ctx context.Context, side Side) (*Frozen, error) {
	conn, err := m.connect(ctx, side)
	if err != nil {
		return nil, err
	}
	return &Frozen{conn: conn}, nil
}

// Freeze takes the present state, once.
func (f *Frozen) Freeze(ctx context.Context) error {
	results, err := f.conn.PgConn().Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot()").ReadAll()
	if err != nil {
		return fmt.Errorf("freezing a side: %w", ended(ctx, err))
	}
	f.name = string(results[len(results)-1].Rows[0][0])
	return nil
}

// Close lets the state go.
func (f *Frozen) Close() {
	if f.conn != nil {
		closeWriter(f.conn)
	}
}

// Verify compares the rows of the ranges on both sides: number and sum of row hashes per table, and where those differ,
// by parts of the primary keys down to single rows. It reads each table once, and again only where it differs.
func (m *Mover) Verify(ctx context.Context, options VerifyOptions) ([]TableCheck, error) {
	var sides [2]*pgx.Conn
	for _, side := range []Side{Source, Target} {
		conn, err := m.connect(ctx, side)
		if err != nil {
			return nil, err
		}
		defer closeWriter(conn)
		begin := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
		if f := options.Frozen[side]; f != nil {
			begin += "; SET TRANSACTION SNAPSHOT " + literal(f.name)
		}
		if _, err := conn.PgConn().Exec(ctx, begin).ReadAll(); err != nil {
			return nil, fmt.Errorf("verifying the %s: %w", side, ended(ctx, err))
		}
		sides[side] = conn
	}
	if options.Max <= 0 {
		options.Max = differencesMax
	}
	r := shapeReader{tx: sides[Source], want: m.spec.Tables}
	s, err := r.read(ctx)
	if err != nil {
		return nil, err
	}
	var checks []TableCheck
	for _, t := range s {
		v := verifier{mover: m, table: t, sides: sides, max: options.Max}
		check, err := v.run(ctx)
		if err != nil {
			return nil, fmt.Errorf("verifying table %s: %w", t.TableName, ended(ctx, err))
		}
		checks = append(checks, check)
	}
	return checks, nil
}

// verifier compares one table.
type verifier struct {
	mover *Mover
	table *table
	sides [2]*pgx.Conn
	max   int
	level int // of the buckets, from 1
}

const (
	// Each level splits the hashes of primary keys by bucketBits more.
	bucketBits = 12
	// rowsMax is how large a bucket may be that is compared row by row; the last level is, in any case.
	rowsMax    = 2000
	levelsLast = 4
)

// total is number and sum of hashes of a bucket's rows.
type total struct {
	rows int64
	sum  string
}

func (v *verifier) run(ctx context.Context) (check TableCheck, err error) {
	check.Table = v.table.TableName
	var differing []int64
	for v.level = 1; ; v.level++ {
		totals, err := v.totals(ctx, differing)
		if err != nil {
			return check, err
		}
		for side := range totals {
			for _, one := range totals[side] {
				if v.level == 1 {
					check.Rows[side] += one.rows
				}
			}
		}
		var largest int64
		if differing, largest = differ(totals); len(differing) == 0 {
			return check, nil
		}
		if len(differing) > v.max { // each has one row at least
			differing, check.More = differing[:v.max], true
		}
		if largest <= rowsMax || v.level == levelsLast {
			return check, v.rows(ctx, &check, differing)
		}
	}
}

func differ(totals [2]map[int64]total) (buckets []int64, largest int64) {
	for side := range totals {
		for bucket, one := range totals[side] {
			if other := totals[1-side][bucket]; one != other && !slices.Contains(buckets, bucket) {
				buckets = append(buckets, bucket)
				largest = max(largest, one.rows, other.rows)
			}
		}
	}
	slices.Sort(buckets)
	return buckets, largest
}

// identityHash is the hash of a row's primary key, and bucket its first bits.
func (v *verifier) identityHash() string {
	return "hashtextextended(ROW(" + strings.Join(v.identity(), ", ") + ")::text COLLATE \"C\", 0)"
}

func (v *verifier) bucket(level int) string {
	bits := level * bucketBits
	return fmt.Sprintf("((%s >> %d) & %d)", v.identityHash(), 64-bits, int64(1)<<bits-1)
}

func (v *verifier) identity() (names []string) {
	for _, name := range v.table.Identity {
		names = append(names, quote(name))
	}
	return names
}

// rowHash is the hash of all columns, by name, so that their order does not matter.
func (v *verifier) rowHash() string {
	var names []string
	for _, c := range v.table.Columns {
		names = append(names, quote(c.Name))
	}
	slices.Sort(names)
	return "hashtextextended(ROW(" + strings.Join(names, ", ") + ")::text COLLATE \"C\", 0)"
}

func (v *verifier) where(level int, buckets []int64) string {
	where := v.mover.ranges.predicate(v.table.hashSQL(""))
	if buckets != nil {
		where += " AND " + v.bucket(level) + " IN (" + strings.Trim(strings.Join(strings.Fields(fmt.Sprint(buckets)), ","), "[]") + ")"
	}
	return where
}

// both runs a query on both sides at once.
func (v *verifier) both(ctx context.Context, sql string, row func(side Side, values []string)) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, side := range []Side{Source, Target} {
		g.Go(func() error {
			results := v.sides[side].PgConn().ExecParams(ctx, sql, nil, nil, nil, nil)
			for results.NextRow() {
				var values []string
				for _, value := range results.Values() {
					values = append(values, string(value))
				}
				row(side, values)
			}
			if _, err := results.Close(); err != nil {
				return fmt.Errorf("%s: %w", side, err)
			}
			return nil
		})
	}
	return g.Wait()
}

func (v *verifier) totals(ctx context.Context, within []int64) (totals [2]map[int64]total, err error) {
	sql := fmt.Sprintf("SELECT %s, count(*), sum(%s) FROM %s WHERE %s GROUP BY 1", v.bucket(v.level), v.rowHash(), v.table.from(), v.where(v.level-1, within))
	totals = [2]map[int64]total{{}, {}}
	err = v.both(ctx, sql, func(side Side, values []string) {
		bucket, _ := strconv.ParseInt(values[0], 10, 64) // they are numbers: the query says so
		rows, _ := strconv.ParseInt(values[1], 10, 64)
		totals[side][bucket] = total{rows, values[2]}
	})
	return totals, err
}

// rows compares the rows of buckets one by one.
func (v *verifier) rows(ctx context.Context, check *TableCheck, buckets []int64) error {
	columns := append([]string{v.rowHash(), quote(v.table.Key)}, v.identity()...)
	sql := fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(columns, ", "), v.table.from(), v.where(v.level, buckets))
	var rows [2]map[string][]string
	rows[Source], rows[Target] = map[string][]string{}, map[string][]string{}
	err := v.both(ctx, sql, func(side Side, values []string) {
		id := strings.Join(values[2:], "\x00")
		if v.table.Whole { // NULL is not ''
			id += "\x00" + values[0]
		}
		if same := rows[side][id]; same != nil {
			values[0] += " " + same[0]
		}
		rows[side][id] = values
	})
	if err != nil {
		return err
	}
	for side := range rows {
		for id, values := range rows[side] {
			other, there := rows[1-side][id]
			if there && (other[0] == values[0] || side == int(Target)) {
				continue
			}
			d := Difference{Identity: values[2:], Key: values[1]}
			d.On[side], d.On[1-side] = true, there
			check.Differences = append(check.Differences, d)
		}
	}
	slices.SortFunc(check.Differences, func(a, b Difference) int {
		return cmp.Or(slices.Compare(a.Identity, b.Identity), cmp.Compare(a.String(), b.String()))
	})
	if len(check.Differences) > v.max {
		check.Differences, check.More = check.Differences[:v.max], true
	}
	return nil
}

// Frozen is the snapshot as a state of the source to compare with. It ends with the snapshot.
func (s *Snapshot) Frozen() *Frozen { return &Frozen{name: s.name} }
