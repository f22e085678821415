--- Statements of which shards can only answer parts: set operations, joins that are not by shard keys, sub-queries and CTEs over
--- other rows than those beside them. Other proxies are known to join, compare and unite the rows of each shard by themselves.

DROP TABLE IF EXISTS gat, gat_item, gat_tag, gat_kind CASCADE

CREATE TABLE gat (user_id bigint PRIMARY KEY, grp int, n numeric(12,3), name text, code text COLLATE "C", short varchar(5), fixed char(6), at timestamptz, tags int[], doc jsonb, mood "char", r real)

CREATE TABLE gat_item (user_id bigint NOT NULL, id int NOT NULL, friend bigint, price numeric, label varchar(10) COLLATE "C", PRIMARY KEY (user_id, id))

CREATE TABLE gat_tag (user_id text NOT NULL, tag text, v int)

CREATE TABLE gat_kind (grp int PRIMARY KEY, title text)

INSERT INTO gat VALUES (1, 1, 10.5, 'ant', 'b', 'x', 'a', '2024-01-01 00:00+00', '{1,2}', '{"k": 1}', 'q', 1.1), (2, 1, -3, 'Bee', 'A', 'yy', 'b', '2024-01-02 00:00+00', NULL, NULL, 'r', 2.2), (3, 2, NULL, 'cat', NULL, NULL, NULL, NULL, '{}', '[]', NULL, NULL),
(4, 2, 100.125, NULL, 'c', 'x', 'a', '2024-02-03 10:00+00', '{NULL}', '{"k": 2}', 'q', 0.1), (5, NULL, 7, 'dog', 'B', 'zz', 'cc', 'infinity', '{3}', '{"k": null}', 's', 5.5), (6, 3, 7, 'Éla', 'a', 'x', 'a', '2024-01-01 00:00+00', '{1,2}', '{"k": 1}', 'q', 1.1),
(7, 3, 0, 'ant', 'é', '', '', '2024-03-01 00:00+00', '{2}', '3', 't', -7), (8, 1, 1, '', '', 'x', 'a ', '2024-01-02 00:00+00', '{1}', '"x"', 'q', 8), (9, 2, 100, 'zoo', 'Z', 'zz', 'z', '1999-12-31 23:59:59.999999+00', '{9}', 'null', 'r', 9.25)

INSERT INTO gat_item VALUES (1, 1, 2, 9.99, 'b'), (1, 2, 3, 0.01, 'a'), (2, 1, 1, 100, 'B'), (3, 1, 9, 5.5, NULL), (4, 1, NULL, NULL, 'c'), (6, 1, 6, 1, 'a'), (6, 2, 7, 2, 'x'), (6, 3, 1, 3, 'b'), (9, 1, 77, 7.25, 'Z')

INSERT INTO gat_tag VALUES ('1', 'red', 1), ('2', 'red', 2), ('x', 'blue', 3), ('y', NULL, 4), ('9', 'green', 1)

INSERT INTO gat_kind VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four')

CREATE VIEW gat_sum AS SELECT grp, count(*) AS many, max(name) AS most FROM gat GROUP BY grp

CREATE VIEW gat_open AS SELECT user_id, name, grp FROM gat WHERE grp IS NOT NULL

SELECT grp FROM gat UNION SELECT grp FROM gat_kind ORDER BY 1

SELECT grp FROM gat UNION ALL SELECT grp FROM gat_kind ORDER BY 1 DESC NULLS LAST

SELECT grp FROM gat INTERSECT SELECT grp FROM gat_kind

SELECT grp FROM gat INTERSECT ALL SELECT grp FROM gat WHERE grp < 3

SELECT grp FROM gat_kind EXCEPT SELECT grp FROM gat

SELECT grp FROM gat EXCEPT ALL SELECT grp FROM gat_kind ORDER BY 1 NULLS FIRST

SELECT name, n FROM gat UNION SELECT label, price FROM gat_item ORDER BY 2, 1

