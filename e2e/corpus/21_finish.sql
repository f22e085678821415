--- Statements that need the rows of all shards together, whose last step is one shard's. Wrong answers of other proxies to
--- each kind are known: a row for each shard, HAVING and LIMIT applied on each shard, averages of averages, NULLs and texts put
--- in the order of the proxy's language, sort columns that are shown or lost.

DROP TABLE IF EXISTS fin, fin_item, fin_kind CASCADE

CREATE TABLE fin (user_id bigint PRIMARY KEY, grp int, n numeric, name text, code text COLLATE "C", at timestamptz, tags int[], doc jsonb, ok bool, d float8, r real, s smallint)

CREATE TABLE fin_item (user_id bigint NOT NULL, id int NOT NULL, price numeric(8,2), PRIMARY KEY (user_id, id))

CREATE TABLE fin_kind (grp int PRIMARY KEY, title text)

INSERT INTO fin VALUES (1, 1, 10.50, 'ant', 'b', '2024-01-01 00:00+00', '{1,2}', '{"k": 1}', true, 0.5, 1.5, 1), (2, 1, -3.000000000000000000001, 'Bee', 'A', '2024-01-02 00:00+00', NULL, NULL, false, 2.25, NULL, 2),
(3, 2, NULL, 'cat', NULL, NULL, '{}', '[]', NULL, NULL, 0.25, 3), (4, 2, 12345678901234567890.12345, NULL, 'c', '2024-02-03 10:00+00', '{NULL}', '{"k": 2}', true, -1.5, 2.5, NULL),
(5, NULL, 7, 'dog', 'B', 'infinity', '{3}', '{"k": null}', false, 4, -8, 5), (6, 3, 7, 'Éla', 'a', '2024-01-01 00:00+00', '{1,2}', '{"k": 1}', true, 0.5, 1.5, 1), (7, 3, 0, 'ant', 'é', '2024-03-01 00:00+00', '{2}', '3', true, 8, 16, 7),
(8, 1, 1, '', '', '2024-01-02 00:00+00', '{1}', '"x"', NULL, 1, 1, 8), (9, 2, 100, 'zoo', 'Z', '1999-12-31 23:59:59.999999+00', '{9}', 'null', false, 0, 0, 9)

INSERT INTO fin_item VALUES (1, 1, 9.99), (1, 2, 0.01), (2, 1, 100), (3, 1, 5.5), (4, 1, NULL), (6, 1, 1), (6, 2, 2), (6, 3, 3), (9, 1, 7.25)

INSERT INTO fin_kind VALUES (1, 'one'), (2, 'two'), (3, 'three'), (4, 'four')

SELECT count(*), count(n), count(DISTINCT grp), count(*) FILTER (WHERE ok) FROM fin

SELECT sum(n), avg(n), min(n), max(n) FROM fin

SELECT sum(s), avg(s), sum(grp), avg(grp), sum(user_id), avg(user_id) FROM fin

SELECT sum(d), avg(d), sum(r), avg(r) FROM fin

SELECT stddev(s), variance(n), stddev_pop(grp), var_samp(user_id) FROM fin

SELECT min(name), max(name), min(code), max(code), min(at), max(at), min(tags), max(tags) FROM fin

SELECT bool_and(ok), bool_or(ok), every(ok IS NULL), bit_and(s), bit_or(s), bit_xor(s) FROM fin

SELECT string_agg(name, ',' ORDER BY user_id), array_agg(n ORDER BY user_id DESC), jsonb_agg(doc ORDER BY user_id), json_object_agg(user_id, grp ORDER BY user_id) FROM fin

SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY d), percentile_disc(0.3) WITHIN GROUP (ORDER BY name), mode() WITHIN GROUP (ORDER BY ok), rank(3) WITHIN GROUP (ORDER BY s) FROM fin

SELECT count(*), sum(n), avg(n), max(name), bool_or(ok), string_agg(code, '') FROM fin WHERE user_id > 1000

SELECT count(*), max(s) FROM fin WHERE user_id IN (2, 3, 5, 7)

SELECT count(*) * 2 + max(s), coalesce(sum(n), 0) / count(*), 'x' || min(code) FROM fin

SELECT grp, count(*) FROM fin GROUP BY grp ORDER BY grp

SELECT grp, sum(n) AS total FROM fin GROUP BY 1 ORDER BY total DESC NULLS LAST, 1

SELECT grp, sum(n) FROM fin GROUP BY grp HAVING sum(n) > 7 AND count(*) > 1 ORDER BY 2

SELECT grp % 2 AS odd, count(*), avg(s) FROM fin GROUP BY odd ORDER BY odd NULLS FIRST

SELECT lower(name) AS l, count(*) FROM fin GROUP BY lower(name) ORDER BY l

