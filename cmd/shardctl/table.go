package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/jackc/pgx/v5/pgconn"
)

const oidInt8 = 20 // of a column of numbers; all others are text

// table is what a command of the console answers.
type table struct {
	columns []string
	numbers []bool // of each column
	rows    [][][]byte
}

// readTable reads all rows of an answer. Its error is that of all answers together, which the caller asks for.
func readTable(r *pgconn.ResultReader) (t table) {
	for _, f := range r.FieldDescriptions() { // also where there are no rows
		t.columns, t.numbers = append(t.columns, f.Name), append(t.numbers, f.DataTypeOID == oidInt8)
	}
	t.rows = r.Read().Rows
	return t
}

// value of a column in a row; "" for NULL and for what is not there.
func (t *table) value(row int, column string) string {
	for i, name := range t.columns {
		if name == column && row < len(t.rows) {
			return string(t.rows[row][i])
		}
	}
	return ""
}

// record is a table of one row, whose columns come one by one.
type record struct{ table }

func (r *record) add(column, value string, number bool) {
	if r.rows == nil {
		r.rows = [][][]byte{nil}
	}
	r.columns, r.numbers = append(r.columns, column), append(r.numbers, number)
	var v []byte // NULL
	if value != "" {
		v = []byte(value)
	}
	r.rows[0] = append(r.rows[0], v)
}

// text writes the table for people.
func (t *table) text(w io.Writer) error {
	tabs := newTabs(w)
	fmt.Fprintln(tabs, strings.ToUpper(strings.Join(t.columns, "\t")))
	for _, row := range t.rows {
		fmt.Fprintln(tabs, string(bytes.Join(clean(row), []byte("\t"))))
	}
	return tabs.Flush()
}

// text writes the record for people: a line each column.
func (r *record) text(w io.Writer) error {
	tabs := newTabs(w)
	for i, value := range clean(r.rows[0]) {
		fmt.Fprintf(tabs, "%s\t%s\n", strings.ReplaceAll(r.columns[i], "_", " "), value)
	}
	return tabs.Flush()
}

func newTabs(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

// clean shows NULL as - and keeps what would break a line out of the values.
func clean(row [][]byte) [][]byte {
	cells := make([][]byte, len(row))
	for i, value := range row {
		if cells[i] = bytes.Join(bytes.Fields(value), []byte(" ")); value == nil {
			cells[i] = []byte("-")
		}
	}
	return cells
}

// json writes a list of objects, whose keys are in the order of the columns.
func (t *table) json(w io.Writer) error {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, row := range t.rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n  {")
		for j, value := range row {
			if j > 0 {
				b.WriteString(", ")
			}
			b.Write(quoted(t.columns[j]))
			b.WriteString(": ")
			switch {
			case value == nil:
				b.WriteString("null")
			case t.numbers[j]:
				b.Write(value)
			default:
				b.Write(quoted(string(value)))
			}
		}
		b.WriteByte('}')
	}
	if len(t.rows) > 0 {
		b.WriteByte('\n')
	}
	b.WriteString("]\n")
	_, err := b.WriteTo(w)
	return err
}

func quoted(s string) []byte {
	text, _ := json.Marshal(s) // a string can always be written
	return text
}
