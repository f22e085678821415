package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// moveProgress is what a coordinator tells of a move beyond the journal, with each renewal of its lease.
type moveProgress struct {
	ID       MoveID        `json:"id"`
	Rev      int64         `json:"rev"`
	Task     Task          `json:"task"`
	Error    string        `json:"error,omitempty"`
	Blockers []string      `json:"blockers,omitempty"`
	Alarmed  bool          `json:"alarmed,omitempty"`
	Rows     int64         `json:"rows"`
	Bytes    int64         `json:"bytes"`
	Lag      int64         `json:"lag"`
	Copied   int64         `json:"copied"`
	Chunks   int64         `json:"chunks"`
	Copying  time.Duration `json:"copying"` // nanoseconds
	Throttle string        `json:"throttle,omitempty"`
}

// progress of all moves that this proxy carries out, as JSON.
func (c *Coordinator) progress() []byte {
	list := []moveProgress{}
	for _, st := range c.Own() {
		list = append(list, moveProgress{
			ID: st.Move.ID, Rev: st.Move.Rev, Task: st.Move.Task, Error: st.Move.Error, Blockers: st.Move.Blockers, Alarmed: st.Move.Alarmed,
			Rows: st.Move.Rows, Bytes: st.Move.Bytes, Lag: st.Lag, Copied: st.Copied, Chunks: st.Chunks, Copying: st.Copying, Throttle: st.Throttle,
		})
	}
	text, _ := json.Marshal(list) // numbers and strings can always be written
	return text
}

// Status tells of the moves under way: of this moment where this proxy coordinates them, else what the coordinator told last, which
// has of the move only how far it is and what it waits for.
func (c *Coordinator) Status(ctx context.Context) ([]Status, error) {
	if own := c.Own(); len(own) > 0 {
		return own, nil
	}
	text, err := c.cfg.Catalog.Progress(ctx)
	if err != nil || text == nil {
		return nil, err
	}
	var told []moveProgress
	if err := json.Unmarshal(text, &told); err != nil {
		return nil, fmt.Errorf("what the coordinator of moves tells of them: %w", err)
	}
	list := make([]Status, len(told))
	for i, p := range told {
		list[i] = Status{
			Move: Move{ID: p.ID, Rev: p.Rev, Task: p.Task, Error: p.Error, Blockers: p.Blockers, Alarmed: p.Alarmed, Rows: p.Rows, Bytes: p.Bytes},
			Told: true, Lag: p.Lag, Copied: p.Copied, Chunks: p.Chunks, Copying: p.Copying, Throttle: p.Throttle,
		}
	}
	return list, nil
}

// Own tells of the moves that this proxy carries out, of this moment.
func (c *Coordinator) Own() []Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]Status, 0, len(c.runners))
	for _, r := range c.runners {
		list = append(list, r.now())
	}
	return list
}
