package topology

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestHashVectors compares with results of a real server that are checked in.
func TestHashVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/hash_vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		kind, rest, _ := strings.Cut(line, " ")
		space := strings.LastIndexByte(rest, ' ')
		value := rest[:space]
		want, err := strconv.ParseInt(rest[space+1:], 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got, err := hashVector(kind, value)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if got.Signed() != want {
			t.Errorf("%s %s: %d, PostgreSQL says %d", kind, value, got.Signed(), want)
		}
		seen[kind]++
	}
	if seen["int"] < 20 || seen["text"] < 40 || seen["uuid"] < 5 {
		t.Errorf("vectors are missing: %v", seen)
	}
}

func hashVector(kind, value string) (KeyHash, error) {
	switch kind {
	case "int":
		v, err := strconv.ParseInt(value, 10, 64)
		return HashInt(v), err
	case "text":
		var s string
		err := json.Unmarshal([]byte(value), &s)
		return HashText(s), err
	case "uuid":
		u, err := parseUUID(value)
		return HashUUID(u), err
	}
	return 0, fmt.Errorf("unknown kind %q", kind)
}

func parseUUID(s string) (u [16]byte, err error) {
	_, err = hex.Decode(u[:], []byte(strings.ReplaceAll(s, "-", "")))
	return u, err
}

// TestHashTextForms holds that a string and its bytes hash alike, at every length and offset.
func TestHashTextForms(t *testing.T) {
	text := strings.Repeat("abcdefghijklmnopqrstuvwxyz", 4)
	for from := range 13 {
		for to := from; to <= len(text); to++ {
			s := text[from:to]
			if HashText(s) != HashText([]byte(s)) {
				t.Fatalf("%q hashes differently as bytes", s)
			}
		}
	}
}

// TestHashOrder holds that unsigned order of KeyHash is signed order on the server.
func TestHashOrder(t *testing.T) {
	for i := range int64(1000) {
		a, b := HashInt(i), HashInt(-i-1)
		if (a < b) != (a.Signed() < b.Signed()) {
			t.Fatalf("%x and %x change order when signed", uint64(a), uint64(b))
		}
	}
}

func TestHashAllocatesNothing(t *testing.T) {
	text, raw, u := "a text of some length, beyond a block", []byte("bytes"), [16]byte{1}
	if n := testing.AllocsPerRun(100, func() {
		sink += uint64(HashInt(int64(sink)) ^ HashText(text) ^ HashText(raw) ^ HashUUID(u))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
