--- One key, and all of SQL on the shard that owns it.

DROP TABLE IF EXISTS sel_users, sel_events, sel_countries CASCADE

CREATE TABLE sel_countries (code char(2) PRIMARY KEY, name text)

CREATE TABLE sel_users (user_id bigint PRIMARY KEY, email text, country char(2) REFERENCES sel_countries, born date, tags text[], doc jsonb)

CREATE TABLE sel_events (user_id bigint NOT NULL, id int NOT NULL, kind text, amount numeric(12, 2), at timestamp, PRIMARY KEY (user_id, id))

INSERT INTO sel_countries VALUES ('de', 'Germany'), ('fr', 'France'), ('jp', '日本')

INSERT INTO sel_users VALUES (1, 'a@x.org', 'de', '1990-01-01', '{a,b}', '{"k": 1, "l": [1, 2, {"m": null}]}'), (2, 'b@x.org', 'fr', '1985-06-15', '{}', 'null'), (3, 'c@x.org', NULL, NULL, NULL, NULL), (4, 'd@x.org', 'jp', '2001-12-31', '{"with space",NULL,"q\"uote"}', '[]'), (5, 'e@y.org', 'de', '1970-01-01', '{z}', '{"k": 5}')

INSERT INTO sel_events VALUES (1, 1, 'login', NULL, '2024-01-01 10:00'), (1, 2, 'buy', 9.99, '2024-01-01 10:05'), (1, 3, 'buy', 20, '2024-01-02 00:00:00.123456'), (2, 1, 'login', NULL, '2024-01-03'), (2, 2, 'buy', 5.5, '2024-01-04'), (4, 1, 'login', 0, '2024-02-29')

SELECT * FROM sel_users WHERE user_id = 1

SELECT * FROM sel_users WHERE user_id = 999

SELECT email FROM sel_users WHERE 1 = user_id

select EMAIL from SEL_USERS where USER_ID=2

SELECT u.email AS mail, u.* FROM sel_users AS u WHERE u.user_id = 2

SELECT public.sel_users.email FROM public.sel_users WHERE public.sel_users.user_id = 2

SELECT email FROM sel_users WHERE (user_id) = (3) AND country IS NULL

SELECT email FROM sel_users WHERE user_id = 1 AND user_id = 2

SELECT email FROM sel_users WHERE user_id = 1 AND user_id = 1

SELECT email FROM sel_users WHERE user_id = 1 AND (country = 'de' OR country = 'fr')

SELECT email FROM sel_users WHERE user_id = 1 AND NOT (country = 'de')

SELECT email FROM sel_users WHERE user_id = '1'

SELECT email FROM sel_users WHERE user_id = 1::int2

SELECT email FROM sel_users WHERE user_id = CAST('1' AS bigint)

SELECT email FROM sel_users WHERE user_id = (SELECT 1)

SELECT email FROM sel_users WHERE user_id = 1 + 1

SELECT email FROM sel_users WHERE user_id = NULL

SELECT email FROM sel_users WHERE user_id = 1 LIMIT 1 OFFSET 0

SELECT email FROM sel_users WHERE user_id BETWEEN 2 AND 2

SELECT email FROM sel_users WHERE (user_id, email) = (1, 'a@x.org')

SELECT email FROM sel_users WHERE user_id = 1 FOR UPDATE

SELECT email FROM sel_users WHERE user_id = 1 FOR SHARE SKIP LOCKED

-- params: 1
SELECT * FROM sel_users WHERE user_id = $1

-- params: 1 | de
SELECT email FROM sel_users WHERE country = $2 AND user_id = $1

-- params: 2
SELECT email FROM sel_users WHERE user_id = $1::bigint

-- params: 2
SELECT email FROM sel_users WHERE user_id = $1::int

-- params: 2
SELECT $1::text, email FROM sel_users WHERE user_id = $1::text::bigint

-- params: \N
SELECT email FROM sel_users WHERE user_id = $1

-- params: -5
SELECT email FROM sel_users WHERE user_id = $1

-- params: 9223372036854775807
SELECT email FROM sel_users WHERE user_id = $1

-- params: 1 | 2
SELECT email FROM sel_users WHERE user_id = $1 AND user_id = $2

-- params: 1 | 2
SELECT kind, amount FROM sel_events WHERE user_id = $1 AND id <= $2 ORDER BY id

-- params: 1 | 1 | 1
SELECT id FROM sel_events WHERE user_id = $1 ORDER BY id LIMIT $2 OFFSET $3

SELECT id, kind FROM sel_events WHERE user_id = 1 ORDER BY id DESC

SELECT id, kind, amount FROM sel_events WHERE user_id = 1 ORDER BY amount DESC NULLS LAST, id

SELECT kind AS k FROM sel_events WHERE user_id = 1 ORDER BY k, id LIMIT 2

