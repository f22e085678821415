package topology

// News of changes of tables carry nothing but a stamp: whoever hears of a later one than it knows reads the schema again. The
// news go to all peers at once; the stamp also rides on all that a peer says of itself, so that a peer to which they did not
// come, as it was cut off, learns of them with the first word that it hears.

// SchemaChanged tells all peers that this proxy has changed tables.
func (g *Gossip) SchemaChanged() {
	g.peers.changedSchema()
	rec := g.peers.news()
	g.seen.add(rec)
	g.spread(newsMessage(g.tag, rec, newsSchema, nil))
}

// changedSchema notes a change of tables by this proxy.
func (t *peerTable) changedSchema() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.self.schema = nextStamp(t.self.schema)
}

// toldSchema is told of the news of a change. They count even if we know of a later one: the clock of a proxy that has just
// started may be behind.
func (t *peerTable) toldSchema(stamp uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if stamp <= t.self.schema {
		t.wakeSchema()
	}
}

// heardSchema takes in the stamp of a change of tables by another proxy, and passes it on with our next record. mu is held.
func (t *peerTable) heardSchema(stamp uint64) {
	if stamp <= t.self.schema {
		return
	}
	t.self.schema, t.self.stamp = stamp, nextStamp(t.self.stamp)
	t.wakeSchema()
}

// wakeSchema lets the handler know of a change of tables.
func (t *peerTable) wakeSchema() {
	select {
	case t.schema <- struct{}{}:
	default:
	}
}
