// Command moves measures what moves cost: those who wait for a cutover, those who write elsewhere, and how fast rows are copied.
//
//	go run ./bench/moves -docs docs
//
// It starts a cluster of its own (four shards that sync to disk, a catalog, two proxies), and writes to it through both proxies while
// ranges move to and fro. A write that fails ends it with an error.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"shardproxy/internal/plot"
)

const (
	figuresBegin = "<!-- written by bench/moves: begin -->"
	figuresEnd   = "<!-- end -->"
)

// options of a run.
type options struct {
	cutovers int           // at least so many are measured
	rate     int           // writes per second
	rows     int           // of the range whose copy is measured
	rounds   int           // of the copy without writers
	before   time.Duration // for which latencies are taken before anything moves
}

func main() {
	var o options
	docs := flag.String("docs", "", "folder of moves.md, moves.svg and moves.json, which are written; without it, the table is printed")
	flag.IntVar(&o.cutovers, "cutovers", 32, "cutovers to measure")
	flag.IntVar(&o.rate, "rate", 1000, "writes per second")
	flag.IntVar(&o.rows, "rows", 600_000, "rows of half a KB to copy")
	flag.IntVar(&o.rounds, "rounds", 3, "copies without writers; the shortest of each kind counts")
	flag.DurationVar(&o.before, "before", 10*time.Second, "how long latencies are taken before anything moves")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *docs, o); err != nil {
		fmt.Fprintln(os.Stderr, "moves:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, docs string, o options) (err error) {
	if o.cutovers < 1 || o.rate < 10 || o.rows < 1000 || o.rounds < 1 || o.before < time.Second {
		return fmt.Errorf("%+v: at least 1 cutover, 10 writes a second, 1000 rows, 1 round and 1s are needed", o)
	}
	c, err := startCluster(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		if stopped := c.stop(); err == nil {
			err = stopped
		}
	}()
	r, err := measure(ctx, c, o)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, c.Log())
	}
	if docs == "" {
		_, err := io.WriteString(out, r.table())
		return err
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(docs, "moves.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(docs, "moves.svg"), []byte(r.draw().SVG()), 0o644); err != nil {
		return err
	}
	return plot.Replace(filepath.Join(docs, "moves.md"), figuresBegin, figuresEnd, r.table()+"\n![cutovers by how long they took](moves.svg)\n")
}

// measure takes all figures from one cluster.
func measure(ctx context.Context, c *cluster, o options) (*result, error) {
	r := &result{Rate: o.rate}
	var err error
	if r.Copy, err = measureCopy(ctx, c, o); err != nil {
		return nil, fmt.Errorf("copying: %w", err)
	}
	progress("copies: done")
	w, err := c.write(ctx, o.rate)
	if err != nil {
		return nil, err
	}
	defer w.stop()
	began := time.Now()
	if err := w.sleep(ctx, o.before); err != nil {
		return nil, err
	}
	before := span{began, time.Now()}
	copying, cleaning, err := moveLarge(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("the large move: %w", err)
	}
	progress("the large move: done")
	if err := toAndFro(ctx, c, w, o.cutovers); err != nil {
		return nil, fmt.Errorf("moving to and fro: %w", err)
	}
	w.stop()
	if err := w.failed(); err != nil {
		return nil, err
	}
	all := w.all()
	r.Writes, r.Before, r.Copying, r.Cleaning = len(all), during(all, before), during(all, copying), during(all, cleaning)
	r.Cutovers, err = c.cutovers(all)
	return r, err
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
