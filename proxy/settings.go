package proxy

import (
	"context"
	"maps"
	"slices"
	"strings"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// reported are the parameters whose changes PostgreSQL 15 reports to clients by itself, in the order in
// which it sends them at login.
var reportable = []string{
	"application_name", "client_encoding", "DateStyle", "default_transaction_read_only", "in_hot_standby",
	"integer_datetimes", "IntervalStyle", "is_superuser", "server_encoding", "server_version",
	"session_authorization", "standard_conforming_strings", "TimeZone",
}

// use makes settings the session's, and what they mean for the reading of statements.
func (s *Session) use(settings *backend.Settings) {
	s.settings = settings
	seen := settings
	if s.tx.local != nil {
		for _, e := range s.tx.local.All() {
			seen = seen.With(e.Name, e.Value)
		}
	}
	s.reading = readingOf(seen)
	server, client := s.srv.defaults.Load().params["server_encoding"], s.encodingOf(seen)
	s.foreign = client != server && client != "SQL_ASCII" && server != "SQL_ASCII"
	s.env = s.srv.envs.of(s.srv.defaults.Load(), seen, s.user.Name, s.bound != unbound)
}

// reading are the parameters by which PostgreSQL reads literals, and finds names, when it parses a statement.
var reading = []string{
	"array_nulls", "backslash_quote", "bytea_output", "client_encoding", "datestyle", "default_text_search_config", "intervalstyle",
	"lc_monetary", "lc_numeric", "lc_time", "role", "search_path", "session_authorization", "standard_conforming_strings", "timezone",
	"timezone_abbreviations", "transform_null_equals", "xmlbinary", "xmloption",
}

// readingOf gives what the settings say of reading, as a key.
func readingOf(settings *backend.Settings) string {
	var key strings.Builder
	for _, e := range settings.All() {
		if _, ok := slices.BinarySearch(reading, e.Name); ok {
			key.WriteString(e.Name + "\x00" + e.Value + "\x00")
		}
	}
	return key.String()
}

// announce tells the client the values of reported parameters that it does not know yet, after a change that no
// shard has reported.
func (s *Session) announce() {
	params := s.srv.defaults.Load().params
	for _, name := range reportable {
		if value, ok := effective(params, s.settings, name); ok {
			s.tell(name, value)
		}
	}
}

// knows gives a reported parameter as the client was told last.
func (s *Session) knows(name string) (string, bool) {
	switch name {
	case "application_name":
		return s.application, true
	case "session_authorization":
		return s.user.Name, true
	}
	v, ok := s.reported[name]
	return v, ok
}

// tell reports a parameter to the client, unless it knows.
func (s *Session) tell(name, value string) {
	if known, _ := s.knows(name); known == value || s.reported == nil { // nil: not greeted yet
		return
	}
	switch {
	case name == "application_name":
		s.application = value
	case !s.ownReports:
		s.reported, s.ownReports = maps.Clone(s.reported), true
		fallthrough
	default:
		s.reported[name] = value
	}
	s.client.SetAppended(wire.AppendParameterStatus(s.client.Append(), name, value))
}

func effective(params map[string]string, settings *backend.Settings, name string) (string, bool) {
	if v, ok := settings.Get(strings.ToLower(name)); ok {
		return v, true
	}
	v, ok := params[name]
	return v, ok
}

// parameterStatus handles a report of a shard. The client is told what is new to it: several shards report the same,
// and a backend that is brought to the session's settings reports what the client knows.
func (s *Session) parameterStatus(m []byte) error {
	name, rest, err := wire.String(m[5:])
	if err != nil {
		return err
	}
	value, _, err := wire.String(rest)
	if err != nil {
		return err
	}
	if name != "session_authorization" && name != "is_superuser" && name != "in_hot_standby" {
		s.tell(strings.Clone(name), strings.Clone(value))
	}
	return nil
}

// set runs SET, RESET and their kin. What it sets is read back from the shard and follows the session.
func (s *Session) set(ctx context.Context, t *router.Template, sql string) error {
	if s.tx.failed {
		return errAborted()
	}
	if strings.HasPrefix(t.Set.Name, "shardproxy.") {
		return s.setOwn(&t.Set)
	}
	sql = strings.Clone(sql)
	s.tx.isolation = "" // it may be what is set
	perTransaction := t.Set.Local || t.Set.Verb == router.SetTransaction
	switch {
	case t.Set.Verb == router.SetResetAll:
		return s.resetAll()
	case perTransaction && s.tx.open:
		tag, err := s.onLanes(ctx, sql)
		if err != nil {
			return err
		}
		if err := s.followLocal(t.Set.Name); err != nil {
			return err
		}
		s.tx.note(logged{sql: strings.TrimRight(sql, "; \t\r\n"), settings: s.settings, mode: isMode(t.Set.Name)})
		s.complete(tag)
		return nil
	case perTransaction:
		return s.one(ctx, s.anyShard(), sql, false)
	}
	name := "SET"
	if t.Set.Verb == router.SetDefault && len(sql) > 5 && strings.EqualFold(strings.TrimLeft(sql, " \t\r\n(")[:5], "RESET") {
		name = "RESET"
	}
	if value, ok := s.base.Get(t.Set.Name); ok && t.Set.Verb == router.SetDefault {
		s.use(s.settings.With(t.Set.Name, value)) // the default is the client's own, not the backend's
		s.announce()
		s.complete(name)
		return nil
	}
	tag, err := s.onLanes(ctx, sql)
	if err != nil {
		return err
	}
	if err := s.follow(t.Set); err != nil {
		return err
	}
	s.complete(tag)
	return nil
}

// follow notes what a successful SET has changed.
func (s *Session) follow(set router.SetStmt) error {
	names := []string{set.Name}
	if set.Verb == router.SetCharacteristic {
		names = []string{"default_transaction_isolation", "default_transaction_read_only", "default_transaction_deferrable"}
	}
	want := s.settings
	for _, name := range names {
		if set.Verb == router.SetDefault {
			want = want.Without(name)
			continue
		}
		if name == "seed" { // reads back as nothing, and random values differ between shards anyway
			continue
		}
		value, err := s.current(s.lanes[0], name)
		if err != nil {
			return err
		}
		want = want.With(name, value)
		if name == "session_authorization" {
			want = want.Without("role") // which PostgreSQL sets back with it
		}
	}
	if s.tx.local != nil { // SET goes before an earlier SET LOCAL
		for _, name := range names {
			s.tx.local = s.tx.local.Without(name)
		}
	}
	for _, l := range s.lanes {
		if !s.tx.open || l.begun {
			l.be.Settings = want
		}
	}
	s.use(want)
	return nil
}

// followCalls notes what calls of set_config on a shard have changed.
func (s *Session) followCalls(calls []router.SetStmt, shard topology.ShardID) error {
	i := slices.IndexFunc(s.lanes, func(l *lane) bool { return l.shard == shard })
	if i < 0 {
		return nil
	}
	l := s.lanes[i]
	if err := s.holdPipeline(); err != nil {
		return err
	}
	want := s.settings
	for _, set := range calls {
		switch {
		case set.Name == "": // which ones is not known: all that the session has set
			l.be.Epoch = 0
			l.rows = nil
			l.query("SELECT name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings WHERE source = 'session'", queryHidden)
			if err := s.drain(l); err != nil {
				return err
			}
			for _, row := range l.rows {
				want = want.With(strings.ToLower(row[0]), row[1])
			}
			continue
		case set.Local && !s.tx.open:
			continue
		}
		value, err := s.current(l, set.Name)
		if err != nil {
			return err
		}
		if set.Local {
			if err := s.tellOthers(l, set.Name, value); err != nil {
				return err
			}
			s.localize(set.Name, value)
			s.tx.note(logged{
				sql:      "SELECT pg_catalog.set_config(" + quote(set.Name) + "," + quote(value) + ",true)",
				settings: s.settings, mode: isMode(set.Name),
			})
		} else {
			want = want.With(strings.ToLower(set.Name), value)
		}
	}
	if want != s.settings {
		l.be.Settings = want // the other lanes learn it when they are entered
		s.use(want)
	}
	return nil
}

// isMode says that a parameter, or SET TRANSACTION, sets a mode of the transaction.
func isMode(name string) bool { return strings.HasPrefix(strings.ToLower(name), "transaction") }

// watched are the parameters that decide how we read a statement.
var watched = []string{"search_path", "standard_conforming_strings", "client_encoding", "role", "session_authorization"}

// followLocal notes what SET LOCAL has changed of what we look at.
func (s *Session) followLocal(name string) error {
	if !slices.Contains(watched, name) {
		return nil
	}
	value, err := s.current(s.lanes[0], name)
	if err != nil {
		return err
	}
	s.localize(name, value)
	return nil
}

func (s *Session) localize(name, value string) {
	if name = strings.ToLower(name); !slices.Contains(watched, name) {
		return
	}
	if s.tx.local == nil {
		s.tx.local = backend.NoSettings
	}
	s.tx.local = s.tx.local.With(name, value)
	s.use(s.settings)
}

// tellOthers sets a parameter for the transaction on its other lanes.
func (s *Session) tellOthers(done *lane, name, value string) error {
	for _, l := range slices.Clone(s.lanes) {
		if l == done || !l.begun {
			continue
		}
		l.query("SELECT pg_catalog.set_config("+quote(name)+","+quote(value)+",true)", queryHidden)
		if err := s.drain(l); err != nil {
			return err
		}
	}
	return nil
}

// current asks a lane for the value of a parameter.
func (s *Session) current(l *lane, name string) (string, error) {
	l.rows = nil
	l.query("SHOW "+quoteIdentifier(name), queryHidden) // a SELECT would take the transaction's snapshot, and SET TRANSACTION be too late
	if err := s.drain(l); err != nil {
		return "", err
	}
	if len(l.rows) != 1 {
		return "", wire.Errorf(wire.CodeInternalError, "shard %s gave no value of %s", s.shardName(l.shard), name)
	}
	return l.rows[0][0], nil
}

// onLanes runs a statement on every lane of the session, on any shard where there is none. The client sees
// the notices of the first.
func (s *Session) onLanes(ctx context.Context, sql string) (tag string, err error) {
	first, err := s.lane(ctx, s.anyShard())
	if err != nil {
		return "", err
	}
	first.notices, first.tag = true, ""
	first.query(sql, queryHidden)
	err = s.drain(first)
	first.notices, tag = false, first.tag
	if err != nil {
		return "", err
	}
	for _, l := range slices.Clone(s.lanes) {
		if l == first || (s.tx.open && !l.begun) {
			continue
		}
		if err := s.enter(l); err != nil {
			return "", err
		}
		l.query(sql, queryHidden)
		if err := s.drain(l); err != nil {
			return "", err
		}
	}
	return tag, nil
}

func (s *Session) resetAll() error {
	want := s.base
	for _, name := range []string{"session_authorization", "role"} { // RESET ALL leaves these
		if v, ok := s.settings.Get(name); ok {
			want = want.With(name, v)
		}
	}
	s.use(want)
	s.announce()
	s.complete("RESET")
	return nil
}

// setOwn runs SET of a parameter of the proxy.
func (s *Session) setOwn(set *router.SetStmt) error {
	if set.Verb == router.SetDefault || set.Value == "" {
		set = &router.SetStmt{Name: set.Name, Verb: router.SetDefault}
	}
	bound, by := unbound, ""
	switch {
	case set.Name != "shardproxy.key" && set.Name != "shardproxy.shard":
		return wire.Errorf(wire.CodeUndefinedObject, "unrecognized configuration parameter \"%s\"", set.Name).
			WithHint("There are shardproxy.key and shardproxy.shard.")
	case set.Local:
		return wire.Errorf(wire.CodeFeatureNotSupported, "SET LOCAL of %s is not supported", set.Name).WithHint("Use SET and RESET.")
	case set.Verb == router.SetDefault:
	case set.Name == "shardproxy.shard":
		by = "shard " + set.Value
		bound = topology.ShardID(slices.IndexFunc(s.routes.snap.Shards, func(sh topology.Shard) bool { return sh.Name == set.Value }))
		if bound < 0 {
			return wire.Errorf(wire.CodeInvalidParameterValue, "there is no shard \"%s\"", set.Value).
				WithHint("SHOW SHARDS on database shardproxy lists them.")
		}
	default:
		hint := router.Hint{Present: true, Key: set.Value}
		if s.foreign && !hint.Portable() {
			return wire.Errorf(wire.CodeFeatureNotSupported, "a key beyond ASCII cannot be hashed in client encoding %s", s.clientEncoding()).
				WithHint("SET client_encoding = 'UTF8'.")
		}
		by = "key " + set.Value
		bound = s.routes.snap.Owner(hint.Hash())
	}
	if s.tx.open && len(s.lanes) > 0 && bound != unbound && (len(s.lanes) > 1 || s.lanes[0].shard != bound) {
		return wire.Errorf(wire.CodeActiveTransaction, "%s cannot change within a transaction that works on another shard", set.Name)
	}
	s.bound, s.boundBy = bound, by
	s.use(s.settings)
	if set.Verb == router.SetDefault {
		s.complete("RESET")
	} else {
		s.complete("SET")
	}
	return nil
}

// showOwn answers SHOW of a parameter of the proxy.
func (s *Session) showOwn(name string) error {
	value := ""
	kind, of, _ := strings.Cut(s.boundBy, " ")
	switch {
	case name == "shardproxy.key" && kind == "key", name == "shardproxy.shard" && kind == "shard":
		value = of
	case name != "shardproxy.key" && name != "shardproxy.shard":
		return wire.Errorf(wire.CodeUndefinedObject, "unrecognized configuration parameter \"%s\"", name)
	}
	s.rows([]string{name}, [][]string{{value}}, "SHOW")
	return nil
}

// rows answers with text rows of the proxy's own.
func (s *Session) rows(names []string, rows [][]string, tag string) {
	fields := make([]wire.Field, len(names))
	for i, n := range names {
		fields[i] = wire.Field{Name: n, Type: wire.OIDText}
	}
	out := s.client.Append()
	if !s.extended {
		out = wire.AppendRowDescription(out, fields)
	}
	for _, row := range rows {
		out = wire.AppendDataRow(out, row...)
	}
	s.client.SetAppended(wire.AppendCommandComplete(out, tag))
}

// discard runs DISCARD.
func (s *Session) discard(t *router.Template, sql string) error {
	all := t.Name == "ALL"
	if all && s.tx.open && !s.tx.implicit {
		return wire.Errorf(wire.CodeActiveTransaction, "DISCARD ALL cannot run inside a transaction block")
	}
	for _, l := range slices.Clone(s.lanes) {
		l.silent = all // it reports the backend's defaults, not the client's
		l.query(sql, queryHidden)
		err := s.drain(l)
		l.silent = false
		if err != nil {
			return err
		}
		if all || t.Name == "PLANS" {
			l.be.Unnamed = 0
		}
		if all {
			l.be.ForgetAll()
			l.be.Settings, l.be.Epoch = backend.NoSettings, 0
			l.pinned, l.listen = s.pooling == SessionPooling, false
		}
	}
	if all || t.Name == "SEQUENCES" {
		s.sequences = sequences{}
	}
	if all {
		clear(s.prepared)
		s.unnamed = nil
		s.forgetPortals()
		s.bound, s.boundBy = unbound, ""
		s.use(s.base)
		s.announce()
	}
	s.complete("DISCARD " + t.Name)
	return nil
}
