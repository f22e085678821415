package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"shardproxy/topology"
)

// moves are those under way, by number; unknown where the catalog does not say.
type moves struct {
	known bool
	open  map[int64]bool
}

// owner gives the move that something with this name was made for; false where there is none under way. The name has the
// number of the move as one of its parts: shardproxy_move_7.
func (m *moves) owner(name string) (id int64, ok bool) {
	for part := range strings.SplitSeq(name, "_") {
		if id, err := strconv.ParseInt(part, 10, 64); err == nil && m.open[id] {
			return id, true
		}
	}
	return 0, false
}

// lookAtCatalog compares the catalog with the map that the proxy goes by.
func (x *examination) lookAtCatalog(ctx context.Context) {
	if x.Catalog == nil {
		x.moves.known = true
		x.notes.ok(checkCatalog, "there is none: the map is in the configuration file")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, catalogTime)
	defer cancel()
	const away = "Data traffic goes on, but the topology cannot be changed. Look after the catalog's server, and the catalog.dsn of this proxy."
	s, err := x.Catalog.Load(ctx)
	switch {
	case errors.Is(err, topology.ErrDamaged):
		x.notes.add(checkCatalog, Error, "", err.Error(), "Undo what was changed by hand, or restore the catalog: proxies go on with the map that they have.")
	case err != nil:
		x.notes.add(checkCatalog, Error, "", "the catalog cannot be read: "+err.Error(), away)
	default:
		x.compareMaps(s)
	}
	if trouble := x.Catalog.Trouble(); trouble != "" && err == nil {
		x.notes.add(checkCatalog, Warning, "", trouble, "It has answered now: the proxy should notice within some seconds.")
	}
	list, err := x.Catalog.Moves(ctx)
	x.moves.known = err == nil
	x.moves.open = make(map[int64]bool, len(list))
	for _, m := range list {
		x.moves.open[m.ID] = true
	}
}

// compareMaps compares the catalog's map with ours.
func (x *examination) compareMaps(s *topology.Snapshot) {
	const hint = "A proxy hears of changes within a second: repeat this, then look at its log."
	switch ours := x.snap; {
	case s.Cluster != ours.Cluster:
		x.notes.add(checkCatalog, Error, "", fmt.Sprintf("the catalog holds the cluster %q, this proxy serves %q", s.Cluster, ours.Cluster), "Look at catalog.dsn of this proxy.")
	case s.Epoch > ours.Epoch:
		x.notes.add(checkCatalog, Warning, "", fmt.Sprintf("the catalog is at epoch %d, this proxy at %d", s.Epoch, ours.Epoch), hint)
	case s.Epoch < ours.Epoch:
		x.notes.add(checkCatalog, Error, "", fmt.Sprintf("the catalog is at epoch %d, behind this proxy, which is at %d", s.Epoch, ours.Epoch),
			"It was restored from a backup: proxies do not go back. Import the newest map with an epoch above theirs (docs/operations.md).")
	case s.Checksum() != ours.Checksum():
		x.notes.add(checkCatalog, Error, "", fmt.Sprintf("the map of epoch %d is another one in the catalog than in this proxy", s.Epoch), "Restart this proxy, so that it takes the catalog's.")
	default:
		x.notes.ok(checkCatalog, "it answers, its content is sound, and this proxy is at its epoch %d", s.Epoch)
	}
}

// lookAtPeers compares the other proxies with this one.
func (x *examination) lookAtPeers() {
	if x.Peers == nil {
		x.notes.ok(checkPeers, "this proxy has no gossip")
		return
	}
	alive := 0
	for _, p := range x.Peers() {
		is := func(status Status, detail, hint string) { x.notes.add(checkPeers, status, p.Name, detail, hint) }
		switch {
		case p.Status == topology.PeerLeft:
		case p.Status != topology.PeerAlive:
			is(Warning, fmt.Sprintf("the peer at %s is %v", p.Addr, p.Status), "If it is gone for good, it is forgotten after a day. If it serves, look at the network between the proxies.")
		case p.Map.Epoch < x.snap.Epoch:
			is(Warning, fmt.Sprintf("is at epoch %d, this proxy at %d", p.Map.Epoch, x.snap.Epoch), "News takes less than a second: repeat this, then look at its log.")
		case p.Map.Epoch > x.snap.Epoch:
			is(Warning, fmt.Sprintf("is at epoch %d, ahead of this proxy, which is at %d", p.Map.Epoch, x.snap.Epoch), "News takes less than a second: repeat this, then look at the log of this proxy.")
		case p.Map.Checksum != x.snap.Checksum():
			is(Error, fmt.Sprintf("has another map of epoch %d than this proxy", p.Map.Epoch), "The catalog decides: look whether both can reach it.")
		default:
			alive++
		}
	}
	x.notes.ok(checkPeers, "%s at epoch %d, as this one", plural(alive, "other proxy"), x.snap.Epoch)
}
