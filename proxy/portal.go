package proxy

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// portal is a bound statement.
type portal struct {
	kind  portalKind
	prep  *prepared
	shard topology.ShardID // onShard
	bound *boundPortal     // onShards
}

// rename finds the shard of a portal in another map. Where it has gone, so has the portal with its transaction.
func (p *portal) rename(old, now *topology.Snapshot) {
	if p.kind != onShard {
		return
	}
	id, ok := now.ShardByName(old.Shards[p.shard].Name)
	if !ok {
		*p = portal{}
		return
	}
	p.shard = id
}

type portalKind uint8

const (
	noPortal portalKind = iota
	onShard             // exists on a backend
	onShards            // is bound on each shard when it is executed
	ours                // the proxy does the work
)

// boundPortal is a Bind that will go to several shards.
type boundPortal struct {
	message   wire.Bind // with memory of its own
	statement *backend.Statement
	shards    []topology.ShardID
	epoch     topology.Epoch // of the map that shards is of
}

// bind handles Bind.
func (s *Session) bind(ctx context.Context, body []byte) error {
	var err error
	if p := s.drawnOf(body); p != nil && !s.tx.failed {
		s.filled = p.filledText
		if body, err = s.bindDrawn(ctx, p, body); err != nil {
			return err
		}
	}
	if s.bindMessage, err = wire.ParseBind(body); err != nil {
		return asProtocol(err)
	}
	p, shards, err := s.target(ctx)
	if err != nil {
		return err
	}
	b := &s.bindMessage
	var l *lane
	alone := s.alone(p.template, shards)
	if isOurs(p.template) {
		err = s.pay(ctx)
	} else if !alone {
		if err = s.heedAll(shards); err == nil { // while nothing holds the session to its map yet
			err = s.pay(ctx)
		}
	} else if err = s.claim(ctx, shards[0]); err == nil {
		l, err = s.join(ctx, shards[0], p.template.Write)
	}
	if err != nil { // before the portal is known: the message may be handled again, with a later map
		return err
	}
	at, err := s.newPortal(b.Portal)
	if err != nil {
		return err
	}
	at.prep = p
	switch {
	case isOurs(p.template):
		at.kind = ours
		s.local(localBind)
		return nil
	case alone:
		at.kind, at.shard = onShard, shards[0]
		s.sendParse(l, p.statement, s.parseReply(p))
		l.send(func(dst []byte) []byte { return wire.AppendBind(dst, b.Portal, p.statement.Name, b.Rest) })
		l.await(bindReply)
		return nil
	}
	at.kind = onShards
	at.bound = &boundPortal{statement: p.statement, shards: slices.Clone(shards), epoch: s.routes.snap.Epoch}
	if at.bound.message, err = wire.ParseBind(bytes.Clone(body)); err != nil {
		return asProtocol(err)
	}
	at.bound.message.Types = p.types
	s.local(localBind)
	return nil
}

