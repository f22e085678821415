package router

import "shardproxy/topology"

// Kind says how a statement is run.
type Kind uint8

const (
	Reject     Kind = iota + 1 // refused: Template.Err
	Syntax                     // our grammar does not know it: let a shard parse (never run) it and report
	Any                        // no sharded relation: any one shard gives the exact answer
	Keyed                      // runs on the shards its keys hash to (Template.Route); usually one
	Scatter                    // runs on every shard; the rows are put one after another
	All                        // every shard must do it, atomically: writes of reference tables, DDL, LOCK, TRUNCATE
	AllBare                    // every shard must do it, outside of a transaction: VACUUM, CREATE INDEX CONCURRENTLY
	Insert                     // INSERT … VALUES of a sharded table, one key per row (Template.Route, Template.Split)
	Copy                       // COPY … FROM STDIN / TO STDOUT: Template.Copy
	Tx                         // BEGIN, COMMIT, SAVEPOINT …: Template.Tx
	Set                        // SET, RESET, SET LOCAL, SET TRANSACTION …: Template.Set
	Show                       // SHOW name: Template.Set.Name
	Discard                    // DISCARD: Template.Name holds ALL, PLANS, SEQUENCES, TEMP
	Prepare                    // SQL PREPARE: Template.Prepare
	Execute                    // SQL EXECUTE: Template.Prepare
	Deallocate                 // SQL DEALLOCATE: Template.Name, "" for ALL
	Cursor                     // FETCH, MOVE: Template.Name
	Close                      // CLOSE: Template.Name, "" for ALL
	Listen                     // LISTEN, UNLISTEN: Template.Name ("" for UNLISTEN *)
	Notify                     // NOTIFY: runs on the first shard, where LISTEN listens
	Explain                    // EXPLAIN (SHARDPROXY) …: answered by the proxy from Template.Inner
)

var kindNames = [...]string{
	Reject: "reject", Syntax: "syntax", Any: "any", Keyed: "keyed", Scatter: "scatter", All: "all", AllBare: "allbare",
	Insert: "insert", Copy: "copy", Tx: "tx", Set: "set", Show: "show", Discard: "discard", Prepare: "prepare", Execute: "execute",
	Deallocate: "deallocate", Cursor: "cursor", Close: "close", Listen: "listen", Notify: "notify", Explain: "explain",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return "none"
}

// Template is what is known of a statement before its literals and parameters are. Immutable
// and shared between sessions.
type Template struct {
	Kind    Kind
	Write   bool     // not proven to be read-only
	Returns bool     // gives rows (SELECT, RETURNING, SHOW, FETCH …)
	Schema  bool     // changes what topology.Schema holds (DDL)
	First   bool     // Any: must run on the first shard (advisory locks, pg_notify)
	Pin     bool     // leaves session state on the backend that pooling would lose: keep the backend
	Unbound string   // why it may only run in a session bound to one shard, "" where it may run in any (temp tables, WITH HOLD)
	Block   bool     // PostgreSQL runs it in a transaction block only, else it gives 25P01 (LOCK TABLE, DECLARE without HOLD)
	Config  bool     // calls set_config, on one shard: SetConfig holds what is set
	Combine bool     // Keyed or Scatter over several shards gives the exact answer
	Reason  *Error   // Keyed, Insert without Combine: why several shards are refused. Reject: the error. Syntax: the error if the shard finds none
	Draws   *Drawing // Reject: it can be planned once these numbers are in its text
	Params  int      // highest $n
	Tables  []*topology.Table

	Tx      TxStmt
	Set     SetStmt
	Copy    *CopyStmt
	Prepare PrepareStmt
	Name    string
	Declare string    // DECLARE: name of the cursor that the statement leaves open in its transaction
	Inner   *Template // EXPLAIN (SHARDPROXY): of what
	Text    string    // EXPLAIN (SHARDPROXY): the inner statement's text

	// Unknown names relations and functions that the schema does not hold. The session may load the
	// schema again and plan once more; if they stay unknown, a shard says so itself (42P01, 42883).
	Unknown   []string
	SetConfig []SetStmt    // the settings that calls of set_config make, in order
	Create    *CreateTable // CREATE TABLE: the new table and its place
	Notices   []string     // to be sent to the client as NOTICE before the statement's own answer

	// Keyed: the first set holds the keys of the rows that matter; if there are more sets, all keys of
	// all of them must be on one and the same shard.
	keys  []keySet
	rows  keySet // Insert: the shard key of each row
	shard string // Keyed by a hint that names a shard

	anchor *anchor // Keyed with Combine, Scatter, Copy to the client: see Owned
	finish *Finish // Keyed with Combine, Scatter: the last step is one shard's

	nullKey *Error // what a row is refused with whose shard key turns out to be NULL, where the shards may store it
}

// CreateTable is the table that CREATE TABLE makes.
type CreateTable struct {
	Name    topology.TableName
	Columns []topology.Column
	Kind    topology.TableKind
	Key     int    // index into Columns, -1 for a reference table
	Notice  string // says where its rows will live, "" where the rules name the table
}

// TxVerb is a transaction control statement.
type TxVerb uint8

const (
	Begin TxVerb = iota + 1
	Commit
	Rollback
	Savepoint
	Release
	RollbackTo
)

// TxStmt is a transaction control statement, taken apart.
type TxStmt struct {
	Verb  TxVerb
	Name  string // of the savepoint
	Chain bool   // COMMIT AND CHAIN
	Read  bool   // BEGIN READ ONLY
}

// SetVerb is what a SET statement does.
type SetVerb uint8

const (
	SetValue          SetVerb = iota + 1 // SET name = value; also set_config(name, value, local)
	SetDefault                           // SET name TO DEFAULT, RESET name
	SetResetAll                          // RESET ALL
	SetTransaction                       // SET TRANSACTION …: of the current transaction only
	SetCharacteristic                    // SET SESSION CHARACTERISTICS AS TRANSACTION …
)

// SetStmt is a SET, RESET or SHOW statement, taken apart. Name is lower case; "role",
// "session_authorization", "timezone", "client_encoding", "xmloption" stand for their special spellings.
type SetStmt struct {
	Verb  SetVerb
	Name  string
	Value string // where it is one literal or identifier (shardproxy.* settings need it)
	// Values holds all of a list, also of one (search_path), and the modes of SET TRANSACTION as NAME or
	// NAME=value ("transaction_isolation=serializable").
	Values []string
	Local  bool
	// Unread: of set_config, where its value is not known, or not whether it is called at all: to be read
	// back after the statement. Then Value is "", and Name too where any setting may have changed.
	Unread bool
}

// PrepareStmt is SQL PREPARE or EXECUTE, taken apart.
type PrepareStmt struct {
	Name      string
	NameSpan  Span       // of the name in the statement's text, to put another in its place
	Types     []string   // PREPARE: the declared type names as written
	Body      Span       // PREPARE: of the statement behind AS
	Arguments []Argument // EXECUTE
}

// Argument of EXECUTE: a literal, or something whose value is not known before it runs.
type Argument struct {
	Known bool
	Null  bool
	Value string // as PostgreSQL's input function of the parameter's type would read it
}

// Span is a stretch of bytes in a statement's text.
type Span struct{ Start, End int }
