package admin

import (
	"slices"
	"time"

	"shardproxy/proxy"
	"shardproxy/topology"
)

// showLeases lists what this proxy knows of the fences of the nodes that it uses.
func (c *Console) showLeases() [][]any {
	at := placesOf(c.src.Snapshot())
	list := c.src.Leases()
	slices.SortFunc(list, func(a, b proxy.LeaseInfo) int { return comparePlaces(at.of(a.Key), at.of(b.Key), a.Key, b.Key) })
	var rows [][]any
	for _, l := range list {
		row := []any{orNull(at.of(l.Key).shard), l.Key.Address, l.Key.User, nil, nil, ""}
		if l.Fenced {
			row[3] = int64(l.Fence)
		}
		age := time.Since(l.Confirmed)
		if !l.Confirmed.IsZero() {
			row[4] = age.Milliseconds()
		}
		switch {
		case l.Confirmed.IsZero():
			row[5] = "not asked" // nothing has been sent there, or its fence could not be read
		case l.Stale:
			row[5] = "stale" // our map is too old for it: nothing is sent there
		case !l.Fenced:
			row[5] = "no fence"
		case age > topology.LeaseTime:
			row[5] = "expired" // it is asked again before anything is sent
		default:
			row[5] = "valid"
		}
		rows = append(rows, row)
	}
	return rows
}
