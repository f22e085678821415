--- How statements may be written: comments, case, quotes, and the same text with other literals.

DROP TABLE IF EXISTS lex CASCADE

CREATE TABLE lex (user_id bigint PRIMARY KEY, "Mixed" text, n int)

INSERT INTO lex VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (12, 'd', 4)

  SELECT  "Mixed"
	FROM lex
 WHERE	user_id=1

select/**/"Mixed"/**/from/**/lex/**/where/**/user_id=2

SELECT "Mixed" FROM lex WHERE user_id = /* user_id = 1 */ 2 -- 3

SELECT "Mixed" FROM lex WHERE user_id = 1
-- params are not in comments: $1 'x'
AND n = 1

/* leading */ SELECT "Mixed" FROM lex WHERE user_id = 3 /* trailing /* nested */ */

SELECT "Mixed" FROM lex WHERE user_id=1;

SELECT "Mixed" FROM lex WHERE user_id=1 ; /* after */ -- the end

SELECT mixed FROM lex WHERE user_id = 1

SELECT "Mixed" FROM "lex" WHERE "user_id" = 1

SELECT "Mixed" FROM "LEX" WHERE user_id = 1

SELECT "Mixed" FROM lex WHERE "USER_ID" = 1

SELECT "Mixed" FROM U&"\006cex" WHERE user_id = 1

SELECT 1::int AS user_id, 'lex' AS "from"

SELECT n::text||'x' FROM lex WHERE user_id=1 AND n>=1 AND n<>-1 AND n!=2

SELECT n-1, n -1, n- 1, -n, - -n, +n FROM lex WHERE user_id=1

SELECT n*-1, 2 ^ -1, @ -5, n::int2::int8 FROM lex WHERE user_id=1

SELECT 1.e0, .5, 1.5e-3, 1e+2 FROM lex WHERE user_id=1

SELECT 'a' FROM lex WHERE user_id=1 ORDER BY 1

SELECT n, "Mixed" FROM lex WHERE user_id IN (1) ORDER BY 2, 1

SELECT n AS x FROM lex WHERE user_id = 1 GROUP BY 1 ORDER BY x

SELECT n FROM lex WHERE user_id = 1 ORDER BY 2

SELECT n FROM lex WHERE user_id = 1 LIMIT 0

SELECT n FROM lex WHERE user_id = 1 LIMIT ALL OFFSET 0

SELECT n FROM lex WHERE user_id = 1 LIMIT NULL

SELECT n FROM lex WHERE user_id = 1 FETCH FIRST ROW ONLY

SELECT DATE '2024-01-01', INTERVAL '1' DAY, int '5', B'01', X'1F', N'n' FROM lex WHERE user_id = 1

SELECT 'x'::char, 'xyz'::char(2), 5::numeric(3,1), '1 day'::interval(0) FROM lex WHERE user_id = 1

SELECT '$1', '?', ':name', '%s', E'\x24' FROM lex WHERE user_id = 1

SELECT n ?| NULL FROM lex WHERE user_id = 1

SELECT '{"a":1}'::jsonb ? 'a', '{"a":1}'::jsonb ?& ARRAY['a','b'], '{"a":1}'::jsonb @? '$.a' FROM lex WHERE user_id = 1

SELECT (ARRAY[1,2,3])[2], (ARRAY[1,2,3])[1:2], '{1,2}'::int[] @> ARRAY[1] FROM lex WHERE user_id = 1

SELECT (1, 2) < (1, 3), (n, 'x') IS NOT NULL FROM lex WHERE user_id = 1

SELECT n FROM ONLY lex WHERE user_id = 1

SELECT n FROM lex * WHERE user_id = 1

SELECT l.n FROM lex AS l (a, b, n) WHERE l.a = 1

SELECT l.x FROM lex l (x) WHERE l.x = 1

SELECT user_id AS n, n AS user_id FROM lex WHERE user_id = 2

SELECT lex FROM lex WHERE lex.user_id = 2

SELECT (lex.*) IS NOT NULL FROM lex WHERE user_id = 2

SELECT count(*) FROM lex WHERE user_id = 1 AND n = 1 OR user_id = 1 AND n = 2

SELECT n FROM lex WHERE (user_id = 1 AND n = 1) OR (user_id = 1 AND n = 2)

SELECT n FROM lex WHERE user_id = 1 AND true

SELECT n FROM lex WHERE user_id = 1 AND (user_id = 1 OR user_id = 2)

SELECT n FROM lex WHERE ((user_id = ((1))))

SELECT n FROM lex WHERE (user_id = 1) IS TRUE

SELECT n FROM lex WHERE (user_id = 1) = true

SELECT n FROM lex WHERE CASE WHEN user_id = 1 THEN true ELSE false END

SELECT n FROM lex WHERE NOT (user_id <> 1)

SELECT n FROM lex WHERE user_id = 12

SELECT n FROM lex WHERE user_id = 1 AND n IN (1, 2)

SELECT n FROM lex WHERE user_id = 1 AND n IN (1, 2, 3)

SELECT n FROM lex WHERE user_id >= 1 AND user_id <= 1

SELECT n FROM lex WHERE user_id OPERATOR(pg_catalog.=) 1

SELECT n FROM lex WHERE pg_catalog.int8eq(user_id, 1)

SELECT n FROM lex WHERE user_id = (1)::bigint

SELECT n FROM lex WHERE user_id = '1'::text::bigint

SELECT n FROM lex WHERE user_id = length('x')

SELECT n FROM lex WHERE user_id IN (SELECT 1)

SELECT n FROM lex WHERE user_id = ANY (SELECT 1)

SELECT n FROM lex WHERE user_id = SOME (ARRAY[1])

SELECT n FROM lex WHERE row(user_id) = row(1)

SELECT n FROM lex WHERE (user_id, n) IN ((1, 1), (2, 2))

SELECT n FROM lex, (SELECT 1 AS one) s WHERE user_id = s.one

SELECT current_setting('search_path') FROM lex WHERE user_id = 1

/* shardproxy: key=1 */ SELECT n FROM lex WHERE user_id = 1

/* shardproxy: key=12 */ SELECT "Mixed" FROM lex WHERE user_id + 0 = 12

INSERT INTO lex /* c */ (user_id /* c */) /* c */ VALUES /* c */ (50 /* c */), -- c
(51) /* c */ RETURNING /* c */ user_id

UPDATE/* */lex/* */SET/* */n=5/* */WHERE/* */user_id=50

DELETE/* */FROM/* */lex/* */WHERE/* */user_id/* */IN/* */(50,51)

DROP TABLE lex