SELECT DISTINCT kind FROM sel_events WHERE user_id = 1 ORDER BY 1

SELECT DISTINCT ON (kind) kind, id FROM sel_events WHERE user_id = 1 ORDER BY kind, id DESC

SELECT count(*), count(amount), sum(amount), avg(amount), min(at), max(at) FROM sel_events WHERE user_id = 1

SELECT kind, count(*) AS n, sum(amount) FROM sel_events WHERE user_id = 1 GROUP BY kind HAVING count(*) > 0 ORDER BY n, kind

SELECT kind, count(*) FROM sel_events WHERE user_id = 1 GROUP BY ROLLUP (kind) ORDER BY 1 NULLS LAST

SELECT string_agg(kind, ',' ORDER BY id), array_agg(id ORDER BY id DESC), json_agg(kind ORDER BY id) FROM sel_events WHERE user_id = 1

SELECT count(*) FILTER (WHERE kind = 'buy'), bool_and(id > 0), stddev(id), percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM sel_events WHERE user_id = 1

SELECT id, row_number() OVER (ORDER BY at), sum(amount) OVER (PARTITION BY kind ORDER BY id), lag(kind, 1, 'none') OVER w FROM sel_events WHERE user_id = 1 WINDOW w AS (ORDER BY id) ORDER BY id

SELECT kind FROM sel_events WHERE user_id = 1 UNION SELECT email FROM sel_users WHERE user_id = 1 ORDER BY 1

SELECT id FROM sel_events WHERE user_id = 1 EXCEPT SELECT 2 ORDER BY 1

SELECT id FROM sel_events WHERE user_id = 1 INTERSECT ALL SELECT id FROM sel_events WHERE user_id = 1 ORDER BY 1

SELECT doc->'k', doc->>'k', doc#>'{l,2}', doc @> '{"k": 1}', doc ? 'k', jsonb_array_length(doc->'l') FROM sel_users WHERE user_id = 1

SELECT e.value FROM sel_users u, jsonb_array_elements(u.doc->'l') WITH ORDINALITY AS e(value, n) WHERE u.user_id = 1 ORDER BY e.n

SELECT tags, tags[1], array_length(tags, 1), 'a' = ANY(tags), tags || 'c'::text FROM sel_users WHERE user_id = 1

SELECT tags FROM sel_users WHERE user_id = 4

SELECT unnest(tags) AS tag FROM sel_users WHERE user_id = 1 ORDER BY tag

SELECT extract(year FROM born), age(DATE '2000-01-01', born), born + 1, born + INTERVAL '1 month', to_char(born, 'YYYY-MM') FROM sel_users WHERE user_id = 1

SELECT date_trunc('day', at), at::date, at - TIMESTAMP '2024-01-01' FROM sel_events WHERE user_id = 1 ORDER BY id

SELECT CASE WHEN country = 'de' THEN 1 ELSE 0 END, COALESCE(country, '??'), NULLIF(country, 'de'), GREATEST(1, user_id) FROM sel_users WHERE user_id = 1

SELECT email LIKE '%x.org', email ~ '^[a-c]@', email ILIKE 'A@%', split_part(email, '@', 2), regexp_replace(email, '@.*', '') FROM sel_users WHERE user_id = 1

SELECT country, country::text || '|', length(country) FROM sel_users WHERE user_id = 1

SELECT u FROM sel_users u WHERE user_id = 3

SELECT ROW(user_id, email) FROM sel_users WHERE user_id = 3

SELECT (u).email FROM sel_users u WHERE u.user_id = 3

SELECT 1 FROM sel_users WHERE user_id = 3

SELECT FROM sel_users WHERE user_id = 3

SELECT NULL, 'unknown', 1.5, true, 1::smallint FROM sel_users WHERE user_id = 3

SELECT user_id AS "Key", user_id::text, user_id::numeric(10,1), user_id::float8 FROM sel_users WHERE user_id = 3

SELECT nosuch FROM sel_users WHERE user_id = 3

SELECT nosuch(email) FROM sel_users WHERE user_id = 3

SELECT email FROM sel_users WHERE user_id = 3 AND email = 5

SELECT 1/0 FROM sel_users WHERE user_id = 3

SELECT count(*), email FROM sel_users WHERE user_id = 3

SELECT amount / 0 FROM sel_events WHERE user_id = 1 AND id = 2

SELECT email FROM sel_users WHERE user_id = 3 ORDER BY 5

SELECT * FROM sel_countries ORDER BY code

SELECT count(*) FROM sel_countries

SELECT * FROM sel_countries TABLESAMPLE SYSTEM (100) ORDER BY code

TABLE sel_countries ORDER BY code

SELECT name FROM sel_countries WHERE code = 'de' LIMIT 1

DROP TABLE sel_users, sel_events, sel_countries
