package proxy

import (
	"strings"
	"testing"
	"time"
)

// TestReload holds that what begins after a reload goes by the new configuration, and that what runs goes on.
func TestReload(t *testing.T) {
	k := newKit(t)
	before, two := k.connect(), k.connectAs("two")
	live := *k.srv.Live()
	live.MaxClients, live.MessageBytes = 3, 70_000
	live.Users = map[string]*User{"app": live.Users["app"], "two": {Name: "two", ServerUser: k.super, MaxConnections: 1}}
	k.srv.Reload(&live)
	before.want("SELECT 1 FROM r", "T C:SELECT 0 Z:I")
	two.want("SELECT 1 FROM r", "T C:SELECT 0 Z:I")
	if _, refused := k.dial("two"); !strings.Contains(refused, "53300") {
		t.Errorf("a second client where one is allowed: %s", refused)
	}
	if _, refused := k.dial("plain"); !strings.Contains(refused, "28000") {
		t.Errorf("a user who has been removed: %s", refused)
	}
	third := k.connect()
	if _, refused := k.dial("app"); !strings.Contains(refused, "53300") {
		t.Errorf("a fourth client: %s", refused)
	}
	third.send(simpleQuery("SELECT '" + strings.Repeat("x", 80_000) + "'"))
	if got := third.answer("gone"); !strings.Contains(got, "54000") {
		t.Errorf("a message above the limit: %s", got)
	}
	two.bye()
	waitFor(t, "the client has left", func() bool { return len(k.srv.Clients()) == 1 })
	k.connectAs("two").want("SELECT 1 FROM r", "T C:SELECT 0 Z:I")
}

// TestReloadClosesOldPasswords holds that connections of a role whose password has changed are made anew.
func TestReloadClosesOldPasswords(t *testing.T) {
	k := newKit(t)
	c, plain := k.connect(), k.connectAs("plain")
	const pid = on1 + "SELECT pg_backend_pid()"
	kept, closed := c.value(pid), plain.value(pid)
	live := *k.srv.Live()
	live.Users = map[string]*User{"app": live.Users["app"], "plain": {Name: "plain", ServerUser: "plain", ServerPassword: "new"}}
	live.Pools.Wait = time.Minute
	k.srv.Reload(&live)
	if got := c.value(pid); got != kept {
		t.Error("a connection was closed whose password is as before")
	}
	if got := plain.value(pid); got == closed {
		t.Error("a connection was kept that was made with the former password")
	}
}
