package topology

import (
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// simDocs makes TestGossipSimulation a long one that writes its results down.
var simDocs = flag.String("gossipsim", "", "folder of gossip.md and gossip.svg: simulate 10, 100 and 500 peers and write the results there")

// simLoss is the share of packets that are lost.
var simLoss = []float64{0, 0.05, 0.20}

var simPeers = []int{10, 100, 500}

const simRepeats = 5

// simResult is what was measured in one cluster at one loss.
type simResult struct {
	peers int
	loss  float64

	idle      float64  // bytes a second that a peer sends when nothing happens
	change    simTimes // until all had a change of one range
	confirmed simTimes // until its origin knew so
	bytes     float64  // that a peer sent for it, with the confirmation
	maps      []simMap
	missed    time.Duration // until a peer that was cut off for a moment had three changes that it missed
	healed    time.Duration // until all had the change that one half made in a minute of partition
}

// simMap is how a whole map went to all peers.
type simMap struct {
	ranges, size int
	took         time.Duration
	sent, most   float64 // bytes that a peer sent, on average and at most
}

// simTimes is the median and the worst of some times.
type simTimes struct{ median, worst time.Duration }

func simTimesOf(list []time.Duration) simTimes {
	slices.Sort(list)
	return simTimes{list[len(list)/2], list[len(list)-1]}
}

// simCluster is peers in one simulated net.
type simCluster struct {
	t     *testing.T
	net   *simNet
	peers []*fakeProxy
}

func startSim(t *testing.T, peers int) *simCluster {
	c := &simCluster{t: t, net: newSimNet(t)}
	for i := range peers {
		cfg := simConfig(c.net, fmt.Sprintf("proxy-%03d", i))
		cfg.Log, cfg.Keys = slog.New(slog.DiscardHandler), [][]byte{keyOf(1)}
		for s := range min(i, 3) {
			cfg.Seeds = append(cfg.Seeds, c.peers[s].g.Address())
		}
		c.peers = append(c.peers, startProxy(t, MapState{1, 1}, cfg))
		time.Sleep(10 * time.Millisecond)
	}
	for _, p := range c.peers {
		p.untilWithin(t, 10*time.Minute, "all peers", func(list []Peer) bool { return len(list) == peers-1 })
	}
	time.Sleep(30 * time.Second) // the news of who is here has died down
	return c
}

// stop lets all go at the same time; the cleanup of each then waits for it.
func (c *simCluster) stop() {
	for _, p := range c.peers {
		p.cancel()
	}
}

// all waits until every peer has the map s, and gives the time when the last one got it.
func (c *simCluster) all(s MapState) time.Time {
	late := time.After(10 * time.Minute)
	for _, p := range c.peers {
		for {
			now, changed := p.watch()
			if now == s {
				break
			}
			select {
			case <-changed:
			case <-late:
				c.t.Fatalf("%s has %v after ten minutes, not %v", p.g.cfg.Node, now, s)
			}
		}
	}
	return time.Now()
}

// sent is the bytes each peer has sent so far.
func (c *simCluster) sent() []float64 {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	var list []float64
	for _, p := range c.peers {
		port := c.net.ports[p.g.Address()]
		list = append(list, float64(port.udp.Load()+port.tcp.Load()))
	}
	return list
}

// packets is the bytes that a peer has sent by packet so far, on average: changes take no other way.
func (c *simCluster) packets() (average float64) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for _, p := range c.peers {
		average += float64(c.net.ports[p.g.Address()].udp.Load()) / float64(len(c.peers))
	}
	return average
}

// since is what a peer sent since before, on average and at most.
func (c *simCluster) since(before []float64) (average, most float64) {
	for i, n := range c.sent() {
		average += (n - before[i]) / float64(len(before))
		most = max(most, n-before[i])
	}
	return average, most
}

func (c *simCluster) anyone() *fakeProxy { return c.peers[rand.IntN(len(c.peers))] }

// measure fills in all but the maps and the partition.
func (c *simCluster) measure(loss float64) *simResult {
	r := &simResult{peers: len(c.peers), loss: loss}
	c.net.lose(loss)
	time.Sleep(15 * time.Second)
	const window = 20
	before, packets := c.sent(), c.packets()
	time.Sleep(window * time.Second)
	r.idle, _ = c.since(before)
	r.idle /= window
	quiet := (c.packets() - packets) / window

	var change, confirmed []time.Duration
	packets, start := c.packets(), time.Now()
	for range simRepeats {
		from, begin := c.anyone(), time.Now()
		s := from.change(make([]byte, 60)) // one range: two hashes, a shard, the head
		done := make(chan time.Duration, 1)
		go func() {
			if err := from.g.Wait(c.t.Context(), s.Epoch); err != nil {
				c.t.Error(err)
			}
			done <- time.Since(begin)
		}()
		change = append(change, c.all(s).Sub(begin))
		confirmed = append(confirmed, <-done)
		time.Sleep(5 * time.Second)
	}
	r.change, r.confirmed = simTimesOf(change), simTimesOf(confirmed)
	r.bytes = max(0, c.packets()-packets-quiet*time.Since(start).Seconds()) / simRepeats
	return r
}

