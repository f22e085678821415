package topology

// Mine says whether work that one proxy does for all, such as looking after a shard, falls to this one. While all proxies
// agree on who is there, it is exactly one's; when one comes or goes, only the work that it takes or leaves changes hands.
func (g *Gossip) Mine(work string) bool { return g.peers.mine(work) }

// mine gives work to the proxy whose name, hashed with the work's, comes out highest (rendezvous hashing).
func (t *peerTable) mine(work string) bool {
	weight := func(peer string) KeyHash { return HashText(peer + "\x00" + work) }
	ours := weight(t.name)
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, e := range t.peers {
		if !e.member || e.rec.leaving || name == t.name {
			continue
		}
		if theirs := weight(name); theirs > ours || theirs == ours && name > t.name {
			return false
		}
	}
	return true
}