SELECT name AS a FROM gat UNION SELECT code FROM gat ORDER BY a COLLATE "C"

SELECT name FROM gat UNION ALL SELECT code FROM gat ORDER BY 1

SELECT code FROM gat UNION SELECT name COLLATE "C" FROM gat ORDER BY 1

SELECT name COLLATE "default" FROM gat UNION SELECT code FROM gat ORDER BY 1

SELECT name COLLATE "C" FROM gat UNION SELECT name COLLATE "POSIX" FROM gat

SELECT 'a ' AS f FROM gat UNION SELECT fixed FROM gat ORDER BY 1

SELECT count(*) FROM (SELECT 'a ' AS f FROM gat UNION SELECT fixed FROM gat) s

SELECT '5' FROM gat UNION SELECT grp FROM gat ORDER BY 1

SELECT NULL FROM gat UNION SELECT user_id FROM gat ORDER BY 1

SELECT short FROM gat UNION SELECT fixed FROM gat ORDER BY 1

SELECT grp FROM gat UNION SELECT n FROM gat ORDER BY 1

SELECT grp FROM gat UNION SELECT r FROM gat ORDER BY 1

SELECT grp FROM gat UNION SELECT name FROM gat

SELECT grp, n FROM gat UNION SELECT grp FROM gat

(SELECT user_id FROM gat ORDER BY user_id LIMIT 2) UNION ALL (SELECT user_id FROM gat ORDER BY user_id DESC LIMIT 2) ORDER BY 1

(SELECT grp FROM gat UNION SELECT grp FROM gat_kind) EXCEPT SELECT grp FROM gat WHERE grp = 1 ORDER BY 1 LIMIT 2 OFFSET 1

SELECT grp, count(*) FROM gat GROUP BY grp UNION ALL SELECT NULL, count(*) FROM gat_item ORDER BY 2, 1

SELECT avg(r), sum(n) FROM gat UNION ALL SELECT max(price), min(price) FROM gat_item ORDER BY 1

SELECT 'all' AS what, count(*) FROM gat UNION ALL SELECT label, count(*) FROM gat_item GROUP BY label ORDER BY what, count

SELECT user_id FROM gat WHERE user_id = 1 UNION SELECT user_id FROM gat_item WHERE user_id = 9 ORDER BY user_id

SELECT tags FROM gat UNION SELECT ARRAY[v] FROM gat_tag ORDER BY 1

SELECT mood FROM gat UNION SELECT 'q' ORDER BY 1

VALUES (1::bigint), (100) UNION SELECT user_id FROM gat ORDER BY 1

SELECT name FROM gat WHERE user_id = 1 INTERSECT SELECT name FROM gat WHERE user_id = 7

-- params: 2 | x
SELECT user_id, $2::text AS p FROM gat WHERE grp = $1 UNION ALL SELECT id, label FROM gat_item WHERE id > $1 ORDER BY 1, 2

-- params: 1 | 9
SELECT name FROM gat WHERE user_id = $1 UNION ALL SELECT name FROM gat WHERE user_id = $2 ORDER BY 1

SELECT now() - now() AS zero FROM gat UNION SELECT now() - now() FROM gat_item

SELECT g.name, i.price FROM gat g JOIN gat_item i ON i.friend = g.user_id ORDER BY 1, 2

SELECT g.name, i.price FROM gat g LEFT JOIN gat_item i ON i.friend = g.user_id AND i.price > 2 ORDER BY 1, 2

SELECT g.name, i.price FROM gat g LEFT JOIN gat_item i ON i.friend = g.user_id WHERE i.price IS NULL ORDER BY 1, 2

SELECT g.name, i.price FROM gat g RIGHT JOIN gat_item i ON i.friend = g.user_id AND g.grp = 1 ORDER BY 1, 2

SELECT g.name, i.price FROM gat g FULL JOIN gat_item i ON i.friend = g.user_id ORDER BY 1, 2

SELECT a.user_id, b.user_id FROM gat a JOIN gat b ON b.grp = a.grp AND b.user_id > a.user_id WHERE a.n > 0 ORDER BY 1, 2

