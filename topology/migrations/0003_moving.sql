-- What the map tells of moves under way: key ranges whose rows are on two shards. Beside it, moves is the coordinator's journal.
CREATE TABLE shardproxy.moving (
    id         bigint PRIMARY KEY CHECK (id > 0),
    source     text NOT NULL REFERENCES shardproxy.shards (name),
    target     text NOT NULL REFERENCES shardproxy.shards (name) CHECK (target <> source),
    hold_epoch bigint NOT NULL CHECK (hold_epoch >= 0), -- 0: nothing is held
    firsts     bigint[] NOT NULL,
    lasts      bigint[] NOT NULL
);
