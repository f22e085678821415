package rebalance

import (
	"context"

	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// Preflight looks for all that would make a move fail or stall, before it is in the journal. It changes nothing. Its error says
// that it could not look.
func (c *Coordinator) Preflight(ctx context.Context, m Move) (*mover.Report, error) {
	if m.ID == 0 {
		m.ID = 1 // a mover has a number; nothing is called by it
	}
	r := newRunner(c, topology.Lease{}, m)
	if err := r.movers(); err != nil {
		return nil, err
	}
	report, err := look(ctx, r.there)
	if err == nil {
		report.BytesPerSecond = c.cfg.Limits().BytesPerSecond
	}
	return report, err
}

// look is the preflight of a mover whose shards have fences, or will: their triggers would refuse what it writes and deletes.
func look(ctx context.Context, m *mover.Mover) (*mover.Report, error) {
	report, err := m.Preflight(ctx, mover.PreflightOptions{})
	if err != nil {
		return nil, err
	}
	for at, may := range report.Replica {
		if !may {
			report.Problems = append(report.Problems, mover.Problem{
				Side: mover.Side(at), Text: "the mover's role may not set session_replication_role, so that the fence would refuse its rows",
				Hint: "GRANT SET ON PARAMETER session_replication_role TO the mover's role; before PostgreSQL 15 it must be a superuser",
			})
		}
	}
	return report, nil
}
