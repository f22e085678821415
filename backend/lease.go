package backend

import (
	"time"

	"shardproxy/topology"
)

// Lease is what the node of a pool said last of its fence. Immutable.
type Lease struct {
	At     time.Time      // when it was asked
	Fenced bool           // it has a fence
	Epoch  topology.Epoch // the least whose map says rightly what the node's shard owns; 0 without a fence
}

// Lease gives what the node said last, nil before it was asked.
func (p *Pool) Lease() *Lease { return p.lease.Load() }

// SetLease keeps what the node has said. nil forgets it, so that the next session asks.
func (p *Pool) SetLease(l *Lease) { p.lease.Store(l) }

// Renew says whether the caller is to ask the node again: one at a time. It calls Renewed when it has.
func (p *Pool) Renew() bool { return p.renewing.CompareAndSwap(false, true) }

// Renewed lets another session renew the lease.
func (p *Pool) Renewed() { p.renewing.Store(false) }
