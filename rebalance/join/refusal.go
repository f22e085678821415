package join

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/fence"
)

// Refusal says why a shard was not added, and what to do next.
type Refusal struct {
	Code    string // SQLSTATE
	Message string
	Hint    string
}

func (r *Refusal) Error() string { return r.Message }

// SQLSTATEs of refusals.
const (
	cannotConnect  = "08001"
	notSupported   = "0A000"
	noPrivilege    = "42501"
	undefined      = "42704"
	notInState     = "55000"
	inUse          = "55006"
	lockNotHad     = "55P03"
	canceled       = "57014"
	wrongPassword  = "28P01"
	noSuchRole     = "28000"
	noSuchDatabase = "3D000"
)

func refuse(code, hint, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// mapError is one of Keeper.Apply: the caller knows those.
type mapError struct{ error }

func (e mapError) Unwrap() error { return e.error }

// failed is what went wrong where nothing was expected to: the server's own SQLSTATE, and that it may be tried again.
func failed(what string, err error) error {
	var r *Refusal
	var m mapError
	if errors.As(err, &r) || errors.As(err, &m) {
		return err
	}
	code := notInState
	var answer *pgconn.PgError
	hint := "Repeat the command once that is mended: it goes on from what there is."
	switch {
	case errors.As(err, &answer):
		code = answer.Code
		if code == noPrivilege {
			hint = "The service user makes the schema and writes the rows: it must be a superuser on the new server, or own what it makes there. " + hint
		}
	case errors.Is(err, fence.ErrBusy):
		code = lockNotHad
	case errors.Is(err, context.Canceled):
		code = canceled
	case pgconn.Timeout(err):
		code = cannotConnect
	}
	return refuse(code, hint, "%s: %v", what, err)
}

// unreachable says why a node does not let us in.
func unreachable(what string, err error) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return refuse(cannotConnect, "The proxies must reach it: look at host, port, firewall and pg_hba.conf, and that the server runs.", "%s does not answer: %v", what, oneLine(err))
	}
	hint := "Look at the log of the server."
	switch answer.Code {
	case wrongPassword, noSuchRole:
		hint = "The proxies log in as cluster.service_user: make that role and those of the users on the new server, with the same passwords (pg_dumpall --roles-only has them), and let them in by pg_hba.conf."
	case noSuchDatabase:
		hint = "Make an empty database there, with the encoding and the locale of the others, owned by the same role: createdb."
	}
	return refuse(answer.Code, hint, "%s does not let the service user in: %s", what, answer.Message)
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
