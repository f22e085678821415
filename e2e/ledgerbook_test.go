package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"shardproxy/topology"
)

// book is what writers and readers were told.
//
//	users.n       is counted up by single statements: as often as was acknowledged, and at most as often as was asked for
//	users.m       is counted by transactions, each of which leaves a project with each user that it counts
//	projects      also come and go by themselves
//	settings.v    is counted up by update-or-insert
type book struct {
	*ledgerTest
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	writers []*bookWriter

	mu     sync.Mutex // guards the fields below; those of the ledgerTest have their own
	done   map[string]int
	errors map[string]int // by SQLSTATE, or "lost" for a connection that broke
	first  map[string]string
	failed []string
}

// presence of a row.
type presence uint8

const (
	absent presence = iota
	present
	either // its writer was not told
)

// project is the key of a row.
type project struct{ user, id int64 }

// group is what a transaction has to leave, all of it or nothing.
type group struct {
	rows   []project
	counts map[int64]int64 // what it adds to users.m
}

// counter has been counted up.
type counter struct{ acknowledged, maybe int64 }

func (c counter) fits(n int64) bool { return c.acknowledged <= n && n <= c.acknowledged+c.maybe }

func (l *ledgerTest) openBook(t *testing.T) *book {
	t.Helper()
	b := &book{ledgerTest: l, done: make(map[string]int), errors: make(map[string]int), first: make(map[string]string)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	b.cancel = cancel
	for i := range bookWriters {
		w := newBookWriter(b, i)
		b.writers = append(b.writers, w)
		b.wg.Go(func() { w.run(ctx) })
	}
	for i := range l.dsns {
		r := &bookClient{book: b, name: fmt.Sprintf("reader %d", i), proxy: i}
		b.wg.Go(func() { r.read(ctx) })
	}
	t.Cleanup(b.stop)
	return b
}

func (b *book) stop() {
	b.cancel()
	b.wg.Wait()
}

// did notes something that a client was told to be done.
func (b *book) did(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done[what]++
}

// wrong notes something that must not be.
func (b *book) wrong(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.failed) < 20 { // more tell nothing more
		b.failed = append(b.failed, text)
		b.tell("WRONG: %s", text)
	}
}

// progress waits until each writer and each reader has done some more.
func (b *book) progress(t *testing.T, what string) {
	t.Helper()
	clients := func() map[string]int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return maps.Clone(b.done)
	}
	before := clients()
	waitFor(t, what, func() bool {
		now, going := clients(), 0
		for name, n := range now {
			if n >= before[name]+5 {
				going++
			}
		}
		return going == bookWriters+len(b.dsns)
	})
}

// check compares the rows of the shards with what the writers were told.
func (b *book) check(t *testing.T) {
	t.Helper()
	for _, text := range b.failed {
		t.Error(text)
	}
	snap, err := b.journal.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := newStored()
	for table, sql := range map[string]string{
		"users": "SELECT id, 0, n, m FROM users", "projects": "SELECT creator_user_id, id, 0, 0 FROM projects", "settings": "SELECT user_id, id, v, 0 FROM settings",
	} {
		for i, shard := range b.harnessShards().Shards {
			for _, row := range onShard(t, shard, sql) {
				key := project{int64(number(t, row[0])), int64(number(t, row[1]))}
				s.put(table, key, [2]int64{int64(number(t, row[2])), int64(number(t, row[3]))}, i, int(snap.Owner(topology.HashInt(key.user))))
			}
		}
	}
	for _, fault := range b.faults(s) {
		t.Error(fault)
	}
}

// stored is the rows of all shards, by tables and keys, and what is wrong with where they are.
type stored struct {
	tables map[string]map[project][2]int64
	faults []string
}

func newStored() *stored {
	return &stored{tables: map[string]map[project][2]int64{"users": {}, "projects": {}, "settings": {}}}
}

// put adds a row with two numbers. Each is there once, on its owner.
func (s *stored) put(table string, key project, numbers [2]int64, shard, owner int) {
	if shard != owner {
		s.faults = append(s.faults, fmt.Sprintf("%s: row %v is on shard s%d, its owner is s%d", table, key, shard+1, owner+1))
	}
	if _, twice := s.tables[table][key]; twice {
		s.faults = append(s.faults, fmt.Sprintf("%s: row %v is there twice", table, key))
	}
	s.tables[table][key] = numbers
}

// faults lists all that is not as the clients were told. It takes the projects out of s.
func (b *book) faults(s *stored) []string {
	faults := s.faults
	users, projects := s.tables["users"], s.tables["projects"]
	for k := int64(bookFixed); k < bookFixed+bookFixedMax; k++ {
		if _, there := users[project{k, 0}]; !there {
			faults = append(faults, fmt.Sprintf("user %d, who was never written, has gone", k))
		}
	}
	for _, keys := range [][2]int64{{1, bookAccounts}, {bookFixed, bookFixed + bookFixedMax - 1}} {
		for k := keys[0]; k <= keys[1]; k++ {
			if _, there := projects[project{k, 0}]; !there {
				faults = append(faults, fmt.Sprintf("project %d, which was never written, has gone", k))
			}
			delete(projects, project{k, 0})
		}
	}
	if n := bookAccounts + bookFixedMax; len(users) > n {
		faults = append(faults, fmt.Sprintf("there are %d users, but nobody has made more than %d", len(users), n))
	}
	for _, w := range b.writers {
		faults = append(faults, w.faults(s)...)
	}
	for row := range projects {
		faults = append(faults, fmt.Sprintf("project %v is there, which nobody has made", row))
	}
	return faults
}

func (b *book) report(t *testing.T) {
	t.Helper()
	for _, what := range slices.Sorted(maps.Keys(b.done)) {
		t.Logf("%6d × %s", b.done[what], what)
	}
	for _, code := range slices.Sorted(maps.Keys(b.errors)) {
		t.Logf("%6d × %s: %s", b.errors[code], code, b.first[code])
	}
}
