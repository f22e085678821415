package e2e

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// disturb lets one fault after the other happen, often two at a time, and ends them all.
func (l *ledgerTest) disturb(t *testing.T, lasts time.Duration) {
	t.Helper()
	random := rand.New(rand.NewPCG(l.seed, 1))
	until := time.Now().Add(lasts)
	pause := func(most time.Duration) { // of the faults: all others go on meanwhile
		d := time.Duration(random.Int64N(int64(most)))
		<-time.After(min(d, max(0, time.Until(until))))
	}
	for time.Now().Before(until) {
		pause(2 * time.Second)
		cut, heal := random.IntN(len(l.proxies)), func() {}
		if random.IntN(2) == 0 {
			heal = l.cut(cut, random.IntN(3))
			pause(2 * time.Second)
		}
		if phase := faultPhases[random.IntN(len(faultPhases))]; random.IntN(2) == 0 {
			l.lieInWait(t, phase)
		}
		switch i := random.IntN(len(l.shards)); random.IntN(8) {
		case 0: // nothing but the cut
			pause(6 * time.Second)
		case 1, 2, 3:
			l.killProxy(t, random, pause)
		case 4, 5:
			l.tell("kill shard s%d; %s", i+1, l.phases(t))
			if err := l.shards[i].Kill(); err != nil {
				t.Fatal(err)
			}
			pause(1500 * time.Millisecond)
			l.startShard(t, i)
		case 6:
			l.tell("restart shard s%d; %s", i+1, l.phases(t))
			l.startShard(t, i)
		case 7:
			l.tell("the connections to shard s%d break, and it becomes slow; %s", i+1, l.phases(t))
			l.relays[i].hangUp()
			l.relays[i].slow.Store(int64(slowest/4) + random.Int64N(int64(slowest)*3/4))
			pause(4 * time.Second)
			l.relays[i].slow.Store(0)
			l.tell("shard s%d is as fast as before", i+1)
		}
		pause(time.Second)
		heal()
	}
}

const slowest = 80 * time.Millisecond // is a shard, one way

// faultPhases are those in which moves have the most to lose.
var faultPhases = []string{"copying", "streaming", "hold", "fenced", "drained", "opened", "returning", "flipped", "released", "verified", "reversing", "cleaning", "aborting"}

// lieInWait waits a while for a move in some phase.
func (l *ledgerTest) lieInWait(t *testing.T, phase string) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if strings.Contains(l.phases(t), phase) {
			return
		}
	}
}

// killProxy kills a proxy, which coordinates the moves rather often, and starts it again.
func (l *ledgerTest) killProxy(t *testing.T, random *rand.Rand, pause func(most time.Duration)) {
	t.Helper()
	i := random.IntN(len(l.proxies))
	if who, ok := l.coordinator(t); ok && random.IntN(2) == 0 {
		i = who
	}
	l.tell("kill proxy %s; %s", l.proxies[i].name, l.phases(t))
	l.lives[i].Add(1)
	l.proxies[i].kill(t)
	pause(2 * time.Second)
	l.proxies[i].start(t)
	l.lives[i].Add(1)
	l.tell("proxy %s is back", l.proxies[i].name)
}

// startShard starts a shard, which is stopped first if it runs.
func (l *ledgerTest) startShard(t *testing.T, i int) {
	t.Helper()
	if err := l.shards[i].Restart(); err != nil {
		t.Fatal(err)
	}
	l.tell("shard s%d is back", i+1)
}

// cut cuts a proxy off from its peers, from the catalog, or from both.
func (l *ledgerTest) cut(i, what int) (heal func()) {
	gossip, catalog := what != 0, what != 1
	set := func(cut bool) {
		if gossip {
			l.cutGossip(i, cut)
		}
		if catalog {
			l.cutCatalog(i, cut)
		}
	}
	l.tell("cut proxy %s off: gossip %v, catalog %v", l.proxies[i].name, gossip, catalog)
	set(true)
	return func() {
		set(false)
		l.tell("proxy %s is no longer cut off", l.proxies[i].name)
	}
}
