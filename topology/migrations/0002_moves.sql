-- The journal of moves, as the coordinator keeps it: what people ask for in columns, all else in state.

-- Nothing of version 1 could carry out a move. A row that is there nevertheless cannot be taken up.
UPDATE shardproxy.moves SET phase = 'aborted', updated_at = clock_timestamp() WHERE phase NOT IN ('cleaned', 'aborted', 'reversed');

ALTER TABLE shardproxy.moves
    DROP CONSTRAINT moves_phase_check,
    ADD CONSTRAINT moves_phase_check CHECK (phase IN (
        'planned', 'prepared', 'copying', 'streaming', 'hold', 'fenced', 'drained', 'opened', 'returning', 'flipped', 'released', 'verified',
        'failed-verification', 'soak', 'reversing', 'cleaning', 'aborting', 'cleaned', 'aborted', 'reversed')),
    ALTER COLUMN epoch SET DEFAULT 0,
    ADD COLUMN kind  text NOT NULL DEFAULT 'move',
    ADD COLUMN error text NOT NULL DEFAULT '',
    ADD COLUMN token bigint NOT NULL DEFAULT 0, -- of the lease under which it was last written
    ADD COLUMN rev   bigint NOT NULL DEFAULT 0, -- each one is written over the one before
    ADD COLUMN done  boolean NOT NULL GENERATED ALWAYS AS (phase IN ('cleaned', 'aborted', 'reversed')) STORED;
COMMENT ON COLUMN shardproxy.moves.epoch IS 'of its last cutover, 0 before the first';
COMMENT ON COLUMN shardproxy.moves.flipped IS 'the epoch with which the owner was last changed';
CREATE INDEX moves_open ON shardproxy.moves (id) WHERE NOT done;

-- No key hash is in two moves that are under way. (An int8range could not end at the highest hash.)
ALTER TABLE shardproxy.move_ranges ADD COLUMN open boolean NOT NULL DEFAULT true;
UPDATE shardproxy.move_ranges SET open = false;
ALTER TABLE shardproxy.move_ranges
    ADD CONSTRAINT move_ranges_do_not_overlap EXCLUDE USING gist (numrange(first, last, '[]') WITH &&) WHERE (open);

-- Who carries out moves. Its token grows with each new holder, and guards all that is written for a move.
CREATE TABLE shardproxy.coordinator (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder     text NOT NULL,
    token      bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
INSERT INTO shardproxy.coordinator (holder, token, expires_at) VALUES ('', 0, '-infinity');

-- What operators want of a move, asked at any proxy and answered by the coordinator.
CREATE TABLE shardproxy.move_orders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    move_id     bigint NOT NULL REFERENCES shardproxy.moves ON DELETE CASCADE,
    what        text NOT NULL CHECK (what IN ('abort', 'pause', 'resume', 'reverse', 'finish')),
    actor       text NOT NULL,
    origin      text NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    answered_at timestamptz,
    refusal     text -- why it is not followed
);
CREATE INDEX move_orders_open ON shardproxy.move_orders (id) WHERE answered_at IS NULL;
