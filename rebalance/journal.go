package rebalance

import (
	"encoding/json"
	"fmt"

	"shardproxy/topology"
)

// Record gives the row of the journal.
func (m *Move) Record() (topology.MoveRecord, error) {
	state, err := json.Marshal(m)
	if err != nil {
		return topology.MoveRecord{}, fmt.Errorf("journalling %v: %w", m, err)
	}
	r := topology.MoveRecord{
		ID: int64(m.ID), Rev: m.Rev, Kind: m.Kind.String(), Error: m.Error, Source: m.Source, Target: m.Target, Phase: m.State.String(), Done: m.State.Terminal(),
		Epoch: m.Epoch, Actor: m.Who, State: state, Ranges: make([]topology.KeyRange, len(m.Ranges)),
	}
	for i, a := range m.Ranges {
		r.Ranges[i] = topology.KeyRange{Start: a.Start, End: a.End}
	}
	return r, nil
}

// FromRecord is the inverse of Record.
func FromRecord(r topology.MoveRecord) (Move, error) {
	var m Move
	if err := json.Unmarshal(r.State, &m); err != nil {
		return m, fmt.Errorf("move %d of the journal: %w", r.ID, err)
	}
	state, err := ParseState(r.Phase)
	if err != nil {
		return m, fmt.Errorf("move %d of the journal: %w", r.ID, err)
	}
	if err := m.Kind.UnmarshalText([]byte(r.Kind)); err != nil {
		return m, fmt.Errorf("move %d of the journal: %w", r.ID, err)
	}
	m.Error = r.Error
	m.ID, m.Rev, m.Source, m.Target, m.State, m.Epoch, m.Who = MoveID(r.ID), r.Rev, r.Source, r.Target, state, r.Epoch, r.Actor
	m.Ranges = make([]Range, len(r.Ranges))
	for i, a := range r.Ranges {
		m.Ranges[i] = Range{a.Start, a.End}
	}
	if err := m.check(); err != nil {
		return m, fmt.Errorf("move %d of the journal: %w", r.ID, err)
	}
	return m, nil
}
