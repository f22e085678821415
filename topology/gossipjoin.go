package topology

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	joinsMax     = 8                      // addresses tried in one round, so that a long list does not hold up the next round
	joinPauseMin = 250 * time.Millisecond // between two rounds of a proxy that is alone
	joinPauseMax = 3 * time.Second        // a cut that has ended is noticed soon, and a few packets each time cost nothing
	lookupMax    = 5 * time.Second
)

// joinLoop looks for the others for ever: at first, and whenever we are alone, by the seeds, with growing pauses. Later
// it goes on to try seeds that are not here and peers that were lost, as memberlist itself forgets the dead, and the
// halves of a cluster cut in two would never find each other again.
func (g *Gossip) joinLoop(ctx context.Context) {
	pause := joinPauseMin
	told := false
	for {
		targets := g.joinTargets(ctx)
		for _, addr := range targets {
			g.join(ctx, addr)
		}
		alone := g.peers.size() == 1
		switch {
		case !alone && told:
			g.log.Info("gossip: found the other proxies")
			told = false
		case alone && len(targets) > 0 && !told && ctx.Err() == nil:
			g.log.Warn("gossip: no seed let this proxy in; it serves alone and goes on trying", "seeds", g.cfg.Seeds)
			told = true
		}
		wait := g.cfg.Timing.Rejoin
		switch conflict := time.Unix(0, g.conflict.Load()); {
		case alone:
			wait, pause = min(pause, wait), min(pause*8/5, joinPauseMax)
		case time.Since(conflict) < 2*wait: // under a new address, until the old one is known to be dead
			wait, pause = min(g.cfg.Timing.Probe, wait), joinPauseMin
		default:
			pause = joinPauseMin
		}
		if !sleep(ctx, jitter(wait)) {
			return
		}
	}
}

// sleep says whether d went by before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g *Gossip) join(ctx context.Context, addr string) {
	if ctx.Err() != nil {
		return
	}
	if _, err := g.list.Load().Join([]string{addr}); err != nil && ctx.Err() == nil {
		reason := strings.Join(strings.Fields(err.Error()), " ") // memberlist makes a list with bullets of it
		reason = strings.TrimPrefix(reason, "1 error occurred: * ")
		level := slog.LevelWarn
		if g.peers.size() > 1 {
			level = slog.LevelDebug // a seed or lost peer that stays away is no trouble to the others
		}
		msg := "gossip: cannot join " + addr + ": is it up, with the same cluster name and key?"
		g.limited.tell(level, msg, msg, "error", reason)
	}
}

// joinTargets is the addresses worth a try: those of the seeds, and of some dead peers, that are not of a member. While
// our name is claimed by another address, members count as well, as they may not know us.
func (g *Gossip) joinTargets(ctx context.Context) []string {
	var seeds []string
	for _, seed := range g.cfg.Seeds {
		addrs, err := lookupSeed(ctx, seed)
		if err != nil && ctx.Err() == nil {
			g.limited.warn("gossip: seed "+seed+" cannot be looked up", "error", err)
		}
		seeds = append(seeds, addrs...)
	}
	here, dead := g.peers.addresses()
	here[g.Address()] = true
	if time.Since(time.Unix(0, g.conflict.Load())) < 2*g.cfg.Timing.Rejoin {
		here = map[string]bool{g.Address(): true}
		for _, to := range g.peers.random(1) {
			dead = append(dead, to.Addr)
		}
	}
	rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
	seeds = slices.DeleteFunc(seeds, func(a string) bool { return here[a] })
	dead = slices.DeleteFunc(dead, func(a string) bool { return here[a] || slices.Contains(seeds, a) })
	rand.Shuffle(len(dead), func(i, j int) { dead[i], dead[j] = dead[j], dead[i] })
	targets := append(seeds[:min(len(seeds), joinsMax-2)], dead[:min(len(dead), 2)]...)
	return targets
}

// addresses are those of the members, and of the dead that did not say goodbye.
func (t *peerTable) addresses() (here map[string]bool, dead []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	here = make(map[string]bool, t.members)
	for _, e := range t.peers {
		switch e.status() {
		case PeerAlive, PeerSuspect:
			here[e.addr.Addr] = true
		case PeerDead:
			dead = append(dead, e.addr.Addr)
		}
	}
	return here, dead
}

// lookupSeed gives each address of a seed as ip:port.
func lookupSeed(ctx context.Context, seed string) ([]string, error) {
	host, port, err := splitGossipAddress(seed, GossipPort)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return []string{net.JoinHostPort(host, strconv.Itoa(port))}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupMax)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, 0, len(ips))
	for _, ip := range ips {
		addrs = append(addrs, net.JoinHostPort(ip.Unmap().String(), strconv.Itoa(port)))
	}
	return addrs, nil
}

// advertise is the address that peers shall dial. A name is looked up once, at the start.
func (g *Gossip) advertise(network gossipNetwork) (string, int, error) {
	bound := network.GetAutoBindPort()
	if g.cfg.Advertise == "" {
		return "", bound, nil
	}
	host, port, err := splitGossipAddress(g.cfg.Advertise, bound)
	if err != nil {
		return "", 0, fmt.Errorf("advertise: %w", err)
	}
	addrs, err := lookupSeed(context.Background(), net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return "", 0, fmt.Errorf("advertise: %w", err)
	}
	ip, _, _ := net.SplitHostPort(addrs[0])
	return ip, port, nil
}