SELECT count(*), sum(g.n), max(t.tag) FROM gat g JOIN gat_tag t ON t.user_id = g.user_id::text

SELECT t.tag, g.name FROM gat_tag t, gat g WHERE t.v = g.grp AND g.user_id IN (1, 2, 3, 4) ORDER BY 1, 2

SELECT k.title, count(g.user_id) FROM gat_kind k LEFT JOIN gat g ON g.grp = k.grp GROUP BY k.title ORDER BY 1

SELECT * FROM gat_kind k LEFT JOIN gat g USING (grp) ORDER BY grp, user_id

SELECT k.title, x.many FROM gat_kind k LEFT JOIN LATERAL (SELECT count(*) AS many FROM gat g WHERE g.grp = k.grp) x ON true ORDER BY 1

SELECT * FROM gat_item NATURAL JOIN (SELECT friend AS user_id, label FROM gat_item) o ORDER BY 1, 2

-- expect: refused
SELECT g FROM gat_item g JOIN gat k ON g.id = k.grp

SELECT to_jsonb(i) FROM gat_item i JOIN gat k ON k.grp = i.id ORDER BY i.user_id, i.id, k.user_id

SELECT j.a, j.b FROM (gat_kind JOIN gat_item ON id = grp) AS j(a, b) ORDER BY 1, 2, j.id, j.user_id

SELECT user_id FROM gat WHERE n = (SELECT max(n) FROM gat)

SELECT user_id, n - (SELECT avg(n) FROM gat) FROM gat ORDER BY 1

SELECT user_id FROM gat WHERE name IN (SELECT label FROM gat_item) OR code IN (SELECT label FROM gat_item) ORDER BY 1

SELECT user_id FROM gat WHERE user_id NOT IN (SELECT friend FROM gat_item WHERE friend IS NOT NULL) ORDER BY 1

SELECT user_id FROM gat g WHERE EXISTS (SELECT * FROM gat_item i WHERE i.friend = g.user_id) ORDER BY 1

SELECT user_id FROM gat g WHERE NOT EXISTS (SELECT FROM gat_item i WHERE i.friend = g.user_id AND i.price > g.n) ORDER BY 1

SELECT name, (SELECT string_agg(label, ',' ORDER BY label) FROM gat_item i WHERE i.friend = g.user_id) FROM gat g ORDER BY user_id

SELECT user_id, n > ALL (SELECT price FROM gat_item WHERE price < 5) FROM gat ORDER BY 1

SELECT title FROM gat_kind k WHERE EXISTS (SELECT FROM gat WHERE gat.grp = k.grp) ORDER BY 1

SELECT (SELECT count(*) FROM gat), (SELECT max(price) FROM gat_item)

SELECT exists(SELECT FROM gat WHERE n = 7), ARRAY(SELECT user_id FROM gat ORDER BY name, user_id)

SELECT (SELECT name FROM gat)

SELECT grp, count(*) FROM gat GROUP BY grp HAVING count(*) > (SELECT count(*) FROM gat_item WHERE price > 9) ORDER BY 1

SELECT user_id FROM gat ORDER BY user_id LIMIT (SELECT count(*) FROM gat_kind)

SELECT count(*) FROM (SELECT DISTINCT grp FROM gat) s

SELECT max(many), min(many) FROM (SELECT grp, count(*) AS many FROM gat GROUP BY grp) s

SELECT s.grp, s.total, k.title FROM (SELECT grp, sum(n) AS total FROM gat GROUP BY grp HAVING count(*) > 1) s LEFT JOIN gat_kind k USING (grp) ORDER BY 1

SELECT grp, avg(r), count(DISTINCT name) FROM (SELECT * FROM gat ORDER BY user_id LIMIT 6) s GROUP BY grp ORDER BY 1

SELECT * FROM (SELECT user_id, rank() OVER (ORDER BY n DESC NULLS LAST) AS place FROM gat) s WHERE place < 4 ORDER BY 2, 1

