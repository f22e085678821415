package fence

// Schema holds the objects of a fence, and ConstraintEpoch and ConstraintOwner are what its refusals name as the violated
// constraint: a write by a map that is too old (40001), and a row that the shard does not own (23514).
const (
	Schema          = "shardproxy"
	ConstraintEpoch = "shardproxy_epoch"
	ConstraintOwner = "shardproxy_owner"
)

// IsInstalled asks whether there is a fence, and ReadEpoch for its epoch and the isolation level that it was read at. They
// are safe for every setting of a session.
const (
	IsInstalled = "SELECT pg_catalog.to_regclass('shardproxy.fence') IS NOT NULL"
	ReadEpoch   = "SELECT epoch, pg_catalog.current_setting('transaction_isolation') FROM shardproxy.fence"
)
