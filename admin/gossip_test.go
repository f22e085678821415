package admin

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/topology"
)

// keyOf is a key, and its base64.
func keyOf(b byte) ([]byte, string) {
	key := bytes.Repeat([]byte{b}, 32)
	return key, base64.StdEncoding.EncodeToString(key)
}

// rings is the gossip of p1 with p2, whose ring can be another one, and p3, which is dead.
type rings struct {
	own   []topology.KeyFingerprint
	sad   error // of p2
	refus error // of the next step
}

func (r *rings) Peers() []topology.Peer {
	return []topology.Peer{
		{Name: "p2", Map: topology.MapState{Epoch: 5}},
		{Name: "p3", Status: topology.PeerDead},
		{Name: "p4", Status: topology.PeerSuspect, Map: topology.MapState{Epoch: 8}},
	}
}

func (r *rings) Stats() topology.GossipStats {
	return topology.GossipStats{
		PacketsSent: 1, PacketsReceived: 2, PacketBytesSent: 3, PacketBytesReceived: 4, StreamsOpened: 5, StreamsAccepted: 6,
		StreamBytesSent: 7, StreamBytesReceived: 8, Fetches: 9, FetchesFailed: 10, Served: 11,
		CancelsSent: 12, CancelsReceived: 13, CancelsDropped: 14, QueuedNews: 15, QueuedItems: 16, HealthItems: 17, Keys: r.own,
	}
}

func (r *rings) RingKeys(context.Context) []topology.PeerKeys {
	list := []topology.PeerKeys{{Peer: "p1", Keys: slices.Clone(r.own)}, {Peer: "p2", Keys: slices.Clone(r.own)}}
	if r.sad != nil {
		list[1] = topology.PeerKeys{Peer: "p2", Err: r.sad}
	}
	return list
}

func (r *rings) AddKey(ctx context.Context, key []byte) ([]topology.PeerKeys, error) {
	r.own = append(r.own, topology.FingerprintKey(key))
	return r.RingKeys(ctx), r.refus
}

func (r *rings) UseKey(ctx context.Context, key topology.KeyFingerprint) ([]topology.PeerKeys, error) {
	if !slices.Contains(r.own, key) {
		return nil, topology.ErrUnknownKey
	}
	slices.Reverse(r.own)
	return r.RingKeys(ctx), r.refus
}

func (r *rings) RemoveKey(ctx context.Context, key topology.KeyFingerprint) ([]topology.PeerKeys, error) {
	r.own = slices.DeleteFunc(r.own, func(k topology.KeyFingerprint) bool { return k == key })
	return r.RingKeys(ctx), r.refus
}

