package admin

import (
	"runtime/metrics"
)

// memory are the classes that together are all the memory that Go has from the operating system.
var memory = []struct{ name, class string }{
	{"go_heap_objects", "/memory/classes/heap/objects:bytes"},
	{"go_heap_unused", "/memory/classes/heap/unused:bytes"},
	{"go_heap_free", "/memory/classes/heap/free:bytes"},
	{"go_heap_released", "/memory/classes/heap/released:bytes"}, // given back; the addresses are kept
	{"go_stacks", "/memory/classes/heap/stacks:bytes"},
	{"go_os_stacks", "/memory/classes/os-stacks:bytes"},
	{"go_metadata", "/memory/classes/metadata/other:bytes"},
	{"go_profiling", "/memory/classes/profiling/buckets:bytes"},
	{"go_other", "/memory/classes/other:bytes"},
	{"go_total", "/memory/classes/total:bytes"},
}

// showMem lists what is held, with PgBouncer's columns: size is that of one in bytes, where all are alike.
func (c *Console) showMem() [][]any {
	var rows [][]any
	for _, cache := range c.src.Caches() {
		var free any
		if cache.Most > 0 {
			free = int64(max(cache.Most-cache.Held, 0))
		}
		rows = append(rows, []any{cache.Name, nil, int64(cache.Held), free, nil})
	}
	const objects = "/gc/heap/objects:objects"
	samples := []metrics.Sample{{Name: objects}}
	for _, m := range memory {
		samples = append(samples, metrics.Sample{Name: m.class})
	}
	metrics.Read(samples)
	for i, m := range memory {
		var size, used any
		total := int64(value(samples[i+1]))
		if n := int64(value(samples[0])); m.name == "go_heap_objects" && n > 0 {
			size, used = total/n, n
		}
		rows = append(rows, []any{m.name, size, used, nil, total})
	}
	return rows
}

// value of a metric; 0 for one that this version of Go does not have.
func value(s metrics.Sample) uint64 {
	if s.Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s.Value.Uint64()
}
