package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// finishing is a statement while it is run by a router.Finish: each shard gives rows for it, and the first of them does
// the last step over all of them.
type finishing struct {
	t      *router.Template
	f      *router.Finish
	shards []topology.ShardID
	sql    string       // the client's
	bound  *boundPortal // nil in the simple protocol
	portal string       // the client's, in the extended protocol
	limit  uint32       // rows of this Execute, 0 for all

	first   *lane
	params  []byte // the types of the client's parameters, 4 bytes each, as a shard describes them
	answer  []byte // RowDescription of the statement, as a shard describes it
	fields  []wire.Field
	columns [][]router.FinishColumn // of each input
	inputs  []pulledRows            // of each input
	bounds  pullBounds
	lanes   []*lane // that may still owe an answer
	known   bool    // what shards say of the texts is kept with the plan
}

// finished runs a statement whose last step is one shard's. Its rows go to the client.
func (s *Session) finished(ctx context.Context, w *finishing) error {
	s.ownRead = false
	var refused *router.Error
	if w.f, refused = s.srv.router.Finish(s.snap, s.env, w.t, w.sql); refused != nil {
		return refused
	}
	if err := s.placeInputs(w); err != nil {
		return err
	}
	if err := s.claimAll(ctx, w.shards, s.tx.open); err != nil {
		return err
	}
	var err error
	if w.first, err = s.lane(ctx, w.shards[0]); err != nil {
		return err
	}
	w.lanes = append(w.lanes, w.first)
	live := s.srv.now()
	w.bounds = pullBounds{bytesMax: live.FinishBytes, rowsMax: live.FinishRows}
	plan := w.f
	if err = s.describeFinish(w); err == nil {
		if err = s.pull(ctx, w); err == nil {
			err = s.lastStep(w)
		}
	}
	if err != nil {
		if w.known {
			plan.Keep(nil)
		}
		return s.giveUp(ctx, w, err)
	}
	if !w.known {
		s.keepDescription(w, plan)
	}
	return s.syncLanes(w.lanes)
}

// giveUp tells the client of err, and stops what the shards still do for the statement.
func (s *Session) giveUp(ctx context.Context, w *finishing, err error) error {
	if s.explain(err) == nil && err != errSent { // the client is gone
		return err
	}
	if w.bounds.full {
		s.cancelLanes(ctx, w.lanes)
	}
	err = s.abandon(w.lanes, err)
	s.muted = true
	defer func() { s.muted = false }()
	if e := s.syncLanes(w.lanes); e != nil && s.explain(e) == nil && e != errSent {
		return e
	}
	return err
}

