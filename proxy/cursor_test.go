package proxy

import "testing"

// TestPortalsAreCursors: FETCH and WHERE CURRENT OF find a portal of the protocol where it is, also when the key that the session is
// bound to has moved.
func TestPortalsAreCursors(t *testing.T) {
	k := newKit(t)
	first, third := itoa(k.keyOn(0, 0)), itoa(k.keyOn(2, 0))
	for _, key := range []string{first, third} {
		c := k.connect()
		c.want("INSERT INTO t VALUES ("+key+", 'row')", "C:INSERT 0 1 Z:I")
		c.want("BEGIN", "C:BEGIN Z:T")
		c.want("SELECT v FROM t WHERE user_id = "+itoa(k.keyOn(1, 0)), "T C:SELECT 0 Z:T")
		c.wantPipe("1 2 Z:T", parse("", "SELECT v FROM t WHERE user_id = $1 FOR UPDATE"), bind("c", "", key), syncM)
		c.want("FETCH c", "T D:row C:FETCH 1 Z:T")
		c.want("UPDATE t SET v = 'new' WHERE CURRENT OF c", "C:UPDATE 1 Z:T")
		c.wantPipe("1 2 C:UPDATE 1 Z:T", join(run("UPDATE t SET v = $1 WHERE CURRENT OF c", "new"))...)
		c.want("CLOSE c", "C:CLOSE CURSOR Z:T")
		c.want("ROLLBACK", "C:ROLLBACK Z:I")
	}
	c := k.connect()
	c.want("SET shardproxy.key = '"+first+"'", "C:SET Z:I")
	c.want("BEGIN", "C:BEGIN Z:T")
	c.wantPipe("1 2 Z:T", parse("", "SELECT v FROM t"), bind("c", ""), syncM)
	k.srv.Publish(k.apply(k.moveOf(0, 1)))
	c.want("FETCH c", "T D:row C:FETCH 1 Z:T")
	c.wantPipe("1 2 C:UPDATE 1 Z:T", join(run("UPDATE t SET v = $1 WHERE CURRENT OF c", "new"))...)
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	k.atRest()
}
