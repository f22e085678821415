--- Sub-queries, CTEs and set operations, with and without a key.

DROP TABLE IF EXISTS cte_a, cte_b, cte_r CASCADE

CREATE TABLE cte_a (user_id bigint PRIMARY KEY, v int, parent bigint)

CREATE TABLE cte_b (user_id bigint NOT NULL, n int NOT NULL, w text, PRIMARY KEY (user_id, n))

CREATE TABLE cte_r (k int PRIMARY KEY, l text)

INSERT INTO cte_a VALUES (1, 10, NULL), (2, 20, 1), (3, 30, 1), (4, 40, 2), (5, 50, 4)

INSERT INTO cte_b VALUES (1, 1, 'x'), (1, 2, 'y'), (2, 1, 'x'), (3, 1, 'z')

INSERT INTO cte_r VALUES (1, 'r1'), (2, 'r2')

WITH a AS (SELECT * FROM cte_a WHERE user_id = 1) SELECT v FROM a

WITH a AS (SELECT * FROM cte_a) SELECT v FROM a WHERE user_id = 1

WITH a AS MATERIALIZED (SELECT v FROM cte_a WHERE user_id = 1), b AS NOT MATERIALIZED (SELECT n, w FROM cte_b WHERE user_id = 1) SELECT a.v, b.w FROM a, b ORDER BY b.n

WITH a (x, y) AS (SELECT user_id, v FROM cte_a WHERE user_id = 2) SELECT x + y FROM a

WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i FROM n ORDER BY i

WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT n.i, b.w FROM n JOIN cte_b b ON b.n = n.i WHERE b.user_id = 1 ORDER BY 1

WITH cte_a AS (SELECT 1 AS one) SELECT one FROM cte_a

WITH r AS (SELECT * FROM cte_r) SELECT l FROM r ORDER BY k

SELECT v FROM (SELECT * FROM cte_a WHERE user_id = 1) s

SELECT v FROM (SELECT * FROM cte_a) s WHERE s.user_id = 1

SELECT v FROM (SELECT user_id AS k, v FROM cte_a) s WHERE s.k = 1

SELECT s.n FROM (SELECT count(*) AS n FROM cte_b WHERE user_id = 1) s

SELECT x FROM (VALUES (1, 'a'), (2, 'b')) AS t (x, y) WHERE y = 'b'

SELECT a.v, t.y FROM cte_a a JOIN (VALUES (1, 'a'), (2, 'b')) AS t (x, y) ON t.x = a.user_id WHERE a.user_id = 1

SELECT v FROM cte_a WHERE user_id = 1 AND v = (SELECT max(v) FROM cte_a WHERE user_id = 1)

SELECT v FROM cte_a WHERE user_id = 1 AND v > ALL (SELECT n FROM cte_b WHERE user_id = 1)

SELECT v FROM cte_a WHERE user_id = 1 AND v > (SELECT min(k) FROM cte_r)

SELECT v, (SELECT w FROM cte_b b WHERE b.user_id = a.user_id AND b.n = 1) FROM cte_a a WHERE a.user_id = 2

SELECT v, (SELECT w FROM cte_b b WHERE b.user_id = a.user_id AND b.n = 2) FROM cte_a a

SELECT v, ARRAY(SELECT w FROM cte_b b WHERE b.user_id = a.user_id ORDER BY n) FROM cte_a a WHERE a.user_id IN (1, 2)

SELECT (SELECT l FROM cte_r WHERE k = 1)

SELECT g, l FROM generate_series(1, 3) g LEFT JOIN cte_r ON k = g ORDER BY g

SELECT v FROM cte_a WHERE user_id = 1 UNION ALL SELECT n FROM cte_b WHERE user_id = 1

SELECT l FROM cte_r UNION ALL SELECT w FROM cte_b WHERE user_id = 1 ORDER BY 1

(SELECT n FROM cte_b WHERE user_id = 1 ORDER BY n DESC LIMIT 1) UNION ALL (SELECT v FROM cte_a WHERE user_id = 1) ORDER BY 1

SELECT 1 UNION SELECT 2 UNION SELECT 1 ORDER BY 1

SELECT 1 AS a UNION SELECT 'x'

-- params: 1
WITH a AS (SELECT * FROM cte_a WHERE user_id = $1) SELECT a.v, b.w FROM a JOIN cte_b b ON b.user_id = a.user_id ORDER BY b.n

-- params: 1
SELECT v FROM (SELECT * FROM cte_a) s WHERE s.user_id = $1

-- params: 2 | 21
WITH u AS (UPDATE cte_a SET v = $2 WHERE user_id = $1 RETURNING user_id, v) SELECT * FROM u

WITH d AS (DELETE FROM cte_b WHERE user_id = 3 RETURNING *) SELECT n, w FROM d

WITH i AS (INSERT INTO cte_b VALUES (3, 1, 'z') RETURNING user_id) SELECT user_id FROM i

WITH moved AS (DELETE FROM cte_b WHERE user_id = 3 RETURNING *) INSERT INTO cte_b SELECT 3, n + 10, w FROM moved RETURNING n, w

WITH a AS (SELECT nosuch FROM cte_a WHERE user_id = 1) SELECT * FROM a

WITH a AS (SELECT 1), a AS (SELECT 2) SELECT * FROM a

SELECT * FROM cte_nosuch WHERE user_id = 1

SELECT v FROM cte_a WHERE user_id = 1 AND v = (SELECT n FROM cte_b WHERE user_id = 1)

WITH RECURSIVE up AS (SELECT user_id, parent FROM cte_a WHERE user_id = 5 UNION ALL SELECT a.user_id, a.parent FROM cte_a a JOIN up ON a.user_id = up.parent) SELECT * FROM up

WITH t AS (SELECT max(v) AS m FROM cte_a) SELECT user_id FROM cte_a, t WHERE v = m

SELECT v FROM cte_a WHERE v > (SELECT avg(v) FROM cte_a)

SELECT v FROM cte_a UNION SELECT n FROM cte_b

SELECT v FROM cte_a WHERE user_id = 1 UNION SELECT n FROM cte_b WHERE user_id = 2

SELECT user_id FROM cte_a EXCEPT SELECT user_id FROM cte_b WHERE n > 1 AND w = 'nosuch' AND user_id = 2

SELECT count(*) FROM (SELECT v FROM cte_a) s

SELECT * FROM (SELECT v FROM cte_a ORDER BY v LIMIT 2) s

SELECT * FROM cte_r, (SELECT count(*) FROM cte_a) s

DROP TABLE cte_a, cte_b, cte_r
