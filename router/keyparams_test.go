package router

import (
	"slices"
	"testing"
)

func TestKeyParams(t *testing.T) {
	snap := testSnapshot(t)
	for sql, want := range map[string][]int{
		"SELECT * FROM users WHERE id = 1":                           nil,
		"SELECT $1::text FROM users WHERE id = $2":                   {2},
		"SELECT * FROM users WHERE id IN ($3, $1, $3) AND name = $2": {1, 3},
		"SELECT * FROM users WHERE id = ANY ($1)":                    {1},
		"INSERT INTO users (id, name) VALUES ($1, $2), ($3, $4)":     {1, 3},
		"SELECT count(*) FROM users WHERE name = $1":                 nil,
	} {
		template, _ := templateOf(t, snap, sql)
		if got := template.KeyParams(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", sql, got, want)
		}
	}
}