WITH totals AS (SELECT grp, sum(n) AS total FROM gat GROUP BY grp) SELECT g.user_id, t.total FROM gat g JOIN totals t ON t.grp = g.grp ORDER BY 1

WITH a AS (SELECT * FROM gat WHERE grp = 1), b AS (SELECT * FROM a WHERE n > 0) SELECT a.user_id, b.user_id FROM a, b ORDER BY 1, 2

WITH gat AS (SELECT user_id AS u FROM gat) SELECT count(*), max(u) FROM gat JOIN gat_kind ON grp = u

WITH RECURSIVE up AS (SELECT user_id, friend, 1 AS depth FROM gat_item WHERE user_id = 3 UNION ALL SELECT i.user_id, i.friend, depth + 1 FROM gat_item i JOIN up ON i.user_id = up.friend WHERE depth < 5) SELECT * FROM up ORDER BY 3, 1, 2

WITH m AS MATERIALIZED (SELECT max(n) AS n FROM gat) SELECT user_id FROM gat JOIN m USING (n) UNION ALL SELECT count(*) FROM m ORDER BY 1

SELECT * FROM gat_sum ORDER BY 1

SELECT o.name, s.many FROM gat_open o JOIN gat_sum s USING (grp) ORDER BY 1, 2

SELECT count(*) FROM gat_open a, gat_open b WHERE a.name = b.name

-- params: 1 | 5
SELECT g.user_id, i.price FROM gat g JOIN gat_item i ON i.friend = g.user_id WHERE g.grp = $1 AND i.price > $2 ORDER BY 1, 2

-- params: {1,2,9}
SELECT a.name, b.name FROM gat a JOIN gat b ON a.grp = b.grp WHERE a.user_id = ANY ($1::bigint[]) AND b.user_id <> a.user_id ORDER BY 1, 2

SELECT name, short, fixed FROM gat WHERE fixed = 'a' UNION SELECT label, label, label FROM gat_item ORDER BY 1, 2, 3

SELECT nosuch FROM gat UNION SELECT grp FROM gat

SELECT g.nosuch FROM gat g JOIN gat_item i ON i.friend = g.user_id

SELECT 1 / (price - price) FROM gat_item WHERE price > 1 UNION SELECT 1

SELECT user_id FROM gat UNION SELECT user_id FROM gat_item ORDER BY user_id; SELECT count(*) FROM gat a, gat b

BEGIN

UPDATE gat SET grp = 4 WHERE user_id IN (1, 2, 3, 4)

INSERT INTO gat_item VALUES (5, 1, 5, 50, 'new')

SELECT k.title, count(g.user_id) FROM gat_kind k LEFT JOIN gat g ON g.grp = k.grp GROUP BY k.title ORDER BY 1

SELECT label FROM gat_item EXCEPT SELECT code FROM gat ORDER BY 1

SELECT user_id FROM gat WHERE n > (SELECT 1 / (count(*) - 10) FROM gat_item)

SELECT count(*) FROM gat a, gat b

ROLLBACK

SELECT count(*) FROM gat a, gat b

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

SELECT grp FROM gat UNION SELECT grp FROM gat_kind ORDER BY 1

COMMIT

--- What is on each shard for itself, or is locked, is refused.

-- expect: refused
SELECT a.name FROM gat a JOIN gat b ON a.grp = b.grp FOR UPDATE

-- expect: refused
SELECT count(*) FROM gat, pg_class WHERE relname = 'gat' AND grp = relnatts

-- expect: refused
SELECT a.ctid FROM gat a JOIN gat b ON a.grp = b.grp

-- expect: refused
SELECT a.name, count(*) FROM gat a JOIN gat_item b ON a.grp = b.id GROUP BY a.user_id

-- expect: refused
SELECT public.gat.name FROM public.gat JOIN gat_item b ON grp = b.id

DROP VIEW gat_sum, gat_open

DROP TABLE gat, gat_item, gat_tag, gat_kind
