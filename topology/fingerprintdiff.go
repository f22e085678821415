package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Differences says how the schema of other differs from that of reference: "here" is other. Parts of what is missing as a
// whole are not listed.
func Differences(reference, other *Fingerprint) []Difference {
	d := differ{reference: reference, other: other, gone: make(map[string]bool)}
	missing, extra := d.only(reference, other), d.only(other, reference)
	missing, extra = d.renamed(missing, extra)
	for _, key := range missing {
		d.note(key.kind, key.name, "is missing")
	}
	for _, key := range extra {
		d.note(key.kind, key.name, "is not on "+reference.Shard)
	}
	for key, was := range reference.objects {
		if is, ok := other.objects[key]; ok {
			d.compare(key, was, is)
		}
	}
	for table, columns := range reference.columns {
		d.order(table, columns, other.columns[table])
	}
	d.sort()
	return d.found
}

type differ struct {
	reference, other *Fingerprint
	gone             map[string]bool // names of what one of the two does not have at all
	found            []Difference
}

func (d *differ) note(kind, name, what string) {
	d.found = append(d.found, Difference{kind, name, what})
}

// only gives the objects of a that b does not have, without the parts of an object that is itself among them.
func (d *differ) only(a, b *Fingerprint) (keys []objectKey) {
	whole := make(map[string]bool)
	for key, o := range a.objects {
		if _, ok := b.objects[key]; !ok {
			keys = append(keys, key)
			if o.part == key.name {
				whole[key.name] = true
			}
		}
	}
	return slices.DeleteFunc(keys, func(key objectKey) bool {
		part := a.objects[key].part
		return part != key.name && whole[part]
	})
}

// renamed takes the pairs of a missing and an extra object out that have only another name.
func (d *differ) renamed(missing, extra []objectKey) (rest, restExtra []objectKey) {
	type like struct{ kind, part, values string }
	likeOf := func(f *Fingerprint, key objectKey) like {
		o := f.objects[key]
		return like{key.kind, o.part, fmt.Sprintf("%q", o.values)}
	}
	byName := func(a, b objectKey) int { return cmp.Compare(a.name, b.name) }
	slices.SortFunc(missing, byName)
	slices.SortFunc(extra, byName)
	called := make(map[like][]objectKey)
	for _, key := range extra {
		if key.kind == kindConstraint || key.kind == kindIndex {
			l := likeOf(d.other, key)
			called[l] = append(called[l], key)
		}
	}
	paired := make(map[objectKey]bool)
	for _, key := range missing {
		l := likeOf(d.reference, key)
		if len(called[l]) == 0 {
			rest = append(rest, key)
			continue
		}
		is := called[l][0]
		called[l], paired[is] = called[l][1:], true
		d.note(is.kind, is.name, "is called "+bare(key.name, d.reference.objects[key].part)+" on "+d.reference.Shard)
	}
	return rest, slices.DeleteFunc(extra, func(key objectKey) bool { return paired[key] })
}

// compare notes the aspects in which an object is not what it was.
func (d *differ) compare(key objectKey, was, is object) {
	aspects := aspectsOf(key.kind)
	if len(was.values) != len(aspects) || len(is.values) != len(aspects) { // a text has our separator in it
		if !slices.Equal(was.values, is.values) {
			d.note(key.kind, key.name, "has another definition than on "+d.reference.Shard)
		}
		return
	}
	for i, a := range aspects {
		if was.values[i] == is.values[i] {
			continue
		}
		kind, name := key.kind, key.name
		if a.kind != "" {
			kind, name = a.kind, key.kind+" "+key.name
		}
		d.note(kind, name, a.what(is.values[i], was.values[i], d.reference.Shard))
	}
}

// order compares the order of the columns that both have.
func (d *differ) order(table string, was, is []string) {
	common := func(columns, others []string) (list []string) {
		known := make(map[string]bool, len(others))
		for _, c := range others {
			known[c] = true
		}
		for _, c := range columns {
			if known[c] {
				list = append(list, c)
			}
		}
		return list
	}
	if slices.Equal(was, is) {
		return
	}
	was, is = common(was, is), common(is, was)
	for i := range was {
		if was[i] != is[i] {
			d.note(kindTable, table, fmt.Sprintf("has another order of columns: %s where %s has %s", bare(is[i], table), d.reference.Shard, bare(was[i], table)))
			return
		}
	}
}

func aspectsOf(kind string) []aspect {
	for i := range objectKinds {
		if objectKinds[i].kind == kind {
			return objectKinds[i].aspects
		}
	}
	return nil
}

// bare is the name of a part without that of the whole.
func bare(name, whole string) string { return strings.TrimSuffix(name, " of "+whole) }

// sort brings the differences in the order of objectKinds, the lesser ones last.
func (d *differ) sort() {
	rank := func(kind string) int {
		if kind == kindOwner {
			return len(objectKinds)
		}
		return slices.IndexFunc(objectKinds, func(k objectKind) bool { return k.kind == kind })
	}
	slices.SortFunc(d.found, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(rank(a.Kind), rank(b.Kind)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.What, b.What))
	})
}
