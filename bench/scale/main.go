// Command scale measures what large topologies cost a proxy and the catalog, and writes docs/scale.md and docs/scale.svg:
//
//	go run ./bench/scale -docs docs
//
// It starts a PostgreSQL of its own for the catalog, with data that is synced to disk, as in production.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"shardproxy/internal/plot"
)

const (
	figuresBegin = "<!-- written by bench/scale: begin -->"
	figuresEnd   = "<!-- end -->"
)

func main() {
	docs := flag.String("docs", "", "folder of scale.md and scale.svg, which are written; without it, the table is printed")
	sizes := flag.String("shards", "1000,10000,100000", "sizes to measure")
	rounds := flag.Int("rounds", 5, "how often each is measured; the shortest counts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, *docs, *sizes, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, docs, sizes string, rounds int) error {
	var counts []int
	for field := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || rounds < 1 {
			return fmt.Errorf("-shards %s, -rounds %d: numbers above 0 are needed", sizes, rounds)
		}
		counts = append(counts, n)
	}
	server, err := startCatalog(ctx)
	if err != nil {
		return err
	}
	defer server.stop()
	var all []*result
	for i, n := range counts {
		r, err := measure(ctx, server, fmt.Sprintf("scale%d", i), n, rounds)
		if err != nil {
			return fmt.Errorf("%d shards: %w", n, err)
		}
		fmt.Fprintf(os.Stderr, "%d shards: done\n", n)
		all = append(all, r)
	}
	if docs == "" {
		_, err := io.WriteString(out, table(all))
		return err
	}
	if err := plot.Replace(filepath.Join(docs, "scale.md"), figuresBegin, figuresEnd, table(all)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "scale.svg"), []byte(draw(all).SVG()), 0o644)
}
