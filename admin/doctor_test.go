package admin

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/doctor"
	"shardproxy/proxy"
	"shardproxy/topology"
	"shardproxy/wire"
)

func TestDoctor(t *testing.T) {
	cfg := testConfig()
	var failure error
	cfg.Doctor = func(_ context.Context, deep bool) ([]doctor.Finding, error) {
		return []doctor.Finding{
			{Check: "catalog", Status: doctor.OK, Detail: "well"},
			{Check: "schema", Subject: "s2", Status: doctor.Error, Detail: fmt.Sprint("deep: ", deep), Hint: "mend it"},
		}, failure
	}
	c := startConsole(t, cfg)
	watcher, root := connect(t, c, "watcher"), connect(t, c, "root")
	if got, want := run(t, watcher, "doctor"), "catalog  ok well , schema s2 error deep: false mend it"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := run(t, root, "DOCTOR DEEP"), "catalog  ok well , schema s2 error deep: true mend it"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for sql, want := range map[string]string{
		"DOCTOR DEEP":     "42501 permission denied for DOCTOR DEEP",
		"DOCTOR WHO":      "42601 DOCTOR: WHO is too much",
		"DOCTOR DEEP WHO": "42501 permission denied for DOCTOR DEEP",
	} {
		if got := run(t, watcher, sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	failure = doctor.ErrBusy
	_, err := watcher.Exec(testContext(t), "DOCTOR").ReadAll()
	wantError(t, err, "ERROR", wire.CodeLockNotAvailable)
	failure = context.DeadlineExceeded
	_, err = watcher.Exec(testContext(t), "DOCTOR").ReadAll()
	wantError(t, err, "ERROR", wire.CodeQueryCanceled)
	_, err = connect(t, startConsole(t, testConfig()), "root").Exec(testContext(t), "DOCTOR").ReadAll()
	wantError(t, err, "ERROR", wire.CodeFeatureNotSupported)
}

func TestDriftMetrics(t *testing.T) {
	f := newFixed(t)
	gather := func() map[string]float64 {
		values := make(map[string]float64)
		registry := prometheus.NewRegistry()
		registry.MustRegister(NewCollector(f))
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				if m.GetGauge() != nil {
					values[family.GetName()] = m.GetGauge().GetValue()
				}
			}
		}
		return values
	}
	if _, ok := gather()["shardproxy_schema_checked_timestamp_seconds"]; ok {
		t.Error("nothing was looked at, and there is a time of it")
	}
	f.drift = []proxy.ShardDrift{
		{Shard: "s1", Checked: morning.Add(time.Minute)},
		{Shard: "s2", Checked: morning, Differences: []topology.Difference{{Kind: "table"}}},
		{Shard: "s3", Checked: morning.Add(time.Hour), Err: errors.New("away")},
		{Shard: "s4", Checked: morning.Add(time.Hour), Err: errors.New("away")},
	}
	got := gather()
	for name, want := range map[string]float64{
		"schema_checked_shards": 4, "schema_drift_shards": 1, "schema_unread_shards": 2,
		"schema_checked_timestamp_seconds": float64(morning.Unix()),
	} {
		if got["shardproxy_"+name] != want {
			t.Errorf("%s is %v, want %v", name, got["shardproxy_"+name], want)
		}
	}
}