// target finds the statement of s.bindMessage, and the shards that it runs on with these parameters.
func (s *Session) target(ctx context.Context) (*prepared, []topology.ShardID, error) {
	b := &s.bindMessage
	p, err := s.lookup(b.Statement)
	if err != nil {
		return nil, nil, err
	}
	if s.owed != nil && s.owed != p {
		if err := s.pay(ctx); err != nil {
			return nil, nil, err
		}
	}
	t, err := s.currentTemplate(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	if s.tx.failed && !ends(t) {
		return nil, nil, errAborted()
	}
	b.Types = p.types
	if p.described != nil {
		b.Types = p.described
	}
	if isOurs(t) {
		return p, nil, nil
	}
	if t.Unbound != "" && s.bound == unbound {
		return nil, nil, errUnbound(t)
	}
	shards, err := s.destinationOf(p, b)
	return p, shards, err
}

// destinationOf is destination for a bound statement.
func (s *Session) destinationOf(p *prepared, b *wire.Bind) ([]topology.ShardID, error) {
	t := p.template
	if _, open := s.tx.cursors[t.Declare]; open && t.Declare != "" {
		return append(s.shards[:0], s.tx.cursors[t.Declare]), nil // which says so when it is executed
	}
	if s.bound == unbound && (t.Kind == router.Keyed || t.Kind == router.Insert) {
		s.args = router.Args{SQL: p.sql, Literals: p.literals, Params: b, Foreign: s.foreign, Through: s.through}
		var err *router.Error
		if s.shards, err = t.Route(s.snap, &s.args, s.shards[:0]); err != nil {
			if b.Absent { // the server says how many it wants
				return append(s.shards[:0], s.anyShard()), nil
			}
			return nil, err
		}
		return s.shards, nil
	}
	return s.destination(t, p.sql)
}

// bindLarge handles a Bind that is too long to be held: it is passed on while it comes in. It is held all the
// same where its key lies far behind or it goes to several shards.
func (s *Session) bindLarge(ctx context.Context, body int) error {
	if err := s.drainAll(); err != nil {
		_ = s.passOver()
		return err
	}
	head, err := s.peek(streamAbove)
	if err != nil {
		return err
	}
	if s.bindMessage, err = wire.ParseBind(head[5:]); err == nil && s.drawnOf(head[5:]) == nil {
		p, shards, terr := s.largeTarget(ctx)
		for again := true; again; { // nothing of the message has been taken yet
			if again, terr = s.again(ctx, terr); again {
				p, shards, terr = s.largeTarget(ctx)
			}
		}
		switch {
		case terr != nil && !s.bindMessage.Missed:
			if err := s.passOver(); err != nil {
				return err
			}
			return terr
		case terr == nil && !s.bindMessage.Missed && s.alone(p.template, shards):
			return s.bindStream(ctx, p, shards[0], body)
		}
	}
	m, err := s.next(body)
	if err != nil {
		return err
	}
	return s.bind(ctx, m[5:])
}

// largeTarget is target for a Bind of which only the beginning is here.
func (s *Session) largeTarget(ctx context.Context) (*prepared, []topology.ShardID, error) {
	p, shards, err := s.target(ctx)
	if err != nil || s.bindMessage.Missed || isOurs(p.template) || !s.alone(p.template, shards) {
		return p, shards, err
	}
	if err = s.claim(ctx, shards[0]); err == nil {
		_, err = s.join(ctx, shards[0], p.template.Write)
	}
	return p, shards, err
}

// bindStream passes a Bind on to its shard in pieces.
func (s *Session) bindStream(ctx context.Context, p *prepared, shard topology.ShardID, body int) error {
	b := &s.bindMessage
	names := len(b.Portal) + 1 + len(b.Statement) + 1
	name := strings.Clone(b.Portal)
	var at *portal
	l, err := s.join(ctx, shard, p.template.Write)
	if err == nil {
		at, err = s.newPortal(name)
	}
	if err != nil {
		_ = s.passOver()
		return err
	}
	at.prep = p
	s.sendParse(l, p.statement, s.parseReply(p))
	if err := s.drain(l); err != nil {
		if e := s.passOver(); e != nil {
			return e
		}
		return err
	}
	at.kind, at.shard = onShard, shard
	l.send(func(dst []byte) []byte { return wire.AppendBindHead(dst, name, p.statement.Name, body-names) })
	l.await(bindReply)
	s.client.Skip(5 + names)
	if err := s.client.ForwardBody(l.be.Stream); err != nil {
		if w, ok := err.(*wire.WriteError); ok {
			if e := s.passRest(); e != nil {
				return e
			}
			return s.lost(l, w.Err)
		}
		l.be.Broken = true
		return &clientError{err}
	}
	return nil
}

// reroute finds the shards of a portal again where the session has gone over to another map since it was bound.
func (s *Session) reroute(ctx context.Context, at *portal) error {
	if at.bound.epoch == s.routes.snap.Epoch {
		return nil
	}
	if _, err := s.currentTemplate(ctx, at.prep); err != nil {
		return err
	}
	shards, err := s.destinationOf(at.prep, &at.bound.message)
	if again, err := s.again(ctx, err); again {
		return s.reroute(ctx, at)
	} else if err != nil {
		return err
	}
	at.bound.shards, at.bound.epoch = slices.Clone(shards), s.routes.snap.Epoch
	return nil
}

// newPortal gives the portal of a name, emptied. A named one must not exist yet.
func (s *Session) newPortal(name string) (*portal, error) {
	if name == "" {
		s.portal = portal{}
		return &s.portal, nil
	}
	if _, taken := s.tx.cursors[name]; taken || s.portals[name] != nil {
		return nil, wire.Errorf(wire.CodeDuplicateCursor, "cursor \"%s\" already exists", name)
	}
	if s.portals == nil {
		s.portals = make(map[string]*portal)
	}
	at := &portal{}
	name = strings.Clone(name)
	s.portals[name] = at
	s.binding = append(s.binding, name)
	return at, nil
}

func (s *Session) portalOf(name string) (*portal, error) {
	at := s.portals[name]
	if name == "" {
		at = &s.portal
	} else if shard, ok := s.tx.cursors[name]; ok && at == nil { // DECLAREd by SQL
		return &portal{kind: onShard, shard: shard, prep: &prepared{template: emptyStatement}}, nil
	}
	if at == nil || at.kind == noPortal {
		return nil, wire.Errorf(wire.CodeInvalidCursorName, "portal \"%s\" does not exist", name)
	}
	return at, nil
}

// cursor gives the shard of what SQL calls a cursor: one that was DECLAREd, or a named portal of the protocol.
func (s *Session) cursor(name string) (topology.ShardID, bool) {
	shard, ok := s.tx.cursors[name]
	if at := s.portals[name]; !ok && at != nil && at.kind == onShard {
		return at.shard, true
	}
	return shard, ok
}

func (s *Session) forgetPortals() {
	s.portal = portal{}
	clear(s.portals)
}

func errUnbound(t *router.Template) *wire.Error {
	return wire.Errorf(wire.CodeFeatureNotSupported, "%s", t.Unbound).
		WithHint("Bind the session to one shard first: SET shardproxy.key = '…' or SET shardproxy.shard = '…'.")
}
