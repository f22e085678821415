package proxy

import (
	"shardproxy/backend"
	"shardproxy/wire"
)

// now is the part of the configuration that may change, as it is in force now.
func (s *Server) now() *Live { return s.live.Load() }

// Live is the part of the configuration that Reload replaces. It must not be changed.
func (s *Server) Live() *Live { return s.now() }

// Database that clients see.
func (s *Server) Database() string { return s.cfg.Database }

// Reload puts another configuration in force, for all that begins from now on: sessions that run keep their user and their
// way of pooling. Connections whose password has changed are closed as Reconnect does.
func (s *Server) Reload(live *Live) {
	old := s.live.Swap(live)
	now := meansOf(live)
	before := s.dialer.means.Swap(now)
	if old == nil || old.Accept.Timeout != live.Accept.Timeout {
		s.auth.Store(wire.NewAuthenticator(wire.AuthConfig{Timeout: live.Accept.Timeout, MockKey: s.mockKey}))
	}
	var query *userQuery // a new one each time: what was found before may no longer be so
	if live.UserQuery != "" {
		query = &userQuery{sql: live.UserQuery, as: live.UserQueryAs, pooling: live.Pooling}
	}
	s.userQuery.Store(query)
	s.pools.SetLimits(live.Pools)
	s.service.SetLimits(serviceLimits(live.Pools))
	if before == nil {
		return
	}
	changed := func(p *backend.Pool) bool {
		user := p.Key().User
		return before.passwords[user] != now.passwords[user]
	}
	s.pools.Reconnect(changed)
	s.service.Reconnect(changed)
}

// serviceLimits are those of the pools for the proxy's own work.
func serviceLimits(l backend.Limits) backend.Limits {
	l.Min, l.Max, l.Total, l.Idle = 0, serviceMax, serviceAll, serviceIdle
	return l
}
