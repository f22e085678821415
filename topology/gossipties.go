package topology

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
	"time"
)

// A deadlock over several shards is a circle of transactions, each of which works with processes on several servers. A
// server sees its own part of it only, and a proxy knows which processes work together for its own clients only:
//
//	proxy A ──which of you use these processes?──► each proxy: OnTies ──these, with those──► proxy A

// Process is a server process of PostgreSQL.
type Process struct {
	Address string // of the server, as the map has it
	PID     uint32
}

// Tie tells of processes that work for one session of a proxy.
type Tie struct {
	Session   uint32 // the process id of its cancel key: other sessions have others, but where proxies share a tag
	Processes []Process
}

const (
	tiesMax     = 32                     // processes that are asked for, sessions that are told of, processes of each
	tiesPeers   = 16                     // that are asked at the same time
	tiesTime    = 500 * time.Millisecond // who takes longer is as good as gone: it is asked again soon
	processName = 255                    // bytes of an address
	processMax  = 1 + processName + 4
	tiesAnswer  = 2 + tiesMax*(6+tiesMax*processMax)
)

// Ties asks all peers for the sessions that use some processes. Who does not answer in time is left out.
func (g *Gossip) Ties(ctx context.Context, of []Process) (ties []Tie) {
	ctx, cancel := context.WithTimeout(ctx, tiesTime)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	turn := make(chan struct{}, tiesPeers)
	for _, name := range g.peers.memberNames() {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			rec := g.peers.record()
			body := appendProcesses(rec.append([]byte{requestTies}), of)
			_, data, err := g.exchange(ctx, name, body, tiesAnswer)
			if err != nil {
				g.limited.warn("gossip: a peer does not tell what its sessions wait for", "peer", name, "error", err)
				return
			}
			r := &messageReader{b: data}
			mu.Lock()
			defer mu.Unlock()
			for range r.uint16() {
				if t := (Tie{Session: r.uint32(), Processes: r.processes()}); !r.bad {
					ties = append(ties, t)
				}
			}
		})
	}
	wg.Wait()
	return ties
}

// serveTies answers a peer.
func (g *Gossip) serveTies(r *messageReader, w io.Writer) error {
	asked := r.processes()
	if r.bad {
		return errGossipFormat
	}
	var ties []Tie
	if on := g.cfg.OnTies; on != nil {
		ties = on(asked)
	}
	ties = ties[:min(len(ties), tiesMax)]
	dst := binary.BigEndian.AppendUint16([]byte{responseOK}, uint16(len(ties)))
	for _, t := range ties {
		dst = appendProcesses(binary.BigEndian.AppendUint32(dst, t.Session), t.Processes)
	}
	_, err := w.Write(dst)
	return err
}

// appendProcesses leaves out what is too much.
func appendProcesses(dst []byte, list []Process) []byte {
	list = list[:min(len(list), tiesMax)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(list)))
	for _, p := range list {
		dst = binary.BigEndian.AppendUint32(appendText(dst, p.Address[:min(len(p.Address), processName)]), p.PID)
	}
	return dst
}

func (r *messageReader) processes() (list []Process) {
	n := r.uint16()
	if n > tiesMax {
		r.bad = true
	}
	for range n {
		p := Process{Address: r.text(), PID: r.uint32()}
		if r.bad {
			return nil
		}
		list = append(list, p)
	}
	return list
}
