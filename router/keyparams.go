package router

import "slices"

// KeyParams gives the numbers of the parameters, from 1 and ascending, that say on which shards the statement runs.
func (t *Template) KeyParams() []int {
	var list []int
	for _, set := range append(slices.Clone(t.keys), t.rows) {
		for i := range set {
			if set[i].origin == fromParam || set[i].origin == fromArrayParam {
				list = append(list, int(set[i].index)+1)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
