package wire

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
)

func fullError() *Error {
	return &Error{
		Severity: "FATAL", SeverityText: "FATAL (de)", Code: "28P01", Message: "m", Detail: "d", Hint: "h",
		Position: 3, InternalPosition: 4, InternalQuery: "q", Where: "w", Schema: "s", Table: "t", Column: "c",
		DataType: "dt", Constraint: "n", File: "f.c", Line: 77, Routine: "r", Other: []ErrorField{{'Z', "later"}},
	}
}

func TestErrorRoundTrip(t *testing.T) {
	want := fullError()
	v := reflect.ValueOf(*want)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("field %s is not tested", v.Type().Field(i).Name)
		}
	}
	got, err := DecodeError(want.Append(nil)[5:])
	must(t, err)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestErrorAgreesWithPgproto3 checks every field letter against an independent decoder.
func TestErrorAgreesWithPgproto3(t *testing.T) {
	e := fullError()
	message := e.Append([]byte("before"))[len("before"):]
	var got pgproto3.ErrorResponse
	must(t, got.Decode(message[5:]))
	want := pgproto3.ErrorResponse{
		Severity: "FATAL (de)", SeverityUnlocalized: "FATAL", Code: "28P01", Message: "m", Detail: "d", Hint: "h",
		Position: 3, InternalPosition: 4, InternalQuery: "q", Where: "w", SchemaName: "s", TableName: "t", ColumnName: "c",
		DataTypeName: "dt", ConstraintName: "n", File: "f.c", Line: 77, Routine: "r", UnknownFields: map[byte]string{'Z': "later"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	encoded, err := got.Encode(nil)
	must(t, err)
	if d := cmp.Diff(encoded, message); d != "" {
		t.Error(d)
	}
	if notice := (&Error{Message: "psst"}).AppendNotice(nil); notice[0] != 'N' || string(notice[5:13]) != "SNOTICE\x00" {
		t.Errorf("notice is %q", notice)
	}
}

func TestErrorDefaults(t *testing.T) {
	got, err := DecodeError((&Error{Message: "a\x00Mb"}).Append(nil)[5:])
	must(t, err)
	want := &Error{Severity: "ERROR", SeverityText: "ERROR", Code: CodeInternalError, Message: "a?Mb"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if old, err := DecodeError([]byte("SFATAL\x00C57P01\x00Mbye\x00\x00")); err != nil || !old.Fatal() {
		t.Errorf("without field V: %+v, %v", old, err)
	}
}

func TestErrorIsAnError(t *testing.T) {
	err := fmt.Errorf("shard s1: %w", Errorf(CodeQueryCanceled, "canceled by %s", "user").WithDetail("%d", 1).WithHint("wait"))
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Fatal() || e.Detail != "1" || e.Hint != "wait" {
		t.Fatalf("%+v", e)
	}
	if got := err.Error(); got != "shard s1: ERROR: canceled by user (SQLSTATE 57014)" {
		t.Error(got)
	}
}

func TestDecodeErrorRefuses(t *testing.T) {
	for _, body := range []string{"", "M", "Mabc", "Mabc\x00", "Mabc\x00\x00more", "\x00\x00"} {
		if e, err := DecodeError([]byte(body)); err == nil {
			t.Errorf("%q decodes to %+v", body, e)
		}
	}
}

func FuzzDecodeError(f *testing.F) {
	f.Add(fullError().Append(nil)[5:])
	f.Add([]byte("SFATAL\x00C57P01\x00Mbye\x00\x00"))
	f.Add([]byte("P99999999999999999999\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := DecodeError(body)
		if err != nil {
			return
		}
		again, err := DecodeError(e.Append(nil)[5:])
		if err != nil {
			t.Fatalf("%+v does not survive: %v", e, err)
		}
		// What was absent has its default now; a second round changes nothing more.
		third, err := DecodeError(again.Append(nil)[5:])
		if err != nil || !reflect.DeepEqual(again, third) {
			t.Fatalf("%+v became %+v, %v", again, third, err)
		}
		if e.Message != again.Message || e.Hint != again.Hint || e.Position != again.Position {
			t.Fatalf("%+v became %+v", e, again)
		}
	})
}
