package topology

import (
	"strings"
	"testing"
)

// TestJoining holds what may become of a shard that is being added, and that the map tells of it in all its forms.
func TestJoining(t *testing.T) {
	node := func(host string) []Node { return []Node{{Host: host, Port: 1, Database: "d"}} }
	s, err := New(Content{Cluster: "c", Epoch: 1, Shards: []Shard{{Name: "a", Nodes: node("a")}}, Ranges: EqualRanges(1), Rules: DefaultKeyRules()})
	if err != nil {
		t.Fatal(err)
	}
	add := AddShard{Shard{Name: "b", Nodes: node("b"), State: ShardJoining}}
	joining, err := s.Apply(add)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := DecodeSnapshot(joining.Encode())
	if err != nil || decoded.Shards[1].State != ShardJoining || decoded.Checksum() != joining.Checksum() {
		t.Errorf("encoded: %v, %+v", err, decoded)
	}
	if followed, err := s.Follow(joining.Delta(add)); err != nil || followed.Shards[1].State != ShardJoining {
		t.Errorf("followed: %v", err)
	}
	file := joining.File()
	if content, err := file.Content(); err != nil || content.Shards[1].State != ShardJoining {
		t.Errorf("in a file: %v", err)
	}
	for want, c := range map[string]Change{
		"is joining and takes no ranges":      MoveRange{Shard: "b"},
		"it is being added":                   SetShardState{"b", ShardDraining},
		"only a new shard can be joining":     SetShardState{"a", ShardJoining},
		"there is a shard of that name":       add,
		"it is joining already":               SetShardState{"b", ShardJoining},
		"node b:1/d is a node of shard \"b\"": AddShard{Shard{Name: "x", Nodes: node("b")}},
	} {
		if _, err := joining.Apply(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", c, err, want)
		}
	}
	active, err := joining.Apply(SetShardState{"b", ShardActive})
	if err != nil || active.Shards[1].State != ShardActive || active.Checksum() == joining.Checksum() {
		t.Errorf("active: %v", err)
	}
	if gone, err := joining.Apply(RemoveShard{"b"}); err != nil || gone.Checksum() != s.Checksum() {
		t.Errorf("gone: %v", err)
	}
}
