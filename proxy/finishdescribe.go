package proxy

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/wire"
)

// describeFinish finds the types of the client's statement, and of what is to give rows for it: as they were kept with the plan,
// or else a shard is asked, which so reports what is wrong with the statement.
func (s *Session) describeFinish(w *finishing) error {
	l := w.first
	original := &backend.Statement{SQL: w.sql}
	if w.bound != nil {
		original = w.bound.statement
	}
	kept := w.f.Described(original.Types)
	if w.known = kept != nil && !s.foreign; w.known {
		w.params, w.answer, w.columns = kept.Params, kept.Answer, kept.Columns
		if kept.Finish != w.f {
			w.f = kept.Finish
			if err := s.placeInputs(w); err != nil {
				return err
			}
		}
	} else {
		s.askDescription(l, original, parseHidden)
	}
	s.ask(l, roundTripSettings, bindNothing)
	if !w.known {
		if err := s.describeAnew(w); err != nil {
			return err
		}
	}
	if w.bound == nil {
		s.client.Write(w.answer)
	}
	return nil
}

// describeAnew asks the first shard.
func (s *Session) describeAnew(w *finishing) error {
	l := w.first
	if err := s.drain(l); err != nil {
		return err
	}
	if err := roundTrips(l); err != nil {
		return err
	}
	w.params, w.answer = l.params, l.described
	var err error
	if w.fields, err = wire.RowDescription(l.described[5:]); err != nil {
		return s.lost(l, err)
	}
	return s.describeInputs(w)
}

// roundTrips refuses settings of the lane with which a value that is written as text does not read as the same value again.
func roundTrips(l *lane) error {
	if len(l.rows) != 1 || !strings.HasPrefix(l.rows[0][0], "ISO") || strings.HasPrefix(l.rows[0][1], "-") || l.rows[0][1] == "0" {
		return wire.Errorf(wire.CodeFeatureNotSupported, "the rows of several shards are put together as text, which is not exact with these settings").
			WithHint("SET datestyle = ISO and extra_float_digits = 1.")
	}
	return nil
}

// keepDescription keeps what was found with the plan, if it is the same for all sessions and shards.
func (s *Session) keepDescription(w *finishing, plan *router.Finish) {
	oids := oidsOf(w.fields)
	for _, columns := range w.columns {
		for _, c := range columns {
			oids = append(oids, c.OID)
		}
	}
	for i := 0; i+4 <= len(w.params); i += 4 {
		oids = append(oids, binary.BigEndian.Uint32(w.params[i:]))
	}
	if s.foreign || slices.ContainsFunc(oids, func(oid uint32) bool { return oid >= firstOwn }) {
		return
	}
	d := &router.Described{Params: w.params, Answer: w.answer, Finish: w.f, Columns: w.columns}
	if w.bound != nil {
		d.Declared = w.bound.statement.Types
	}
	plan.Keep(d)
}

// describeInputs finds the columns of all inputs, of another Finish where they do not fit this one.
func (s *Session) describeInputs(w *finishing) error {
	for {
		fields := make([][]wire.Field, len(w.f.Inputs))
		oids := make([][]uint32, len(w.f.Inputs))
		for i, in := range w.f.Inputs {
			var err error
			if fields[i], err = s.describePull(w, in); err != nil {
				return err
			}
			oids[i] = oidsOf(fields[i])
		}
		fit := w.f.Fit(oids)
		if fit == w.f {
			return s.nameColumns(w, fields)
		}
		if w.f = fit; fit == nil {
			return errUnfinished("an average of this type needs all rows")
		}
		if err := s.placeInputs(w); err != nil {
			return err
		}
	}
}

// nameColumns finds the types and collations of all inputs' columns.
func (s *Session) nameColumns(w *finishing, fields [][]wire.Field) error {
	w.columns = make([][]router.FinishColumn, len(fields))
	for i, in := range w.f.Inputs {
		var err error
		if w.columns[i], err = s.columnsOf(w, in, fields[i]); err != nil {
			return err
		}
	}
	return nil
}

// describePull lets the first shard read the text that gives an input's rows.
func (s *Session) describePull(w *finishing, in *router.Input) ([]wire.Field, error) {
	sql, _, err := s.pullText(in, w.first.shard)
	if err != nil {
		return nil, err
	}
	s.askDescription(w.first, s.statementOf(w, sql, s.typesOf(w, in.Params), false), parseProbe)
	if err := s.drain(w.first); err != nil {
		return nil, w.unfinished(err)
	}
	fields, err := wire.RowDescription(w.first.described[5:])
	if err != nil {
		return nil, s.lost(w.first, err)
	}
	return fields, nil
}