// mapOf is a map as bytes: the start and the shard of each range.
func mapOf(ranges int) []byte {
	starts := make([]uint64, ranges)
	for i := range starts {
		starts[i] = rand.Uint64()
	}
	slices.Sort(starts)
	var b []byte
	for _, start := range starts {
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, start), uint32(rand.IntN(1000)))
	}
	return b
}

// wholeMap has one peer announce a map that all others must fetch.
func (c *simCluster) wholeMap(ranges int) simMap {
	body := mapOf(ranges)
	from := c.anyone()
	s := from.Local()
	s.Epoch, s.Checksum = s.Epoch+1, s.Checksum*31+7
	before, begin := c.sent(), time.Now()
	from.set(s, body)
	from.g.Broadcast(0, make([]byte, GossipPayloadMax+1))
	m := simMap{ranges: ranges, size: len(body), took: c.all(s).Sub(begin)}
	m.sent, m.most = c.since(before)
	for _, p := range c.peers {
		p.mu.Lock()
		if len(p.body) != len(body) {
			c.t.Errorf("%s has %d bytes of %d", p.g.cfg.Node, len(p.body), len(body))
		}
		p.body = body // so that 500 peers need not hold a copy each
		p.mu.Unlock()
	}
	time.Sleep(5 * time.Second)
	return m
}

// missed cuts one peer off for three changes, too short for it to be taken for dead.
func (c *simCluster) missed() time.Duration {
	last := c.peers[len(c.peers)-1].g.Address()
	c.net.cut(func(a, b string) bool { return (a == last) != (b == last) })
	var s MapState
	for range 3 {
		s = c.peers[0].change(make([]byte, 60))
		time.Sleep(time.Second)
	}
	c.net.cut(nil)
	begin := time.Now()
	return c.all(s).Sub(begin)
}

// partition keeps two halves apart for a minute, in which one of them goes on.
func (c *simCluster) partition() time.Duration {
	half := map[string]bool{}
	for _, p := range c.peers[:len(c.peers)/2] {
		half[p.g.Address()] = true
	}
	c.net.cut(func(a, b string) bool { return half[a] != half[b] })
	time.Sleep(30 * time.Second)
	s := c.peers[0].change(make([]byte, 60))
	time.Sleep(30 * time.Second)
	for _, p := range c.peers {
		if half[p.g.Address()] != (p.Local() == s) {
			c.t.Errorf("%s has %v during the partition", p.g.cfg.Node, p.Local())
		}
	}
	c.net.cut(nil)
	begin := time.Now()
	return c.all(s).Sub(begin)
}

// simulate measures one cluster at each loss.
func simulate(t *testing.T, peers int, ranges []int) (results []*simResult) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, peers)
		defer c.stop()
		for _, loss := range simLoss {
			r := c.measure(loss)
			for _, n := range ranges {
				r.maps = append(r.maps, c.wholeMap(n))
			}
			r.missed = c.missed()
			results = append(results, r)
		}
		c.net.lose(0)
		healed := c.partition()
		for _, r := range results {
			r.healed = healed
		}
	})
	return results
}

// A cluster in memory and in virtual time: how fast news get round, and what they cost.
func TestGossipSimulation(t *testing.T) {
	if *simDocs != "" {
		var all []*simResult
		for _, peers := range simPeers {
			begin := time.Now()
			all = append(all, simulate(t, peers, []int{10_000, 100_000})...)
			t.Logf("%d peers took %v", peers, time.Since(begin))
		}
		writeSimulation(t, *simDocs, all)
		return
	}
	for _, peers := range []int{10, 50} {
		for _, r := range simulate(t, peers, []int{1_000}) {
			t.Logf("%d peers, %2.0f %% lost: change %v, confirmed %v, %.0f bytes a peer; map %v; idle %.0f B/s; missed %v; healed %v",
				r.peers, 100*r.loss, r.change.worst, r.confirmed.worst, r.bytes, r.maps[0].took, r.idle, r.missed, r.healed)
			for _, bound := range []struct {
				what        string
				took, limit time.Duration
			}{
				{"a change", r.change.worst, 2 * time.Second},
				{"its confirmation", r.confirmed.worst, 5 * time.Second},
				{"a whole map", r.maps[0].took, 10 * time.Second},
				{"what one peer missed", r.missed, 15 * time.Second},
				{"what a half missed", r.healed, 60 * time.Second},
			} {
				if bound.took > bound.limit {
					t.Errorf("%d peers at %.0f %% loss: %s took %v, more than %v", r.peers, 100*r.loss, bound.what, bound.took, bound.limit)
				}
			}
			if r.bytes > 20_000 || r.idle > 5_000 {
				t.Errorf("%d peers at %.0f %% loss: %.0f bytes for a change, %.0f bytes a second when idle", r.peers, 100*r.loss, r.bytes, r.idle)
			}
		}
	}
}
