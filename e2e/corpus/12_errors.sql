--- Every class of error that applications act on, with PostgreSQL's own words.

DROP TABLE IF EXISTS err, err_child, err_ref CASCADE

DROP DOMAIN IF EXISTS err_email

CREATE DOMAIN err_email AS text CHECK (VALUE LIKE '%@%')

CREATE TABLE err (user_id bigint PRIMARY KEY, n int NOT NULL, pos int CHECK (pos > 0), code varchar(3), mail err_email, amount numeric(4, 2), UNIQUE (user_id, n))

CREATE TABLE err_child (user_id bigint NOT NULL REFERENCES err (user_id) ON DELETE RESTRICT, x int, EXCLUDE USING btree (user_id WITH =, x WITH =))

CREATE TABLE err_ref (id int PRIMARY KEY, parent int REFERENCES err_ref)

INSERT INTO err (user_id, n) VALUES (1, 1), (2, 2)

INSERT INTO err_child VALUES (1, 1)

SELECT

SELEC 1

SELECT FROM WHERE

SELECT * FROM err WHERE user_id = 1 AND

SELECT (1

SELECT 1)

INSERT INTO err

UPDATE err SET WHERE user_id = 1

SELECT 'abc

SELECT "abc

SELECT $$abc

SELECT /* abc

SELECT 1 $1

SELECT * FROM err WHERE user_id = 1 LIMIT -1

SELECT * FROM err WHERE user_id = 1 LIMIT 'x'

SELECT * FROM err_nosuch

SELECT * FROM nosuchschema.err WHERE user_id = 1

SELECT nosuch FROM err WHERE user_id = 1

SELECT e.nosuch FROM err e WHERE e.user_id = 1

SELECT err.n FROM err e WHERE e.user_id = 1

SELECT x.n FROM err WHERE user_id = 1

SELECT n FROM err WHERE nosuch = 1

SELECT n FROM err WHERE user_id = nosuch

-- expect: either
SELECT user_id FROM err a JOIN err b USING (user_id) JOIN err c ON true WHERE n = 1 AND user_id = 1

SELECT nosuch(n) FROM err WHERE user_id = 1

SELECT lower(n) FROM err WHERE user_id = 1

SELECT n + 'x' FROM err WHERE user_id = 1

SELECT n || mail + 1 FROM err WHERE user_id = 1

SELECT n FROM err WHERE user_id = 'notanumber'

SELECT n FROM err WHERE user_id = true

SELECT n FROM err WHERE user_id = '1'::text

SELECT n FROM err WHERE user_id = ARRAY[1]

SELECT n FROM err WHERE user_id

SELECT sum(sum(n)) FROM err WHERE user_id = 1

SELECT n FROM err WHERE user_id = 1 AND sum(n) > 1

SELECT n, count(*) FROM err WHERE user_id = 1 GROUP BY user_id + 1

SELECT row_number() OVER nosuch FROM err WHERE user_id = 1

SELECT (SELECT user_id, n FROM err WHERE user_id = 1)

SELECT 1/0

SELECT n / 0 FROM err WHERE user_id = 1

SELECT 2147483647 + 1

SELECT n + 2147483647 FROM err WHERE user_id = 2

SELECT ln(0), sqrt(-1)

SELECT (SELECT g FROM generate_series(1, 2) g)

SELECT substring('abc' FROM 2 FOR -1)

SELECT to_date('x', 'YYYY'), 1

SELECT '2024-02-30'::date

SELECT chr(0)

SELECT 'a' ~ '('

INSERT INTO err (user_id, n) VALUES (1, 1)

INSERT INTO err (user_id) VALUES (3)

INSERT INTO err (user_id, n, pos) VALUES (3, 3, 0)

INSERT INTO err (user_id, n, code) VALUES (3, 3, 'long')

INSERT INTO err (user_id, n, mail) VALUES (3, 3, 'nomail')

INSERT INTO err (user_id, n, amount) VALUES (3, 3, 100)

INSERT INTO err (user_id, n) VALUES (3, 99999999999)

INSERT INTO err (user_id, n) VALUES (3, 'x')

INSERT INTO err (user_id, n) VALUES (3, 3, 3)

INSERT INTO err (user_id, n) VALUES (3), (4, 4)

INSERT INTO err (user_id, n) VALUES (3, 3), (4)

INSERT INTO err (user_id, nosuch) VALUES (3, 3)

INSERT INTO err_child VALUES (3, 1)

INSERT INTO err_child VALUES (1, 1)

DELETE FROM err WHERE user_id = 1

INSERT INTO err_ref VALUES (1, 2)

INSERT INTO err_ref VALUES (1, 1), (1, 1)

UPDATE err SET n = NULL WHERE user_id = 2

UPDATE err SET pos = -1 WHERE user_id = 2

UPDATE err SET n = 1/0 WHERE user_id = 2

UPDATE err SET nosuch = 1 WHERE user_id = 2

DELETE FROM err_nosuch WHERE user_id = 2

CREATE TABLE err (user_id bigint)

CREATE TABLE err_bad (user_id bigint, CHECK (nosuch > 0))

CREATE INDEX err_index ON err (nosuch)

ALTER TABLE err DROP COLUMN nosuch

ALTER TABLE err ADD COLUMN n int

DROP TABLE err

DROP TABLE err_nosuch

DROP INDEX err_nosuch

DROP TYPE err_nosuch

CREATE FUNCTION err_f() RETURNS int LANGUAGE sql AS 'SELECT nosuch'

CREATE FUNCTION err_f() RETURNS int LANGUAGE nosuch AS 'x'

SET nosuchparameter = 1

SET work_mem = 'much'

SET TIME ZONE 'Nowhere/Land'

SHOW nosuchparameter

RESET nosuchparameter

-- protocol: simple
EXECUTE nosuchplan

DEALLOCATE nosuchplan

FETCH FROM nosuchcursor

CLOSE nosuchcursor

/* shardproxy: key=1 */ DO $$ BEGIN RAISE EXCEPTION 'mine %', 42 USING ERRCODE = 'P0042', DETAIL = 'd', HINT = 'h'; END $$

/* shardproxy: key=1 */ DO $$ BEGIN RAISE WARNING 'careful'; RAISE NOTICE 'fyi'; RAISE INFO 'info'; END $$

-- expect: refused
DO $$ BEGIN ASSERT true; END $$

/* shardproxy: key=1 */ DO $$ BEGIN ASSERT false, 'asserted'; END $$

-- expect: refused
SELECT pg_terminate_backend(NULL), pg_cancel_backend(NULL)

SELECT $1

SELECT $0

-- params: x
SELECT n FROM err WHERE user_id = $1::bigint

-- params: 1
SELECT 10 / ($1::int - 1)

-- params: 1 | 2
SELECT n FROM err WHERE user_id = $1

DROP TABLE err, err_child, err_ref

DROP DOMAIN err_email
