--- Reads that meet several shards, as far as putting rows together is exact.

DROP TABLE IF EXISTS many, many_ref CASCADE

CREATE TABLE many (user_id bigint PRIMARY KEY, grp int, v text)

CREATE TABLE many_ref (grp int PRIMARY KEY, label text)

INSERT INTO many VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 2, 'c'), (4, 2, 'd'), (5, 3, 'e'), (6, NULL, 'f'), (7, 3, NULL), (8, 1, 'h'), (9, 1, 'i'), (10, 2, 'j'), (-1, 2, 'k'), (1000000007, 4, 'l')

INSERT INTO many_ref VALUES (1, 'one'), (2, 'two')

SELECT * FROM many

TABLE many

SELECT v FROM many WHERE user_id IN (1, 2, 3, 4)

SELECT v FROM many WHERE user_id IN (1, 1, 1)

SELECT v FROM many WHERE user_id IN (1)

SELECT v FROM many WHERE user_id IN (1, NULL, 999)

SELECT v FROM many WHERE user_id IN ('1', '2')

SELECT v FROM many WHERE user_id IN (1, 2, 3, 4) AND user_id IN (3, 4, 5)

SELECT v FROM many WHERE user_id = ANY (ARRAY[1, 2, 3])

SELECT v FROM many WHERE user_id = ANY ('{1,2,-1}')

SELECT v FROM many WHERE user_id = ANY ('{1,2,-1}'::bigint[])

SELECT v FROM many WHERE user_id = ANY (ARRAY[1, NULL, 5]::bigint[])

SELECT v FROM many WHERE user_id = ANY ('{}'::bigint[])

SELECT v FROM many WHERE user_id = ANY (NULL::bigint[])

SELECT v FROM many WHERE user_id = 1 OR user_id = 5

SELECT v FROM many WHERE user_id = 1 OR (user_id = 5 AND v = 'e') OR user_id IN (7, 8)

SELECT v FROM many WHERE user_id = 1 OR v = 'd'

SELECT v FROM many WHERE user_id = 1 OR true

SELECT v FROM many WHERE NOT user_id = 1

SELECT v FROM many WHERE user_id <> ALL (ARRAY[1, 2])

SELECT v FROM many WHERE user_id NOT IN (1, 2, 3)

SELECT v FROM many WHERE user_id > 5

SELECT v FROM many WHERE user_id IS NULL

SELECT v FROM many WHERE user_id IS NOT DISTINCT FROM 5

SELECT v FROM many WHERE user_id::text = '5'

SELECT v FROM many WHERE user_id + 0 = 5

SELECT v FROM many WHERE abs(user_id) = 1

SELECT v FROM many WHERE v = 'c'

SELECT v FROM many WHERE v IS NULL

SELECT upper(v), grp * 2 AS g2, user_id % 2 = 0 AS even FROM many WHERE grp = 1

SELECT v FROM many WHERE false

SELECT m.v, r.label FROM many m JOIN many_ref r USING (grp)

SELECT m.v, r.label FROM many m LEFT JOIN many_ref r ON r.grp = m.grp

SELECT m.v FROM many m WHERE EXISTS (SELECT 1 FROM many_ref r WHERE r.grp = m.grp)

SELECT m.v FROM many m WHERE grp IN (SELECT grp FROM many_ref WHERE label = 'two')

SELECT a.v, b.v FROM many a JOIN many b ON a.user_id = b.user_id

SELECT a.v, b.v FROM many a JOIN many b USING (user_id) WHERE a.user_id IN (1, 5, 9)

-- params: {1,2,3}
SELECT v FROM many WHERE user_id = ANY ($1)

-- params: {1,NULL,1000000007}
SELECT v FROM many WHERE user_id = ANY ($1::bigint[])

-- params: {}
SELECT v FROM many WHERE user_id = ANY ($1)

-- params: \N
SELECT v FROM many WHERE user_id = ANY ($1)

-- params: 1 | 5 | 8
SELECT v FROM many WHERE user_id IN ($1, $2, $3)

-- params: 1 | \N
SELECT v FROM many WHERE user_id IN ($1, $2)

-- params: 1 | 5
SELECT v FROM many WHERE user_id = $1 OR user_id = $2

-- params: 1 | d
SELECT v FROM many WHERE user_id = $1 OR v = $2

-- params: c
SELECT user_id FROM many WHERE v = $1

SELECT v, 1/(user_id - 5) FROM many WHERE user_id IN (1, 5)

SELECT nosuch FROM many

SELECT v FROM many WHERE user_id IN (1, 'x')

-- expect: either
SELECT v FROM many WHERE user_id IN (VALUES (1), (2))

-- expect: either
SELECT v FROM many WHERE user_id IN (1, 2) ORDER BY v

-- expect: either
SELECT v FROM many ORDER BY user_id

-- expect: either
SELECT v FROM many WHERE user_id = 1 UNION ALL SELECT v FROM many WHERE user_id = 2

-- expect: either
SELECT count(*) FROM many

DROP TABLE many, many_ref
