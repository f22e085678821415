--- EXPLAIN, maintenance, LISTEN, and other utility statements.

DROP TABLE IF EXISTS util, util_ref CASCADE

CREATE TABLE util (user_id bigint PRIMARY KEY, n int)

CREATE TABLE util_ref (id int PRIMARY KEY)

INSERT INTO util VALUES (1, 1), (2, 2), (3, 3), (4, 4)

INSERT INTO util_ref VALUES (1)

-- compare: shape
EXPLAIN SELECT * FROM util WHERE user_id = 1

-- compare: shape
EXPLAIN (COSTS off, FORMAT json) SELECT * FROM util WHERE user_id = 1

-- compare: shape
EXPLAIN (ANALYZE, BUFFERS, TIMING off) SELECT * FROM util WHERE user_id = 1

-- params: 1
-- compare: shape
EXPLAIN SELECT * FROM util WHERE user_id = $1

-- compare: shape
EXPLAIN VERBOSE INSERT INTO util VALUES (9, 9)

-- compare: shape
EXPLAIN SELECT 1

EXPLAIN (COSTS off) SELECT * FROM util_ref

EXPLAIN (NOSUCH) SELECT 1

EXPLAIN SELECT * FROM util_nosuch

ANALYZE util

ANALYZE util (n)

ANALYZE VERBOSE util_nosuch

VACUUM util

VACUUM (ANALYZE, VERBOSE off) util

VACUUM FULL util_ref

VACUUM util_nosuch

BEGIN

VACUUM util

ROLLBACK

REINDEX TABLE util

CLUSTER util USING util_pkey

-- expect: either
CHECKPOINT

TRUNCATE util_ref

SELECT * FROM util_ref

TRUNCATE TABLE util, util_ref RESTART IDENTITY CASCADE

SELECT * FROM util

INSERT INTO util VALUES (1, 1), (2, 2), (3, 3)

BEGIN

TRUNCATE util

SELECT * FROM util

ROLLBACK

SELECT * FROM util

TRUNCATE util_nosuch

LISTEN e2e_channel

NOTIFY e2e_channel

NOTIFY e2e_channel, 'payload'

SELECT pg_notify('e2e_channel', 'by function')

BEGIN

NOTIFY e2e_channel, 'at commit'

SELECT 1

COMMIT

BEGIN

NOTIFY e2e_channel, 'never'

ROLLBACK

UNLISTEN e2e_channel

NOTIFY e2e_channel, 'nobody hears'

LISTEN "Quoted Channel"

NOTIFY "Quoted Channel", 'x'

UNLISTEN *

BEGIN

SELECT pg_advisory_xact_lock(8816), pg_try_advisory_xact_lock(8817)

COMMIT

SELECT pg_try_advisory_xact_lock(8816)

/* shardproxy: key=1 */ DO $$ BEGIN PERFORM 1; END $$

/* shardproxy: key=1 */ DO LANGUAGE plpgsql $$ DECLARE x int; BEGIN x := 1/0; EXCEPTION WHEN division_by_zero THEN RAISE NOTICE 'caught'; END $$

CREATE SEQUENCE util_seq

ALTER SEQUENCE util_seq INCREMENT BY 5

DROP SEQUENCE util_seq

CREATE PROCEDURE util_proc(x int) LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'called %', x; END $$

/* shardproxy: key=1 */ CALL util_proc(5)

-- expect: refused
CALL util_proc(6)

-- expect: either
CALL util_nosuch(5)

DROP PROCEDURE util_proc

CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)

SELECT 1 === 1

DROP OPERATOR === (int, int)

CREATE AGGREGATE util_sum (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')

SELECT util_sum(g) FROM generate_series(1, 4) g

SELECT util_sum(n) FROM util WHERE user_id = 1

SELECT util_sum(n) FROM util

DROP AGGREGATE util_sum (int)

-- expect: refused
CREATE RULE util_rule AS ON DELETE TO util_ref DO INSTEAD NOTHING

-- expect: either
LOAD 'nosuchlibrary'

DROP TABLE util, util_ref
