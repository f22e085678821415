package proxy

import (
	"strings"
	"testing"
)

// TestChainKeepsModes: COMMIT and ROLLBACK AND CHAIN keep the modes of the transaction, however they were set, as PostgreSQL does.
func TestChainKeepsModes(t *testing.T) {
	k := newKit(t)
	const modes = "SELECT current_setting('transaction_isolation') || current_setting('transaction_read_only') || current_setting('transaction_deferrable')"
	for _, script := range []string{
		"BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SELECT 1; COMMIT AND CHAIN",
		"BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE; ROLLBACK AND CHAIN",
		"BEGIN ISOLATION LEVEL SERIALIZABLE; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; COMMIT AND CHAIN; COMMIT AND CHAIN",
		"BEGIN; SET LOCAL transaction_isolation = 'serializable'; SET LOCAL transaction_read_only = on; COMMIT AND CHAIN",
		"BEGIN; SELECT set_config('transaction_read_only', 'on', true); COMMIT AND CHAIN",
		"BEGIN; SELECT 1; SAVEPOINT a; SET TRANSACTION READ ONLY; ROLLBACK TO a; COMMIT AND CHAIN",
		"BEGIN; SELECT 1; SAVEPOINT a; SET TRANSACTION READ ONLY; RELEASE a; COMMIT AND CHAIN",
		"BEGIN; SELECT 1; SAVEPOINT a; SET TRANSACTION READ ONLY; COMMIT AND CHAIN",
		"BEGIN; SELECT 1; SAVEPOINT a; SET TRANSACTION READ ONLY; ROLLBACK AND CHAIN",
		"BEGIN; SELECT 1; SAVEPOINT a; SET TRANSACTION READ ONLY; RELEASE a",
		"BEGIN; SELECT 1; SAVEPOINT a; SET TRANSACTION READ ONLY; SAVEPOINT b; SELECT 1/0; ROLLBACK AND CHAIN",
		"BEGIN; SELECT 1; SAVEPOINT a; SET TRANSACTION READ ONLY; RELEASE a; SELECT 1/0; ROLLBACK AND CHAIN",
		"BEGIN; SET TRANSACTION READ ONLY; SELECT 1/0; ROLLBACK AND CHAIN",
		"BEGIN; SET TRANSACTION READ ONLY; SELECT 1/0; COMMIT AND CHAIN",
		"BEGIN READ ONLY; SELECT 1/0; ROLLBACK AND CHAIN",
		"BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1; SAVEPOINT a; SELECT 1/0; ROLLBACK AND CHAIN",
		"BEGIN; SET LOCAL work_mem = '1MB'; SET CONSTRAINTS ALL DEFERRED; SET TRANSACTION READ ONLY; COMMIT AND CHAIN; SHOW work_mem",
		"BEGIN; SET TRANSACTION READ ONLY; COMMIT AND CHAIN; COMMIT; BEGIN",
	} {
		plain, c := k.direct(), k.connect()
		for _, sql := range append(strings.Split(script, ";"), modes, modes+" FROM t WHERE user_id = "+itoa(k.keyOn(2, 0))+" HAVING count(*) = 0", "ROLLBACK") {
			if want, got := plain.query(sql), c.query(sql); got != want {
				t.Errorf("%s\n%s\n got: %s\nwant: %s", script, sql, got, want)
			}
		}
	}
	k.atRest()
}
