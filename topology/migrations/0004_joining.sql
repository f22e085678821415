-- A shard that is being made like the others.
ALTER TABLE shardproxy.shards DROP CONSTRAINT shards_state_check,
    ADD CONSTRAINT shards_state_check CHECK (state IN ('active', 'draining', 'joining'));
