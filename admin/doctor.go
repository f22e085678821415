package admin

import (
	"context"
	"errors"
	"time"

	"shardproxy/doctor"
	"shardproxy/wire"
)

const doctorColumns = "check subject status detail hint"

// doctors are the verbs that look at the whole cluster. The one that reads all tables of all shards is for admins: it is a load.
// The longer name comes first, or else the shorter one would take it.
func doctors() []verb {
	return []verb{
		{
			name: "DOCTOR DEEP", help: "what DOCTOR looks at, and all rows of all tables: whether they are on their shard, and reference tables alike",
			role: RoleAdmin, fields: fields(doctorColumns), read: readDoctor(true),
		},
		{
			name: "DOCTOR", help: "look at catalog, proxies, shards, schemas and fences, and say what is wrong",
			role: RoleStats, fields: fields(doctorColumns), read: readDoctor(false),
		},
	}
}

func readDoctor(deep bool) func(a *arguments) (reply, *wire.Error) {
	return func(a *arguments) (reply, *wire.Error) {
		if err := a.done(); err != nil {
			return nil, err
		}
		return func(ctx context.Context, s *session) ([][]any, *wire.Error) { return s.examine(ctx, deep) }, nil
	}
}

// examine gives a row for each finding of the doctor.
func (s *session) examine(ctx context.Context, deep bool) ([][]any, *wire.Error) {
	examine := s.console.cfg.Doctor
	if examine == nil {
		return nil, wire.Errorf(wire.CodeFeatureNotSupported, "this proxy has no doctor")
	}
	from := time.Now()
	var found []doctor.Finding
	err := s.patiently(ctx, func(ctx context.Context) (err error) {
		found, err = examine(ctx, deep)
		return err
	})
	switch {
	case errors.Is(err, doctor.ErrBusy):
		return nil, wire.Errorf(wire.CodeLockNotAvailable, "%v", err).WithHint("Somebody else has asked this proxy. Ask again, or another one.")
	case err != nil:
		return nil, wire.Errorf(wire.CodeQueryCanceled, "the examination was ended after %v: %v", time.Since(from).Round(time.Second), err)
	}
	rows := make([][]any, len(found))
	for i, f := range found {
		rows[i] = []any{f.Check, orNull(f.Subject), f.Status.String(), f.Detail, orNull(f.Hint)}
	}
	return rows, nil
}

// driftMetrics tell of the schemas of the shards that this proxy looks after; those of all proxies add up.
func driftMetrics() []metric {
	return []metric{
		gauge("schema_checked_shards", "Shards whose schema this proxy has looked at.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(len(p.drift))) }),
		gauge("schema_drift_shards", "Shards whose schema differs from the one that statements are planned with: see DOCTOR.", nil,
			func(p *picture, emit func(float64, ...string)) {
				n := 0
				for i := range p.drift {
					if len(p.drift[i].Differences) > 0 {
						n++
					}
				}
				emit(float64(n))
			}),
		gauge("schema_unread_shards", "Shards whose schema could not be read.", nil,
			func(p *picture, emit func(float64, ...string)) {
				n := 0
				for i := range p.drift {
					if p.drift[i].Err != nil {
						n++
					}
				}
				emit(float64(n))
			}),
		gauge("schema_checked_timestamp_seconds", "When the shard was looked at whose last look is longest ago.", nil,
			func(p *picture, emit func(float64, ...string)) {
				var oldest time.Time
				for i := range p.drift {
					if at := p.drift[i].Checked; oldest.IsZero() || at.Before(oldest) {
						oldest = at
					}
				}
				if !oldest.IsZero() {
					emit(float64(oldest.UnixMilli()) / 1000)
				}
			}),
	}
}