SELECT upper(fin.name), count(*) FROM fin GROUP BY upper(name) ORDER BY 1

SELECT date_trunc('month', at) AS m, count(*), max(at) FROM fin GROUP BY m ORDER BY m

SELECT doc->>'k', count(*) FROM fin WHERE jsonb_typeof(doc) = 'object' GROUP BY doc->>'k' ORDER BY 1

SELECT CASE WHEN n > 5 THEN 'big' ELSE 'small' END AS size, count(*), min(n) FROM fin GROUP BY size ORDER BY count(*), size

SELECT code, ok, count(*) FROM fin GROUP BY code, ok ORDER BY code, ok

SELECT grp, count(DISTINCT ok), count(DISTINCT n), sum(DISTINCT n), avg(DISTINCT s) FROM fin GROUP BY grp ORDER BY grp

SELECT grp, count(*) FILTER (WHERE n > 1), sum(s) FILTER (WHERE ok), max(name) FILTER (WHERE name < 'd') FROM fin GROUP BY grp ORDER BY grp

SELECT max(s) FROM fin GROUP BY grp ORDER BY min(n), count(*)

SELECT 1 FROM fin HAVING count(*) > 5

SELECT count(*) FROM fin HAVING count(*) > 500

SELECT grp, ok, count(*), grouping(grp, ok) FROM fin GROUP BY ROLLUP (grp, ok) ORDER BY 1, 2, 4, 3

SELECT grp, ok, sum(s) FROM fin GROUP BY GROUPING SETS ((grp), (ok), ()) ORDER BY 1, 2, 3

SELECT grp, stddev(s), count(*) FROM fin GROUP BY CUBE (grp) ORDER BY 1, 3

SELECT user_id, name, count(*) FROM fin GROUP BY user_id ORDER BY user_id

SELECT f.user_id, f.name, sum(i.price), count(i.id) FROM fin f LEFT JOIN fin_item i ON i.user_id = f.user_id GROUP BY f.user_id ORDER BY f.user_id

SELECT f.grp, sum(i.price), avg(i.price), count(*) FROM fin f JOIN fin_item i USING (user_id) GROUP BY f.grp ORDER BY f.grp

SELECT k.title, count(f.user_id), sum(f.n) FROM fin f JOIN fin_kind k ON k.grp = f.grp GROUP BY k.title ORDER BY k.title

SELECT count(*) FROM fin f WHERE EXISTS (SELECT FROM fin_item i WHERE i.user_id = f.user_id AND i.price > 2)

SELECT count(*) FROM fin WHERE user_id IN (SELECT user_id FROM fin_item WHERE price > 2)

SELECT sum((SELECT count(*) FROM fin_item i WHERE i.user_id = f.user_id)) FROM fin f

WITH big AS (SELECT * FROM fin WHERE n > 1) SELECT count(*), max(name) FROM big

SELECT DISTINCT grp FROM fin ORDER BY grp DESC

SELECT DISTINCT ok, grp > 1 AS late FROM fin ORDER BY late, ok

SELECT DISTINCT tags FROM fin ORDER BY tags

SELECT count(*) FROM fin WHERE name IS DISTINCT FROM 'ant'

SELECT DISTINCT ON (grp) grp, user_id, n FROM fin ORDER BY grp, n DESC NULLS LAST, user_id

SELECT DISTINCT ON (coalesce(ok, false)) name, user_id FROM fin ORDER BY coalesce(ok, false) DESC, user_id LIMIT 1

SELECT * FROM fin ORDER BY user_id

SELECT * FROM fin ORDER BY name, user_id

SELECT * FROM fin ORDER BY code DESC, user_id LIMIT 4

SELECT name FROM fin ORDER BY code NULLS FIRST

SELECT name FROM fin ORDER BY n DESC, user_id DESC OFFSET 2 LIMIT 3

SELECT user_id AS name, name AS user_id FROM fin ORDER BY name

SELECT user_id, n FROM fin ORDER BY n USING >, user_id

SELECT user_id FROM fin ORDER BY at NULLS FIRST, user_id FETCH FIRST 3 ROWS ONLY

SELECT ok FROM fin ORDER BY ok FETCH FIRST 2 ROWS WITH TIES

SELECT f.user_id, i.price FROM fin f JOIN fin_item i ON i.user_id = f.user_id ORDER BY i.price DESC NULLS LAST, i.id LIMIT 3

SELECT user_id, (SELECT max(price) FROM fin_item i WHERE i.user_id = f.user_id) AS most FROM fin f ORDER BY most DESC NULLS LAST, 1 LIMIT 3

SELECT n AS "Odd ""name""", user_id AS "select" FROM fin ORDER BY "select" LIMIT 2

SELECT user_id FROM fin WHERE user_id IN (9, 8, 7, 1) ORDER BY user_id DESC LIMIT 3

