package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pelletier/go-toml/v2"
)

const referenceFile = "../../configs/reference.toml"

func readReference(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var exact = cmp.Options{cmpopts.IgnoreUnexported(Config{}), cmp.Comparer(func(a, b Secret) bool { return a == b })}

// TestReferenceIsDefault holds that the values in the reference are the defaults.
func TestReferenceIsDefault(t *testing.T) {
	c, err := parse(referenceFile, readReference(t))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	if diff := cmp.Diff(want, c, exact); diff != "" {
		t.Errorf("reference.toml is not the default (-default +reference):\n%s", diff)
	}
}

// sample is a line of the reference that is only commented out: # without a blank behind it.
var sample = regexp.MustCompile(`(?m)^#(\S|  )`)

// TestReferenceIsComplete holds that the reference, with its samples, has every key and is valid.
func TestReferenceIsComplete(t *testing.T) {
	text := sample.ReplaceAll(readReference(t), []byte("$1"))
	c, err := parse(referenceFile, text)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("the samples are not valid: %v", err)
	}
	var document map[string]any
	if err := toml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	keysOf("", document, seen)
	for _, key := range fieldKeys("", reflect.TypeFor[Config]()) {
		if !seen[key] {
			t.Errorf("reference.toml lacks %s", key)
		}
	}
	for _, key := range []string{"pool.mode", "shards.nodes.host", "auth.rules.address"} { // the walk itself works
		if !seen[key] {
			t.Errorf("the test did not see %s", key)
		}
	}
}

// keysOf collects the keys of a document; elements of lists are not told apart.
func keysOf(path string, value any, seen map[string]bool) {
	seen[path] = true
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if path != "" {
				key = path + "." + key
			}
			keysOf(key, inner, seen)
		}
	case []any:
		for _, inner := range v {
			if _, ok := inner.(map[string]any); ok {
				keysOf(path, inner, seen)
			}
		}
	}
}

// fieldKeys lists the keys that a struct is read from.
func fieldKeys(path string, t reflect.Type) (keys []string) {
	if t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if path != "" {
		keys = append(keys, path)
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[Duration]() {
		return keys
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		key := f.Tag.Get("toml")
		if key == "" {
			panic(fmt.Sprintf("%v.%s has no toml tag", t, f.Name))
		}
		if path != "" {
			key = path + "." + key
		}
		keys = append(keys, fieldKeys(key, f.Type)...)
	}
	return keys
}
