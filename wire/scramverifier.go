package wire

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"
)

const (
	scramPrefix     = "SCRAM-SHA-256$"
	scramIterations = 4096 // PostgreSQL's default
	scramSaltBytes  = 16   // PostgreSQL's SCRAM_DEFAULT_SALT_LEN
	scramKeyBytes   = 32
	// scramIterationsMax bounds the work a verifier or a node may ask for: about 2 s.
	scramIterationsMax = 10_000_000
)

// Secret is what a user's password is checked against, as pg_authid.rolpassword stores it:
// `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey`, `md5` and 32 hexadecimal digits, or (in our
// configuration only) the password itself. It does not show itself when formatted or logged.
type Secret string

// String hides the secret.
func (s Secret) String() string { return "[secret]" }

// GoString hides the secret.
func (s Secret) GoString() string { return "[secret]" }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// NewVerifier derives a SCRAM verifier from a password, with a random salt. It costs about a
// millisecond, by design.
func NewVerifier(password string) (Secret, error) {
	salt := make([]byte, scramSaltBytes)
	_, _ = rand.Read(salt) // never fails
	stored, err := deriveKeys(password, salt, scramIterations)
	if err != nil {
		return "", err
	}
	encode := base64.StdEncoding.EncodeToString
	return Secret(fmt.Sprintf("%s%d:%s$%s:%s", scramPrefix, scramIterations,
		encode(salt), encode(stored.StoredKey), encode(stored.ServerKey))), nil
}

// NewMD5Secret derives the md5 form of a user's password.
func NewMD5Secret(user, password string) Secret {
	return Secret("md5" + md5Hex(password+user))
}

// isMD5 tells whether s is stored in the md5 form.
func (s Secret) isMD5() bool {
	digits, ok := strings.CutPrefix(string(s), "md5")
	return ok && len(digits) == 2*md5.Size && strings.Trim(digits, "0123456789abcdef") == ""
}

// verifier reads s as a SCRAM verifier.
func (s Secret) verifier() (scram.StoredCredentials, bool) {
	var none scram.StoredCredentials
	rest, ok := strings.CutPrefix(string(s), scramPrefix)
	if !ok {
		return none, false
	}
	factors, keys, ok := strings.Cut(rest, "$")
	if !ok {
		return none, false
	}
	iterations, salt64, _ := strings.Cut(factors, ":")
	stored64, server64, _ := strings.Cut(keys, ":")
	n, err := strconv.Atoi(iterations)
	if err != nil || n < 1 || n > scramIterationsMax {
		return none, false
	}
	salt, err1 := base64.StdEncoding.DecodeString(salt64)
	stored, err2 := base64.StdEncoding.DecodeString(stored64)
	server, err3 := base64.StdEncoding.DecodeString(server64)
	if err1 != nil || err2 != nil || err3 != nil || len(salt) == 0 ||
		len(stored) != scramKeyBytes || len(server) != scramKeyBytes {
		return none, false
	}
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: n},
		StoredKey:  stored, ServerKey: server,
	}, true
}

// matches tells whether password is the one that s was made of.
func (s Secret) matches(user, password string) bool {
	if stored, ok := s.verifier(); ok {
		got, err := deriveKeys(password, []byte(stored.Salt), stored.Iters)
		return err == nil && hmac.Equal(got.StoredKey, stored.StoredKey)
	}
	if s.isMD5() {
		return equalStrings(string(NewMD5Secret(user, password)), string(s))
	}
	return s != "" && equalStrings(password, string(s))
}

// md5Answer is what a client must answer to an md5 request with the salt; false where s is of
// another form.
func (s Secret) md5Answer(user string, salt []byte) (string, bool) {
	if s == "" {
		return "", false
	}
	if _, ok := s.verifier(); ok {
		return "", false
	}
	if !s.isMD5() {
		s = NewMD5Secret(user, string(s))
	}
	return md5Answer(string(s[3:]), salt), true
}

// md5Answer is the second round of md5 authentication.
func md5Answer(inner string, salt []byte) string {
	return "md5" + md5Hex(inner+string(salt))
}

func md5Hex(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

func equalStrings(a, b string) bool {
	return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1
}

func deriveKeys(password string, salt []byte, iterations int) (scram.StoredCredentials, error) {
	client, err := newSCRAMClient(password)
	if err != nil {
		return scram.StoredCredentials{}, err
	}
	return client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
}

// newSCRAMClient prepares a password as PostgreSQL does. The user name is empty: PostgreSQL has it
// from the startup packet.
func newSCRAMClient(password string) (*scram.Client, error) {
	client, err := scram.SHA256.NewClientUnprepped("", saslPrep(password), "")
	if err != nil {
		return nil, fmt.Errorf("prepare SCRAM: %w", err)
	}
	// PostgreSQL 16 lets administrators choose scram_iterations from 1 up, and libpq obeys.
	return client.WithMinIterations(1), nil
}

// saslPrep is SASLprep (RFC 4013) as PostgreSQL has it: what cannot be prepared, or would become
// nothing, is taken as it is, and U+200B, which the RFC lists twice, is a space.
func saslPrep(password string) string {
	prepared, err := stringprep.SASLprep.Prepare(strings.ReplaceAll(password, "\u200b", " "))
	if err != nil || prepared == "" {
		return password
	}
	return prepared
}
