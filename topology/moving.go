package topology

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of the moves that a map tells of.
const (
	MovingMax       = 1 << 10
	MovingRangesMax = 1 << 14 // of one move
)

// Moving tells of key ranges whose rows are on two shards: of the one of both that does not own them the rows do not count.
// The map says so from before the first row is copied until after the last one is deleted.
type Moving struct {
	ID             int64 // of the move
	Source, Target string
	Ranges         []KeyRange // in order, apart from each other; Shard does not matter
	Hold           Epoch      // 0: none. Else new work on the ranges waits, and all other work is stamped with at least this
}

// SetMoving tells of a move, or says something else of it than before.
type SetMoving struct{ Moving Moving }

// EndMoving forgets a move: each row is on one shard only.
type EndMoving struct{ ID int64 }

func (c SetMoving) String() string {
	m := &c.Moving
	ranges := make([]string, len(m.Ranges))
	for i, r := range m.Ranges {
		ranges[i] = r.String()
	}
	s := fmt.Sprintf("move %d is under way from shard %s to %s", m.ID, m.Source, m.Target)
	if m.Hold != 0 {
		s = fmt.Sprintf("move %d from shard %s to %s holds its ranges, for epoch %d", m.ID, m.Source, m.Target, m.Hold)
	}
	return s + ": " + strings.Join(ranges[:min(len(ranges), 5)], " ")
}

func (c EndMoving) String() string { return fmt.Sprintf("move %d has ended", c.ID) }

func (c SetMoving) apply(d *draft) error {
	if err := d.checkMoving(&c.Moving); err != nil {
		return err
	}
	list := d.mutableMoving()
	i, found := findMoving(list, c.Moving.ID)
	switch {
	case found && list[i].sum() == c.Moving.sum():
		return errors.New("the map says so already")
	case found:
		d.sum -= list[i].sum()
		list[i] = c.Moving
	case len(list) >= MovingMax:
		return fmt.Errorf("more than %d moves are under way", MovingMax)
	default:
		list = slices.Insert(list, i, c.Moving)
	}
	d.sum += c.Moving.sum()
	d.moving = list
	return nil
}

func (c EndMoving) apply(d *draft) error {
	list := d.mutableMoving()
	i, found := findMoving(list, c.ID)
	if !found {
		return fmt.Errorf("there is no move %d under way", c.ID)
	}
	d.sum -= list[i].sum()
	d.moving = slices.Delete(list, i, i+1)
	return nil
}

func findMoving(list []Moving, id int64) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(m Moving, id int64) int { return cmp.Compare(m.ID, id) })
}

// checkMoving says what is wrong with a move of s, its ranges' overlap with those of others left out.
func (s *Snapshot) checkMoving(m *Moving) error {
	switch {
	case m.ID <= 0:
		return errors.New("a move has a number above 0")
	case m.Source == m.Target:
		return errors.New("a move has two shards")
	case len(m.Ranges) == 0 || len(m.Ranges) > MovingRangesMax:
		return fmt.Errorf("a move has 1 to %d ranges, not %d", MovingRangesMax, len(m.Ranges))
	}
	for _, name := range []string{m.Source, m.Target} {
		if _, ok := s.ShardByName(name); !ok {
			return fmt.Errorf("there is no shard %q", name)
		}
	}
	for i, r := range m.Ranges {
		switch {
		case r.End <= r.Start && r.End != 0:
			return fmt.Errorf("the range %v is empty", r)
		case i > 0 && (m.Ranges[i-1].End == 0 || r.Start < m.Ranges[i-1].End):
			return fmt.Errorf("the ranges %v and %v are not in order", m.Ranges[i-1], r)
		}
	}
	return nil
}

func (m *Moving) sum() uint64 { return spread(uint64(HashText(m.append([]byte{'m'})))) }

func (m *Moving) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(m.ID))
	dst = appendString(appendString(dst, m.Source), m.Target)
	dst = binary.AppendUvarint(dst, uint64(m.Hold))
	dst = binary.AppendUvarint(dst, uint64(len(m.Ranges)))
	for _, r := range m.Ranges {
		dst = appendHash(appendHash(dst, r.Start), r.End)
	}
	return dst
}

func (d *decoder) moving() Moving {
	m := Moving{ID: int64(d.uvarint()), Source: d.text(), Target: d.text(), Hold: Epoch(d.uvarint())}
	m.Ranges = make([]KeyRange, d.count(MovingRangesMax, 16))
	for i := range m.Ranges {
		m.Ranges[i] = KeyRange{Start: KeyHash(d.uint64()), End: KeyHash(d.uint64())}
	}
	return m
}

