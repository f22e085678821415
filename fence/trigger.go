package fence

import (
	"strconv"
	"strings"
)

// hashSeed is topology's, which is PostgreSQL's HASH_PARTITION_SEED; here it stands in a comment for people.
const hashSeed = "8816678312871386365"

// changesLock is the key of an advisory lock that whoever changes a fence holds alone, and that a transaction which makes a
// fenced table holds with others like it ("shardfen" in ASCII). So [Set] knows of every table that has a fence.
const changesLock = 0x736861726466656e

// A trigger on a partitioned table has another name than on any other, because ALTER TABLE … ATTACH PARTITION fails where
// the partition has a trigger by the name of one that it is to get.
const (
	epochTrigger = "shardproxy_epoch"
	ownerTrigger = "shardproxy_owner_"
	partsTrigger = "shardproxy_owner_parts_"
)

// trigger is one that a table is to have.
type trigger struct {
	name string
	rest string // of CREATE TRIGGER name …, with the events in the order of pg_get_triggerdef
}

func (t *trigger) create() string { return "CREATE OR REPLACE TRIGGER " + t.name + " " + t.rest }

// definition is what pg_get_triggerdef gives, but for the ways to write a name or a cast.
func (t *trigger) definition() string { return "CREATE TRIGGER " + t.name + " " + t.rest }

// Triggers is the SQL that fences one table of a shard which has a fence. It is for the transaction that creates the table, and
// must run there before the first row is written. It needs no more rights than the owner of the table has, and means the
// same under every setting of the session; the first statement gives a row, which has no meaning.
func Triggers(t Table) []string {
	list := []string{"SELECT pg_catalog.pg_advisory_xact_lock_shared(" + strconv.FormatInt(changesLock, 10) + ")"}
	for _, want := range triggersOf(&t) {
		list = append(list, want.create())
	}
	return list
}

// triggersOf are the triggers that t is to have of its own.
func triggersOf(t *Table) []trigger {
	on := " ON " + qualified(t.TableName)
	list := []trigger{{
		epochTrigger,
		"BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE" + on + " FOR EACH STATEMENT EXECUTE FUNCTION " + Schema + "." + staleName + "()",
	}}
	if t.Key == "" || t.Partition {
		return list
	}
	prefix := ownerTrigger
	if t.Partitioned {
		prefix = partsTrigger
	}
	before, after := ownsSQL(t, "OLD"), ownsSQL(t, "NEW")
	row := func(event, foreign string) {
		list = append(list, trigger{
			prefix + strings.ToLower(event),
			"AFTER " + event + on + " FOR EACH ROW WHEN (" + foreign + ") EXECUTE FUNCTION " + Schema + "." + foreignName + "()",
		})
	}
	row("INSERT", "NOT "+after)
	row("DELETE", "NOT "+before)
	// Both are looked at, although the key mostly stays: PostgreSQL reads the text of the condition for each statement, and to
	// compare the keys first would make it longer.
	row("UPDATE", "NOT ("+before+" AND "+after+")")
	return list
}

// ownsSQL is true for a row that the shard owns. A NULL has no owner and is left alone: what is NULL is not moved either.
func ownsSQL(t *Table, row string) string {
	return Schema + "." + ownsName + "(" + hashSQL(t, row) + ")"
}

// hashSQL is the key hash of a row.
func hashSQL(t *Table, row string) string { return t.KeyType.HashSQL(row + "." + identifier(t.Key)) }