SELECT user_id FROM fin ORDER BY user_id LIMIT 0

SELECT user_id FROM fin ORDER BY user_id LIMIT NULL OFFSET 7

SELECT user_id, unnest(tags) AS tag FROM fin ORDER BY tag, user_id

-- params: 2 | 1
SELECT user_id, $1::int AS p FROM fin ORDER BY user_id LIMIT $1 OFFSET $2

-- params: 1 | 2 | x
SELECT grp, count(*) + $2, $3 FROM fin WHERE user_id > $1 GROUP BY grp HAVING count(*) >= $2 ORDER BY grp

-- params: month | 2024-01-01
SELECT date_trunc($1, at) AS m, count(*) FROM fin WHERE at >= $2 GROUP BY m ORDER BY m

-- params: \N
SELECT user_id FROM fin ORDER BY user_id LIMIT $1

-- params: {1,2,3,9}
SELECT count(*), sum(n) FROM fin WHERE user_id = ANY ($1::bigint[])

SELECT user_id, row_number() OVER (ORDER BY n DESC NULLS LAST, user_id), rank() OVER (PARTITION BY grp ORDER BY n) FROM fin ORDER BY user_id

SELECT user_id, sum(s) OVER w, lag(name) OVER w, first_value(code) OVER (PARTITION BY ok ORDER BY user_id DESC) FROM fin WINDOW w AS (ORDER BY user_id ROWS 2 PRECEDING) ORDER BY user_id

SELECT *, count(*) OVER () FROM fin_item ORDER BY user_id, id LIMIT 4

SELECT grp, count(*), rank() OVER (ORDER BY count(*) DESC, grp) FROM fin GROUP BY grp ORDER BY 3

SELECT count(*) FROM fin; SELECT grp FROM fin GROUP BY grp ORDER BY grp LIMIT 1; SELECT 1

SELECT count(*) FROM fin WHERE nosuch = 1

SELECT name, count(*) FROM fin

SELECT count(*) FROM fin GROUP BY 5

SELECT sum(name) FROM fin

SELECT name FROM fin ORDER BY nosuch

SELECT DISTINCT name FROM fin ORDER BY n

SELECT user_id FROM fin ORDER BY user_id LIMIT -1

SELECT sum(1 / s) FROM fin WHERE s - 7 IN (0, 1)

SELECT 1 / (count(*) - 9) FROM fin

SELECT sum(9223372036854775807 - user_id + user_id)::bigint FROM fin

SELECT max(name COLLATE "C"), min(name COLLATE "C") FROM fin

SELECT name FROM fin ORDER BY name COLLATE "C", user_id

SELECT count(*) FROM fin WHERE name < 'c' COLLATE "C"

BEGIN

UPDATE fin SET n = n + 1 WHERE user_id IN (1, 2, 3, 4)

SELECT sum(n), count(*) FROM fin

INSERT INTO fin (user_id, name) VALUES (100, 'new'), (101, 'new'), (102, 'new')

SELECT name, count(*) FROM fin GROUP BY name HAVING count(*) > 1 ORDER BY name

SELECT 1 / (count(*) - 12) FROM fin

SELECT count(*) FROM fin

ROLLBACK

SELECT count(*), sum(n) FROM fin

BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

SELECT max(n) FROM fin

SELECT user_id FROM fin ORDER BY n NULLS FIRST LIMIT 1

COMMIT

--- What is not one row of the answer for each row of a table by whose key all others are joined is gathered.

SELECT count(*) FROM fin f JOIN fin_item i ON i.price = f.n

SELECT count(*) FROM fin f LEFT JOIN fin_item i ON i.user_id = f.user_id + 1

SELECT grp FROM fin UNION SELECT grp FROM fin

SELECT grp FROM fin UNION ALL SELECT grp FROM fin_kind ORDER BY 1

SELECT count(*) FROM (SELECT DISTINCT grp FROM fin) s

SELECT count(*) FROM fin HAVING count(*) > (SELECT count(*) FROM fin_kind)

SELECT grp FROM fin GROUP BY grp HAVING grp IN (SELECT grp FROM fin_kind)

SELECT user_id FROM fin WHERE n = (SELECT max(n) FROM fin)

SELECT * FROM fin ORDER BY user_id LIMIT (SELECT count(*) FROM fin_kind)

-- expect: refused
SELECT user_id FROM fin ORDER BY user_id LIMIT 1 FOR UPDATE

SELECT DISTINCT clock_timestamp() > now() FROM fin

SELECT count(*) FROM fin_kind k LEFT JOIN fin f ON f.grp = k.grp

-- expect: refused
DECLARE fin_cursor CURSOR FOR SELECT name FROM fin ORDER BY name

-- expect: refused
EXPLAIN SELECT count(*) FROM fin

DROP TABLE fin, fin_item, fin_kind