// movingIndex is what sessions ask of the moves under way; nil for none.
type movingIndex struct {
	stamp   Epoch                  // see Snapshot.Stamp
	held    []KeyRange             // in order
	foreign map[ShardID][]KeyRange // see Snapshot.Foreign
}

// indexMoving makes the index from the moves and the ranges. No hash may be in two moves.
func (s *Snapshot) indexMoving() error {
	s.movings = nil
	if len(s.moving) == 0 {
		return nil
	}
	x := &movingIndex{foreign: make(map[ShardID][]KeyRange)}
	var all []KeyRange
	for i := range s.moving {
		m := &s.moving[i]
		all = append(all, m.Ranges...)
		if m.Hold != 0 {
			x.held, x.stamp = append(x.held, m.Ranges...), max(x.stamp, m.Hold)
		}
		for _, name := range []string{m.Source, m.Target} {
			id, ok := s.ShardByName(name)
			if !ok {
				return fmt.Errorf("move %d names the unknown shard %q", m.ID, name)
			}
			for _, r := range m.Ranges {
				x.foreign[id] = append(x.foreign[id], s.notOwned(id, r)...)
			}
		}
	}
	byStart := func(a, b KeyRange) int { return cmp.Compare(a.Start, b.Start) }
	slices.SortFunc(all, byStart)
	for i := 1; i < len(all); i++ {
		if all[i-1].End == 0 || all[i].Start < all[i-1].End {
			return fmt.Errorf("the range %v is in two moves", all[i])
		}
	}
	slices.SortFunc(x.held, byStart)
	for _, list := range x.foreign {
		slices.SortFunc(list, byStart)
	}
	s.movings = x
	return nil
}

// notOwned gives the parts of r that the shard does not own.
func (s *Snapshot) notOwned(id ShardID, r KeyRange) (parts []KeyRange) {
	i, found := slices.BinarySearchFunc(s.starts, r.Start, cmp.Compare)
	if !found {
		i--
	}
	for ; i < len(s.ranges); i++ {
		own := s.ranges[i]
		if r.End != 0 && own.Start >= r.End {
			break
		}
		if own.Shard == id {
			continue
		}
		part := KeyRange{Start: max(own.Start, r.Start), End: min(own.End-1, r.End-1) + 1, Shard: own.Shard}
		if n := len(parts); n > 0 && parts[n-1].End == part.Start && part.Start != 0 {
			parts[n-1].End = part.End
			continue
		}
		parts = append(parts, part)
	}
	return parts
}

// Moving gives the moves under way by number. The caller must not change them.
func (s *Snapshot) Moving() []Moving { return s.moving }

// Stamp is the epoch that work planned with s is stamped with. It is ahead of Epoch while a hold waits for the map that
// will follow: the work which is not held is as right by that one.
func (s *Snapshot) Stamp() Epoch {
	if s.movings == nil {
		return s.Epoch
	}
	return max(s.Epoch, s.movings.stamp)
}

// Held says whether new work on h must wait for the next map. It neither allocates nor locks.
func (s *Snapshot) Held(h KeyHash) bool {
	return s.movings != nil && inRanges(s.movings.held, h)
}

// AnyHeld says whether some key is held: a statement for all keys must wait then.
func (s *Snapshot) AnyHeld() bool { return s.movings != nil && len(s.movings.held) > 0 }

// InCutover says whether a shard is about to lose or to get keys that are held.
func (s *Snapshot) InCutover(shard string) bool {
	return s.AnyHeld() && slices.ContainsFunc(s.moving, func(m Moving) bool { return m.Hold != 0 && (m.Source == shard || m.Target == shard) })
}

// Loses says whether a shard is about to lose keys that are held. Who writes there is waited for.
func (s *Snapshot) Loses(shard string) bool {
	return s.AnyHeld() && slices.ContainsFunc(s.moving, func(m Moving) bool { return m.Hold != 0 && s.Shards[s.Owner(m.Ranges[0].Start)].Name == shard })
}

// inRanges says whether one of ranges, which are in order, has h.
func inRanges(ranges []KeyRange, h KeyHash) bool {
	lo, hi := 0, len(ranges)
	for lo < hi {
		mid := (lo + hi) / 2
		if ranges[mid].Start <= h {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo > 0 && h <= ranges[lo-1].End-1
}

// Foreign gives the ranges, in order, of which the shard may hold rows that count elsewhere: a statement without a key must
// leave them out there. nil for most shards.
func (s *Snapshot) Foreign(id ShardID) []KeyRange {
	if s.movings == nil {
		return nil
	}
	return s.movings.foreign[id]
}