// syncLanes ends what was sent to lanes for a statement of the simple protocol. In the extended protocol Sync does.
func (s *Session) syncLanes(lanes []*lane) error {
	if s.extended {
		return nil
	}
	var failed error
	for _, l := range lanes {
		if !slices.Contains(s.lanes, l) {
			continue
		}
		l.pulls, l.restore = nil, nil
		l.sync()
		if err := s.drain(l); err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}

// cancelLanes stops what lanes run.
func (s *Session) cancelLanes(ctx context.Context, lanes []*lane) {
	var busy []*backend.Conn
	for _, l := range lanes {
		if l.pending() && slices.Contains(s.lanes, l) {
			busy = append(busy, l.be)
		}
	}
	s.srv.cancelAll(ctx, busy)
}

// statementOf is a statement of ours for a shard: interned where the client's is, else unnamed.
func (s *Session) statementOf(w *finishing, sql string, types []byte, keep bool) *backend.Statement {
	if keep && w.bound != nil && w.bound.statement.Name != "" {
		return s.srv.statements.Intern(sql, types, s.snap.Schema.Version, s.reading)
	}
	return &backend.Statement{SQL: sql, Types: types}
}

// placeInputs finds the shards of each input, and of all: the first lane stays.
func (s *Session) placeInputs(w *finishing) error {
	w.inputs = make([]pulledRows, len(w.f.Inputs))
	args := router.Args{SQL: w.sql, Foreign: s.foreign, Through: s.through}
	if w.bound != nil {
		args.Params = &w.bound.message
	}
	of := w.shards
	var all []topology.ShardID
	for i, in := range w.f.Inputs {
		shards, refused := in.Shards(s.snap, &args, of)
		if refused != nil {
			return refused
		}
		w.inputs[i] = pulledRows{shards: shards, bounds: &w.bounds}
		all = append(all, shards...)
	}
	slices.Sort(all)
	w.shards = slices.Compact(all)
	return nil
}

// pullText is the text by which a shard gives its rows of an input. keep says that it is the same for all.
func (s *Session) pullText(in *router.Input, shard topology.ShardID) (sql string, keep bool, err error) {
	foreign := s.snap.ForeignOf(s.srv.snapshot.Load(), shard)
	sql, refused := in.Pull(foreign)
	if refused != nil {
		return "", false, refused
	}
	return sql, len(foreign) == 0, nil
}

const firstOwn = 16384 // the OIDs of what a database has made itself, which are others on each shard

// typesOf gives the types of the numbered parameters. Those that a database has made itself have other OIDs on each shard.
func (s *Session) typesOf(w *finishing, numbers []int) []byte {
	types := subset(w.params, numbers)
	for i := range numbers {
		if oid := types[4*i : 4*i+4]; binary.BigEndian.Uint32(oid) >= firstOwn {
			clear(oid)
		}
	}
	return types
}

func oidsOf(fields []wire.Field) []uint32 {
	list := make([]uint32, len(fields))
	for i, f := range fields {
		list[i] = f.Type
	}
	return list
}

// unfinished words the error of a shard that does not understand what we made of a statement which it understands. One that all have
// understood before is the error itself: a table has changed.
func (w *finishing) unfinished(err error) error {
	var e *serverError
	switch {
	case !errors.As(err, &e) || !strings.HasPrefix(e.Code, "42"):
		return err
	case !w.known:
		return errUnfinished(e.Message)
	}
	e.Position = 0
	return err
}

func errUnfinished(why string) *wire.Error {
	return wire.Errorf(wire.CodeFeatureNotSupported, "this statement would need rows of several shards: %s", why).
		WithHint("EXPLAIN (SHARDPROXY) shows how it would be run. Add a condition on the shard key, or write it in a simpler way.")
}

// lastStep runs the statement's last step on the first shard, over the rows of all.
func (s *Session) lastStep(w *finishing) error {
	l := w.first
	if !slices.Contains(s.lanes, l) {
		return wire.Errorf(wire.CodeInternalError, "the backend for the last step is gone")
	}
	types := s.typesOf(w, w.f.FinalParams)
	var arrays [][]byte
	for i := range w.inputs {
		for range w.columns[i] {
			types = append(types, 0, 0, 0x03, 0xf1) // text[]: 1009
		}
		arrays = append(arrays, w.inputs[i].arrays(len(w.columns[i]))...)
	}
	st := s.statementOf(w, w.f.Final(w.columns), types, true)
	client, formats := w.client()
	rest, err := client.With(nil, w.f.FinalParams, arrays, formats)
	if err != nil {
		return asProtocol(err)
	}
	portal := ownPortal
	if w.bound != nil {
		portal = w.portal
	}
	if w.known {
		if err := s.drain(l); err != nil {
			return err
		}
		if err := roundTrips(l); err != nil {
			return err
		}
		s.sendParse(l, st, parseProbe)
	} else if err := s.sameTypes(w, st); err != nil {
		return err
	}
	l.restore = func(e *wire.Error) { e.Position = 0 }
	l.send(func(dst []byte) []byte { return wire.AppendBind(dst, portal, st.Name, rest) })
	l.await(bindHidden)
	l.send(func(dst []byte) []byte { return wire.AppendExecute(dst, portal, w.limit) })
	if w.bound != nil {
		l.await(executeReply)
		defer func() { l.restore = nil }()
		return s.drain(l)
	}
	l.await(executeTag)
	l.send(func(dst []byte) []byte { return wire.AppendClose(dst, 'P', portal) })
	l.await(closePortal)
	if err := s.drain(l); err != nil {
		return err
	}
	s.complete(l.tag)
	return nil
}

// client gives the client's parameters and the formats that it wants the result in.
func (w *finishing) client() (b *wire.Bind, formats []byte) {
	if w.bound == nil {
		return &wire.Bind{}, []byte{0, 0}
	}
	b = &w.bound.message
	if formats, _ = b.ResultFormats(); formats == nil {
		formats = []byte{0, 0}
	}
	return b, formats
}
