-- How far the coordinator is, for the other proxies to tell of; up to two seconds old.
ALTER TABLE shardproxy.coordinator ADD progress jsonb;
