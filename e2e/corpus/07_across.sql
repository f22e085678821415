--- What needs all shards at once. Known wrong answers of other proxies: a row for each shard, the rows
--- of one shard, or each shard's own order.

DROP TABLE IF EXISTS acr, acr_other, acr_ref CASCADE

CREATE TABLE acr (user_id bigint PRIMARY KEY, grp int, v int, t text)

CREATE TABLE acr_other (user_id text NOT NULL, v int)

CREATE TABLE acr_ref (grp int PRIMARY KEY, total int)

INSERT INTO acr SELECT 1, 1, 1, 'a'

INSERT INTO acr VALUES (2, 2, 2, 'b'), (3, 1, 3, 'c'), (4, 2, 4, 'a'), (5, 1, 5, 'b'), (6, 2, 6, 'c'), (7, 1, 7, 'a'), (8, 2, 8, 'b')

INSERT INTO acr_other VALUES ('1', 1), ('2', 2), ('x', 3)

INSERT INTO acr_ref VALUES (1, 0), (2, 0)

SELECT count(*) FROM acr

SELECT sum(v), avg(v), min(v), max(v) FROM acr

SELECT count(*) FROM acr WHERE user_id IN (1, 2, 3, 4, 5, 6, 7, 8)

SELECT grp, count(*) FROM acr GROUP BY grp

SELECT DISTINCT grp FROM acr

SELECT DISTINCT ON (grp) grp, v FROM acr ORDER BY grp, v

SELECT v FROM acr ORDER BY v

SELECT v FROM acr ORDER BY v DESC LIMIT 3

SELECT count(*) FROM (SELECT v FROM acr LIMIT 3) s

SELECT v FROM acr ORDER BY v OFFSET 2

SELECT v FROM acr ORDER BY v FETCH FIRST 2 ROWS WITH TIES

SELECT v, row_number() OVER (ORDER BY v) FROM acr

SELECT v, sum(v) OVER () FROM acr

SELECT max(v) FROM acr HAVING count(*) > 1

SELECT string_agg(t, ',' ORDER BY v) FROM acr

SELECT count(DISTINCT grp) FROM acr

SELECT exists(SELECT 1 FROM acr WHERE v = 8)

SELECT (SELECT max(v) FROM acr)

SELECT ARRAY(SELECT v FROM acr ORDER BY v)

SELECT v FROM acr WHERE user_id = 1 UNION SELECT v FROM acr WHERE user_id = 2

SELECT v FROM acr INTERSECT SELECT total FROM acr_ref

SELECT total FROM acr_ref UNION ALL SELECT v FROM acr

VALUES ((SELECT count(*) FROM acr))

SELECT a.t FROM acr a JOIN acr_other o ON o.v = a.v

SELECT a.t FROM acr a JOIN acr_other o ON o.user_id = a.user_id::text

SELECT a.t FROM acr a JOIN acr_other o ON o.user_id = a.user_id::text WHERE a.user_id = 1

-- expect: refused
UPDATE acr SET user_id = 100 WHERE user_id = 1

-- expect: refused
UPDATE acr SET user_id = user_id + 100

-- expect: refused
UPDATE acr SET v = (SELECT max(v) FROM acr) WHERE user_id = 1

-- expect: refused
UPDATE acr SET v = o.v FROM acr_other o WHERE o.v = acr.v

-- expect: refused
UPDATE acr_ref SET total = (SELECT count(*) FROM acr WHERE acr.grp = acr_ref.grp)

-- expect: refused
UPDATE acr_ref SET total = acr.v FROM acr WHERE acr.grp = acr_ref.grp AND acr.user_id = 1

-- expect: refused
DELETE FROM acr WHERE v = (SELECT max(v) FROM acr)

-- expect: refused
DELETE FROM acr USING acr_other o WHERE o.v = acr.v

-- expect: refused
DELETE FROM acr_ref WHERE grp IN (SELECT grp FROM acr)

-- expect: refused
INSERT INTO acr_ref SELECT user_id + 10, v FROM acr

-- expect: refused
INSERT INTO acr SELECT user_id + 10, grp, v, t FROM acr WHERE user_id = 1

-- expect: refused
INSERT INTO acr_ref VALUES (77, (SELECT max(v) FROM acr))

-- expect: refused
INSERT INTO acr VALUES (77, 1, 1, 'x') ON CONFLICT (user_id) DO UPDATE SET user_id = 78

-- expect: refused
INSERT INTO acr VALUES (77, (SELECT count(*) FROM acr), 1, 'x')

-- expect: refused
MERGE INTO acr a USING acr_other o ON o.v = a.v WHEN MATCHED THEN DELETE

-- expect: refused
CREATE TABLE acr_copy AS SELECT * FROM acr

-- expect: refused
SELECT * INTO acr_copy FROM acr

-- expect: refused
CREATE MATERIALIZED VIEW acr_mat AS SELECT count(*) FROM acr

-- expect: refused
COPY (SELECT count(*) FROM acr) TO STDOUT

-- expect: refused
COPY (SELECT v FROM acr ORDER BY v) TO STDOUT

-- expect: refused
INSERT INTO acr_ref VALUES (50, (random() * 1000)::int)

-- expect: refused
UPDATE acr_ref SET total = (random() * 1000)::int

-- expect: refused
CREATE TEMP TABLE acr_temp (x int)

-- expect: refused
DECLARE acr_cursor CURSOR WITH HOLD FOR SELECT 1

BEGIN

SELECT v FROM acr WHERE user_id = 1

SELECT count(*) FROM acr

SELECT v FROM acr WHERE user_id = 1

ROLLBACK

BEGIN

SAVEPOINT s

SELECT sum(v) FROM acr

ROLLBACK TO s

SELECT v FROM acr WHERE user_id = 2

COMMIT

DROP TABLE acr, acr_other, acr_ref
