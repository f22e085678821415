package e2e

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
)

const settingsMax = 3 // of one account

// bookWriter writes to accounts of its own, one thing after the other, so that it knows what they must have.
type bookWriter struct {
	bookClient
	random *rand.Rand
	users  []int64
	next   int64 // id of a project

	counted  map[int64]counter   // users.n
	upserted map[project]counter // settings.v
	moved    map[int64]int64     // users.m, by what was acknowledged
	projects map[project]presence
	notes    []project // those that are there and may be deleted
	doubtful []group
}

func newBookWriter(b *book, number int) *bookWriter {
	w := &bookWriter{
		bookClient: bookClient{book: b, name: fmt.Sprintf("writer %d", number), proxy: number % len(b.dsns), extended: number%2 == 0},
		random:     rand.New(rand.NewPCG(b.seed, 100+uint64(number))), next: 1,
		counted: make(map[int64]counter), upserted: make(map[project]counter), moved: make(map[int64]int64), projects: make(map[project]presence),
	}
	for k := int64(1 + number); k <= bookAccounts; k += bookWriters {
		w.users = append(w.users, k)
	}
	return w
}

func (w *bookWriter) run(ctx context.Context) {
	w.work(ctx, func(ctx context.Context) {
		user := w.users[w.random.IntN(len(w.users))]
		switch w.random.IntN(8) {
		case 0:
			w.count(ctx, user)
		case 1:
			w.insert(ctx, user)
		case 2:
			w.remove(ctx)
		case 3:
			w.upsert(ctx, project{user, w.random.Int64N(settingsMax)})
		case 4:
			w.look(ctx, user)
		case 5:
			w.transact(ctx, map[int64]int64{user: 1})
		case 6, 7:
			other := w.users[w.random.IntN(len(w.users))]
			if other == user {
				return
			}
			w.transact(ctx, map[int64]int64{user: 5, other: -5})
		}
	})
}

// told is what came of a single statement; wanted is the number of rows that it must have had.
func (w *bookWriter) told(what string, affected, wanted int64, err error) outcome {
	o := w.outcome(what, err)
	if o == done && affected != wanted {
		w.wrong("%s, through proxy %s: %s has %d rows", w.name, w.proxies[w.proxy].name, what, affected)
	}
	if o == done {
		w.did(w.name)
	}
	return o
}

// number of the only value of an answer.
func (w *bookWriter) number(what string, rows [][]string, fits func(int64) bool) {
	if len(rows) != 1 {
		w.wrong("%s, through proxy %s: %s: %v", w.name, w.proxies[w.proxy].name, what, rows)
		return
	}
	if n, err := strconv.ParseInt(rows[0][0], 10, 64); err != nil || !fits(n) {
		w.wrong("%s, through proxy %s: %s: %v", w.name, w.proxies[w.proxy].name, what, rows)
	}
}

func tally[K comparable](counters map[K]counter, key K, o outcome) counter {
	c := counters[key]
	switch o {
	case done:
		c.acknowledged++
	case unknown:
		c.maybe++
	}
	counters[key] = c
	return c
}

func (w *bookWriter) count(ctx context.Context, user int64) {
	rows, affected, err := w.do(ctx, "UPDATE users SET n = n + 1 WHERE id = $1 RETURNING n", user)
	what := fmt.Sprintf("the count of user %d", user)
	o := w.told(what, affected, 1, err)
	c := tally(w.counted, user, o)
	if o == done {
		w.number(fmt.Sprintf("%s, want %+v", what, c), rows, c.fits)
	}
}

// look reads what this session has written.
func (w *bookWriter) look(ctx context.Context, user int64) {
	rows, _, err := w.do(ctx, "SELECT n FROM users WHERE id = $1", user)
	if what := fmt.Sprintf("a look at user %d, want %+v", user, w.counted[user]); w.outcome(what, err) == done {
		w.number(what, rows, w.counted[user].fits)
	}
}

func (w *bookWriter) upsert(ctx context.Context, key project) {
	const sql = "INSERT INTO settings VALUES ($1, $2, 1) ON CONFLICT (user_id, id) DO UPDATE SET v = settings.v + 1 RETURNING v"
	rows, affected, err := w.do(ctx, sql, key.user, key.id)
	what := fmt.Sprintf("setting %v", key)
	o := w.told(what, affected, 1, err)
	c := tally(w.upserted, key, o)
	if o == done {
		w.number(fmt.Sprintf("%s, want %+v", what, c), rows, c.fits)
	}
}

