package config

import (
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// findKeys finds the place of each key of a valid document. Keys are written as in Problem.Key:
// elements of lists are numbered from 0, as in shards[2].nodes[0].port.
func findKeys(text []byte) *keyFinder {
	k := &keyFinder{lines: map[string]int{}, keys: map[place]string{}, counts: map[string]int{}}
	k.parser.Reset(text)
	for k.parser.NextExpression() {
		node := k.parser.Expression()
		switch node.Kind {
		case unstable.Table:
			k.table = k.enter("", node.Key(), false)
		case unstable.ArrayTable:
			k.table = k.enter("", node.Key(), true)
		case unstable.KeyValue:
			k.keyValue(k.table, node)
		}
	}
	return k
}

// keyFinder walks a document once from top to bottom.
type keyFinder struct {
	parser unstable.Parser
	lines  map[string]int   // of a key, of a table and of an element
	keys   map[place]string // the key or table header that begins there
	counts map[string]int   // elements so far of each [[list]]
	table  string           // path of the table that we are in
}

// place is a line and column, both from 1.
type place struct{ line, column int }

// enter appends the parts of a key to path. A part that names a [[list]] stands for the last
// element of it; the last part of a [[list]] header begins a new one.
func (k *keyFinder) enter(path string, key unstable.Iterator, list bool) string {
	var start place
	for key.Next() {
		if start.line == 0 {
			at := k.parser.Shape(key.Node().Raw).Start
			start = place{at.Line, at.Column}
		}
		if path != "" {
			path += "."
		}
		path += string(key.Node().Data)
		if list && key.IsLast() {
			k.counts[path]++
		}
		if n := k.counts[path]; n > 0 {
			k.mark(path, key.Node())
			path += "[" + strconv.Itoa(n-1) + "]"
		}
		k.mark(path, key.Node())
	}
	k.keys[start] = path
	return path
}

func (k *keyFinder) keyValue(path string, node *unstable.Node) {
	path = k.enter(path, node.Key(), false)
	k.value(path, node.Value())
}

func (k *keyFinder) value(path string, node *unstable.Node) {
	children := node.Children()
	switch node.Kind {
	case unstable.InlineTable:
		for children.Next() {
			k.keyValue(path, children.Node())
		}
	case unstable.Array:
		for i := 0; children.Next(); i++ {
			element := path + "[" + strconv.Itoa(i) + "]"
			k.mark(element, children.Node())
			k.value(element, children.Node())
		}
	}
}

// mark notes the line of path unless it is known. Nodes without text of their own (inline tables)
// get theirs from the keys inside.
func (k *keyFinder) mark(path string, node *unstable.Node) {
	if k.lines[path] == 0 && node.Raw.Length > 0 {
		k.lines[path] = k.parser.Shape(node.Raw).Start.Line
	}
}

// lineOf is the line of key, or of the nearest table around it that the file has; 0 if none.
func (c *Config) lineOf(key string) int {
	for key != "" {
		if line := c.lines[key]; line != 0 {
			return line
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
	return 0
}
