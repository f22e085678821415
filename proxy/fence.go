package proxy

import (
	"context"
	"strings"

	"shardproxy/fence"
	"shardproxy/router"
	"shardproxy/topology"
)

// alone says that a statement is for one shard and nothing need be done beside it.
func (s *Session) alone(t *router.Template, shards []topology.ShardID) bool {
	return len(shards) == 1 && (s.bound != unbound || !s.makesFences(t))
}

// makesFences says that a statement may make tables that are to be fenced.
func (s *Session) makesFences(t *router.Template) bool {
	return t.Schema && t.Kind == router.All && s.snap.Schema.Fenced
}

// fenceNew puts the fence on the tables that the statement which has just run has made, on every shard and in the same
// transaction, so that no table is ever without. It does so as the client, who owns them.
func (s *Session) fenceNew(ctx context.Context) error {
	if err := s.readOwnSchema(ctx); err != nil {
		return err
	}
	s.ownRead = true
	ddl := unfenced(s.own.Schema)
	if ddl == "" {
		return nil
	}
	for _, l := range s.lanes {
		if l.begun {
			l.query(ddl, queryHidden)
			_ = l.be.Flush() // all at work before the first is waited for; drain sees a failure
		}
	}
	return s.drainAll()
}

// unfenced is the SQL that fences the tables of a schema which are not yet, "" for none.
func unfenced(schema *topology.Schema) string {
	var ddl []string
	for _, t := range fence.Tables(schema) {
		if !schema.Tables[t.TableName].Fenced {
			ddl = append(ddl, fence.Triggers(t)...)
		}
	}
	return strings.Join(ddl, ";")
}