// sameTypes lets the first shard read the last step, which must give the columns of the statement.
func (s *Session) sameTypes(w *finishing, st *backend.Statement) error {
	s.askDescription(w.first, st, parseProbe)
	if err := s.drain(w.first); err != nil {
		return w.unfinished(err)
	}
	last, err := wire.RowDescription(w.first.described[5:])
	if err != nil {
		return s.lost(w.first, err)
	}
	if !slices.Equal(oidsOf(last), oidsOf(w.fields)) {
		return errUnfinished("the last step would give it columns of other types")
	}
	return nil
}

// askDescription sends Parse and Describe: lane.params and lane.described will hold the answer.
func (s *Session) askDescription(l *lane, st *backend.Statement, r reply) {
	l.params, l.described = nil, nil
	s.sendParse(l, st, r)
	l.send(func(dst []byte) []byte { return wire.AppendDescribe(dst, 'S', st.Name) })
	l.await(describeKept)
}

// ask sends a query of our own in the middle of a pipeline: lane.rows will hold the answer. bind is its Bind behind the names.
func (s *Session) ask(l *lane, st *backend.Statement, bind []byte) {
	l.rows = nil
	s.sendParse(l, st, parseHidden)
	l.runOwn(st.Name, bind, executeHidden)
}

// roundTripSettings asks for what decides whether a value that was written as text reads as the same value again.
var roundTripSettings = &backend.Statement{
	Name: backend.StatementPrefix + "roundtrip",
	SQL:  "SELECT pg_catalog.current_setting('datestyle'), pg_catalog.current_setting('extra_float_digits')",
}

// typeOf is what PostgreSQL says of a type.
type typeOf struct {
	name     string
	collated bool
	pseudo   bool
}

// columnsOf finds the names of the types and collations of an input's columns.
func (s *Session) columnsOf(w *finishing, in *router.Input, fields []wire.Field) ([]router.FinishColumn, error) {
	types, err := s.typesNamed(w.first, oidsOf(fields))
	if err != nil {
		return nil, err
	}
	columns := make([]router.FinishColumn, len(fields))
	var collated []int
	for i, f := range fields {
		of := types[f.Type]
		if of.pseudo || of.name == "" {
			return nil, errUnfinished(fmt.Sprintf("a column of type %s cannot be read again from its text", of.name))
		}
		columns[i] = router.FinishColumn{Name: f.Name, OID: f.Type, Type: of.name}
		if of.collated {
			collated = append(collated, i)
		}
	}
	if len(collated) == 0 {
		return columns, nil
	}
	sql, keep, err := s.pullText(in, w.first.shard)
	if err != nil {
		return nil, err
	}
	rest, err := s.pullBind(w, in)
	if err != nil {
		return nil, err
	}
	s.ask(w.first, s.statementOf(w, router.Collations(sql, len(columns), collated), s.typesOf(w, in.Params), keep), rest)
	if err := s.drain(w.first); err != nil {
		return nil, err
	}
	for k, i := range collated {
		if len(w.first.rows) != 1 || w.first.rows[0][k] == "" {
			return nil, errUnfinished("the collation of a column is not known")
		}
		columns[i].Collation = w.first.rows[0][k]
	}
	return columns, nil
}

// typesNamed asks the lane's shard for types. Those that come with PostgreSQL are asked for once.
func (s *Session) typesNamed(l *lane, oids []uint32) (map[uint32]typeOf, error) {
	types := map[uint32]typeOf{}
	var unknown []string
	for _, oid := range oids {
		if known, ok := s.srv.types.Load(oid); ok {
			types[oid] = known.(typeOf)
		} else {
			unknown = append(unknown, strconv.FormatUint(uint64(oid), 10))
		}
	}
	if len(unknown) == 0 {
		return types, nil
	}
	const name = "CASE WHEN t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace THEN 'pg_catalog.' || pg_catalog.quote_ident(t.typname) ELSE pg_catalog.format_type(t.oid, -1) END"
	sql := "SELECT t.oid, " + name + ", t.typcollation <> 0, t.typtype = 'p' FROM pg_catalog.pg_type t WHERE t.oid IN (" + strings.Join(unknown, ", ") + ")"
	s.ask(l, &backend.Statement{SQL: sql}, bindNothing)
	if err := s.drain(l); err != nil {
		return nil, err
	}
	for _, row := range l.rows {
		oid := uint32(parseUint(row[0]))
		types[oid] = typeOf{name: row[1], collated: row[2] == "t", pseudo: row[3] == "t"}
		if oid < firstOwn {
			s.srv.types.Store(oid, types[oid])
		}
	}
	return types, nil
}
