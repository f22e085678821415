package mover

import (
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"shardproxy/topology"
)

// BenchmarkCopy copies 200,000 rows of 1 KB; ns/op is for all of them.
func BenchmarkCopy(b *testing.B) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			w := benchWorld(b)
			var total int64
			for b.Loop() {
				b.StopTimer()
				snapshot, err := w.m.Prepare(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				w.exec(Target, "TRUNCATE notes")
				var bytes atomic.Int64
				b.StartTimer()
				if err := w.m.Copy(b.Context(), snapshot, CopyOptions{Workers: workers, Progress: func(p CopyProgress) { bytes.Store(p.Bytes) }}); err != nil {
					b.Fatal(err)
				}
				snapshot.Close()
				total += bytes.Load()
			}
			b.ReportMetric(float64(total)/1e6/b.Elapsed().Seconds(), "MB/s")
		})
	}
	// The same rows through one pair of connections, with nothing else: what COPY itself allows.
	b.Run("plain", func(b *testing.B) {
		w := benchWorld(b)
		total := int64(0)
		for b.Loop() {
			b.StopTimer()
			w.exec(Target, "TRUNCATE notes")
			b.StartTimer()
			total += plainCopy(b, w)
		}
		b.ReportMetric(float64(total)/1e6/b.Elapsed().Seconds(), "MB/s")
	})
}

func benchWorld(b *testing.B) *world {
	w := newWorld(b, plainRole, notesSchema, notes())
	w.exec(Source, "INSERT INTO notes SELECT i, i, repeat('x', 1000), i FROM generate_series(1, 200000) i")
	w.exec(Source, "VACUUM notes")
	return w
}

type counter struct {
	io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return c.Writer.Write(b)
}

func plainCopy(b *testing.B, w *world) int64 {
	source, err := w.m.connect(b.Context(), Source)
	if err != nil {
		b.Fatal(err)
	}
	defer closeWriter(source)
	target, err := w.m.connect(b.Context(), Target)
	if err != nil {
		b.Fatal(err)
	}
	defer closeWriter(target)
	r, p := io.Pipe()
	c := &counter{Writer: p}
	go func() {
		_, err := source.PgConn().CopyTo(b.Context(), c, "COPY (SELECT * FROM public.notes WHERE "+w.m.ranges.predicate(notes().hashSQL(""))+") TO STDOUT (FORMAT binary)")
		_ = p.CloseWithError(err)
	}()
	if _, err := target.PgConn().CopyFrom(b.Context(), r, "COPY public.notes FROM STDIN (FORMAT binary)"); err != nil {
		b.Fatal(err)
	}
	return c.n
}

// BenchmarkApply streams the change of 50,000 rows, all of which move; ns/op is from when the source has committed.
func BenchmarkApply(b *testing.B) {
	const fill = "INSERT INTO notes SELECT i, i, 'some text', i FROM generate_series(1, 50000) i"
	for _, c := range []struct{ name, before, sql string }{
		{"insert", "DELETE FROM notes", fill},
		{"update", "DELETE FROM notes; " + fill, "UPDATE notes SET n = n + 1"},
		{"delete", "DELETE FROM notes; " + fill, "DELETE FROM notes"},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, plainRole, notesSchema, notes())
			w.spec.Ranges = []topology.KeyRange{{}}
			w.m = w.mover()
			w.copy(CopyOptions{})
			s := start(b, w.m, StreamOptions{})
			rows := int64(0)
			for b.Loop() {
				b.StopTimer()
				w.exec(Source, c.before)
				s.catchUp()
				before := s.Status().Changes
				w.exec(Source, c.sql)
				b.StartTimer()
				s.catchUp()
				rows += s.Status().Changes - before
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
