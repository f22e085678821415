package router

import "shardproxy/topology"

// CopyFormat is the format of COPY's data.
type CopyFormat uint8

const (
	CopyText CopyFormat = iota
	CopyCSV
	CopyBinary
)

// CopyStmt is COPY … FROM STDIN or TO STDOUT of a table or query, taken apart.
type CopyStmt struct {
	Table     *topology.Table // nil for COPY (query) TO
	From      bool            // FROM STDIN
	Columns   int             // how many columns are copied
	Key       int             // position of the shard key among them, -1 where it is not copied
	Format    CopyFormat
	Delimiter byte
	Quote     byte
	Escape    byte
	Null      string
	Header    bool // the first line names the columns
	// Nowhere: the shard key is not copied, is NOT NULL and has no default. No row can be stored, which any
	// one shard will say of the first one.
	Nowhere      bool
	ForceNull    bool   // CSV: a quoted key that looks like Null is NULL
	ForceNotNull bool   // CSV: a key that looks like Null is not NULL
	Encoding     string // of the data, "" for the session's client_encoding
}