// TestGossipKeys runs commands one after the other. What is shown and logged never holds a key.
func TestGossipKeys(t *testing.T) {
	var log bytes.Buffer
	old, _ := keyOf(1)
	fresh, text := keyOf(2)
	o, f := string(topology.FingerprintKey(old)), string(topology.FingerprintKey(fresh))
	r := &rings{own: []topology.KeyFingerprint{topology.FingerprintKey(old)}}
	cfg := testConfig()
	cfg.Gossip, cfg.Log = r, slog.New(slog.NewTextHandler(&log, nil))
	c := startConsole(t, cfg)
	conn := connectListening(t, c, "root")
	run := func(conn *pgconn.PgConn, sql string) string {
		results, err := conn.Exec(testContext(t), sql).ReadAll()
		var e *pgconn.PgError
		if errors.As(err, &e) {
			return fmt.Sprintf("%s %s (%s)", e.Code, e.Message, e.Hint)
		}
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, row := range results[0].Rows {
			lines = append(lines, string(bytes.Join(row, []byte(" "))))
		}
		return strings.Join(lines, ", ")
	}
	for _, test := range []struct{ sql, want string }{
		{"SHOW GOSSIP KEYS", "p1 " + o + " yes , p2 " + o + " yes "},
		{"GOSSIP KEY ADD '" + text + "'", "p1 " + o + " yes , p1 " + f + " no , p2 " + o + " yes , p2 " + f + " no "},
		{"gossip key use abc", "55000 " + topology.ErrUnknownKey.Error() + " (SHOW GOSSIP KEYS lists the fingerprints.)"},
		{"gossip key use " + strings.ToUpper(f), "p1 " + f + " yes , p1 " + o + " no , p2 " + f + " yes , p2 " + o + " no "},
		{"GOSSIP KEY REMOVE '" + o + "'", "p1 " + f + " yes , p2 " + f + " yes "},
		{"GOSSIP KEY ADD", "42601 GOSSIP KEY ADD: the key is missing (The form is GOSSIP KEY ADD 'key'.)"},
		{"GOSSIP KEY ADD 'c2hvcnQ='", "42601 GOSSIP KEY ADD: the key is not the base64 of 16, 24 or 32 bytes (The form is GOSSIP KEY ADD 'key'.)"},
		{"GOSSIP KEY USE a b", "42601 GOSSIP KEY USE: b is too much (The form is GOSSIP KEY USE fingerprint.)"},
	} {
		if got := run(conn, test.sql); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.sql, got, test.want)
		}
	}
	r.sad = errors.New("connection refused")
	if got, want := run(conn, "SHOW GOSSIP KEYS"), "p1 "+f+" yes , p2   connection refused"; got != want {
		t.Errorf("with a peer that does not answer: %s", got)
	}
	r.refus = topology.ErrKeyRefused{Reasons: []string{"p2 cannot be asked"}}
	if got := run(conn, "GOSSIP KEY USE "+f); !strings.HasPrefix(got, "55000 gossip: nothing was done: p2 cannot be asked (First GOSSIP KEY ADD") {
		t.Errorf("a step that is refused: %s", got)
	}
	watcher := connectListening(t, c, "watcher")
	if got := run(watcher, "GOSSIP KEY USE "+f); !strings.HasPrefix(got, "42501 ") {
		t.Errorf("a user who may only look: %s", got)
	}
	if got := run(watcher, "SHOW GOSSIP KEYS"); !strings.HasPrefix(got, "p1 ") {
		t.Errorf("a user who may look: %s", got)
	}
	cfg.Gossip = nil
	if got := run(connectListening(t, startConsole(t, cfg), "root"), "GOSSIP KEY USE "+f); !strings.HasPrefix(got, "0A000 this proxy runs without gossip") {
		t.Errorf("without gossip: %s", got)
	}
	if strings.Contains(log.String(), text) || !strings.Contains(log.String(), `command="GOSSIP KEY ADD"`) {
		t.Errorf("the log says\n%s", log.String())
	}
}

func TestGossipMetrics(t *testing.T) {
	old, _ := keyOf(1)
	fresh, _ := keyOf(2)
	r := &rings{own: []topology.KeyFingerprint{topology.FingerprintKey(old), topology.FingerprintKey(fresh)}}
	registry := prometheus.NewPedanticRegistry()
	AddGossip(registry, r, newFixed(t))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			got = append(got, strings.TrimPrefix(fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, ","), m.GetCounter().GetValue()+m.GetGauge().GetValue()), "shardproxy_gossip_"))
		}
	}
	want := []string{
		"cancels_total{way=dropped} 14", "cancels_total{way=received} 13", "cancels_total{way=sent} 12",
		"fetches_total{result=failed} 10", "fetches_total{result=ok} 9", "health_items{} 17",
		"key_info{fingerprint=" + string(r.own[1]) + "} 0", "key_info{fingerprint=" + string(r.own[0]) + "} 1", "keys{} 2",
		"peer_epoch_lag{peer=p2} 2", "peer_epoch_lag{peer=p4} -1",
		"peers{status=alive} 1", "peers{status=dead} 1", "peers{status=left} 0", "peers{status=suspect} 1",
		"queued{kind=health} 16", "queued{kind=news} 15",
		"received_bytes_total{by=packet} 4", "received_bytes_total{by=stream} 8",
		"received_messages_total{by=packet} 2", "received_messages_total{by=stream} 6",
		"sent_bytes_total{by=packet} 3", "sent_bytes_total{by=stream} 7",
		"sent_messages_total{by=packet} 1", "sent_messages_total{by=stream} 5",
		"served_maps_total{} 11",
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
