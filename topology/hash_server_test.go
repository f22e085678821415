package topology

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// hashesOf asks a server for the hashes of values; sql has the array of them as $2 and the seed as $1.
func hashesOf[T any](t *testing.T, conn *pgx.Conn, sql string, values []T) []int64 {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql, int64(hashSeed), values)
	if err != nil {
		t.Fatal(err)
	}
	hashes, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	if len(hashes) != len(values) {
		t.Fatalf("%d hashes of %d values", len(hashes), len(values))
	}
	return hashes
}

// TestHashAgreesWithServer compares with a real server on edges and random values.
func TestHashAgreesWithServer(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	rng := rand.New(rand.NewPCG(2025, 1))

	t.Run("int", func(t *testing.T) {
		var values []int64
		for bit := range 64 {
			for _, d := range []int64{-1, 0, 1} {
				values = append(values, 1<<bit+d, -(1<<bit)+d)
			}
		}
		values = append(values, math.MaxInt16, math.MinInt16, math.MaxInt32, math.MinInt32, math.MaxUint32)
		for range 10_000 {
			values = append(values, int64(rng.Uint64())>>rng.IntN(64))
		}
		for i, want := range hashesOf(t, conn, "SELECT hashint8extended(v, $1) FROM unnest($2::int8[]) WITH ORDINALITY u(v, n) ORDER BY n", values) {
			if got := HashInt(values[i]).Signed(); got != want {
				t.Fatalf("%d: %d, PostgreSQL says %d", values[i], got, want)
			}
		}
	})
	t.Run("narrow int", func(t *testing.T) {
		var values []int32
		for range 1000 {
			values = append(values, int32(rng.Uint32())>>rng.IntN(32))
		}
		for i, want := range hashesOf(t, conn, "SELECT hashint4extended(v, $1) FROM unnest($2::int4[]) WITH ORDINALITY u(v, n) ORDER BY n", values) {
			if got := HashInt(int64(values[i])).Signed(); got != want {
				t.Fatalf("%d: %d, PostgreSQL says %d", values[i], got, want)
			}
		}
	})
	t.Run("text", func(t *testing.T) {
		letters := []rune("abcXYZ019 \t\n'\"\\%éßÅ日本語🐘\u0301\u200d\U0010ffff")
		values := []string{"", " ", "\n"}
		for length := range 200 { // in runes, so every length in bytes mod 12 comes up with every mix
			for range 20 {
				var b strings.Builder
				for range length {
					b.WriteRune(letters[rng.IntN(len(letters))])
				}
				values = append(values, b.String())
			}
			values = append(values, strings.Repeat("a", length))
		}
		for i := range 13 {
			values = append(values, strings.Repeat("x", 100_000+i))
		}
		for i, want := range hashesOf(t, conn, "SELECT hashtextextended(v, $1) FROM unnest($2::text[]) WITH ORDINALITY u(v, n) ORDER BY n", values) {
			if got := HashText(values[i]).Signed(); got != want {
				t.Fatalf("%q: %d, PostgreSQL says %d", values[i], got, want)
			}
		}
	})
	t.Run("uuid", func(t *testing.T) {
		values := [][16]byte{{}, {0: 0x80}, {15: 1}}
		for range 5000 {
			var u [16]byte
			for i := range u {
				u[i] = byte(rng.Uint32())
			}
			values = append(values, u)
		}
		for i, want := range hashesOf(t, conn, "SELECT uuid_hash_extended(v, $1) FROM unnest($2::uuid[]) WITH ORDINALITY u(v, n) ORDER BY n", values) {
			if got := HashUUID(values[i]).Signed(); got != want {
				t.Fatalf("%x: %d, PostgreSQL says %d", values[i], got, want)
			}
		}
	})
}