// fresh is a project that was never made.
func (w *bookWriter) fresh(user int64) project {
	w.next++
	return project{user, w.next}
}

func (w *bookWriter) insert(ctx context.Context, user int64) {
	p := w.fresh(user)
	_, affected, err := w.do(ctx, "INSERT INTO projects VALUES ($1, $2)", p.user, p.id)
	switch w.told(fmt.Sprintf("insert of project %v", p), affected, 1, err) {
	case done:
		w.projects[p] = present
		w.notes = append(w.notes, p)
	case undone:
		w.projects[p] = absent
	case unknown:
		w.projects[p] = either
	}
}

func (w *bookWriter) remove(ctx context.Context) {
	if len(w.notes) == 0 {
		return
	}
	i := w.random.IntN(len(w.notes))
	p := w.notes[i]
	_, affected, err := w.do(ctx, "DELETE FROM projects WHERE creator_user_id = $1 AND id = $2", p.user, p.id)
	o := w.told(fmt.Sprintf("delete of project %v", p), affected, 1, err)
	if o == undone {
		return
	}
	w.projects[p] = absent
	if o == unknown {
		w.projects[p] = either
	}
	w.notes[i] = w.notes[len(w.notes)-1]
	w.notes = w.notes[:len(w.notes)-1]
}

// transact counts users in one transaction, which leaves a project with each of them.
func (w *bookWriter) transact(ctx context.Context, counts map[int64]int64) {
	g := group{counts: counts}
	o := undone
	_, _, err := w.do(ctx, "BEGIN")
	what := "begin"
	for user, n := range counts {
		p := w.fresh(user)
		g.rows = append(g.rows, p)
		var affected int64
		if err == nil {
			what = fmt.Sprintf("count of user %d in a transaction", user)
			if _, affected, err = w.do(ctx, "UPDATE users SET m = m + $2 WHERE id = $1", user, n); err == nil && affected != 1 {
				w.wrong("%s: %s has %d rows", w.name, what, affected)
			}
		}
		if err == nil {
			what = fmt.Sprintf("insert of project %v in a transaction", p)
			_, _, err = w.do(ctx, "INSERT INTO projects VALUES ($1, $2)", p.user, p.id)
		}
	}
	if err == nil {
		what = fmt.Sprintf("commit of projects %v", g.rows)
		_, _, err = w.do(ctx, "COMMIT")
		o = w.outcome(what, err)
	} else {
		w.outcome(what, err)
	}
	if err != nil && !w.conn.IsClosed() {
		_, _, _ = w.do(ctx, "ROLLBACK")
	}
	switch o {
	case done:
		w.did(w.name)
		for _, p := range g.rows {
			w.projects[p] = present
			w.moved[p.user] += counts[p.user]
		}
	case undone:
		for _, p := range g.rows {
			w.projects[p] = absent
		}
	case unknown:
		for _, p := range g.rows {
			w.projects[p] = either
		}
		w.doubtful = append(w.doubtful, g)
	}
}

// faults compares what is stored with what the writer was told, and takes its projects out.
func (w *bookWriter) faults(s *stored) (faults []string) {
	users, projects, settings := s.tables["users"], s.tables["projects"], s.tables["settings"]
	fault := func(format string, args ...any) { faults = append(faults, w.name+": "+fmt.Sprintf(format, args...)) }
	moved := maps.Clone(w.moved)
	for _, g := range w.doubtful {
		there := 0
		for _, p := range g.rows {
			if _, ok := projects[p]; ok {
				there++
				moved[p.user] += g.counts[p.user]
			}
		}
		if there != 0 && there != len(g.rows) {
			fault("of a transaction, %d of projects %v are there", there, g.rows)
		}
	}
	for p, want := range w.projects {
		_, there := projects[p]
		if want == present && !there || want == absent && there {
			fault("project %v is there: %v", p, there)
		}
		delete(projects, p)
	}
	for _, user := range w.users {
		got, there := users[project{user, 0}]
		if !there || !w.counted[user].fits(got[0]) || got[1] != moved[user] {
			fault("user %d (there: %v) was counted to %d, want %+v, and by transactions to %d, want %d", user, there, got[0], w.counted[user], got[1], moved[user])
		}
		for id := range int64(settingsMax) {
			key := project{user, id}
			got, there := settings[key]
			if want := w.upserted[key]; there != (got[0] > 0) || !want.fits(got[0]) {
				fault("setting %v (there: %v) was counted to %d, want %+v", key, there, got[0], want)
			}
		}
	}
	return faults
}
