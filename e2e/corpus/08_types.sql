--- Expressions and types: names, OIDs, type modifiers, text and binary output.

SELECT 1

SELECT 1 AS one, 'a' AS two, NULL AS three

SELECT 1::int2, 1::int4, 1::int8, 1.5::float4, 1.5::float8, 1.50::numeric, 1.50::numeric(10, 3)

SELECT -9223372036854775808, 9223372036854775807, 32768, 1e400, 'NaN'::numeric, 'Infinity'::float8

SELECT true, false, 'x'::char(3), 'x'::varchar(5), 'x'::text, 'x'::name, 'x'::"char", 'x'::bpchar

SELECT '\xdeadbeef'::bytea, E'\\x00ff'::bytea, ''::bytea

SELECT DATE '2024-02-29', TIME '10:11:12.5', TIMETZ '10:11:12+02', TIMESTAMP '2024-02-29 10:11:12.123456', TIMESTAMPTZ '2024-02-29 10:11:12+00', INTERVAL '1 year 2 mons 3 days 04:05:06.7'

SELECT 'infinity'::date, '-infinity'::timestamp, 'epoch'::timestamptz, DATE '0044-03-15 BC'

SELECT TIMESTAMP(2) '2024-01-01 00:00:00.987654', TIMESTAMP '2024-01-01'::timestamp(0), INTERVAL '1 day' DAY TO HOUR, TIME(0) '10:11:12.6'

SELECT '{"a": [1, 2.50, null, "x\ty"], "b": {}}'::json, '{"b": 1, "a": 2, "b": 3}'::jsonb, '{"a": 1}'::jsonb || '{"c": [1]}', jsonb_pretty('{"a": 1}'::jsonb)

SELECT ARRAY[1, 2, 3], ARRAY['a', 'b c', NULL], ARRAY[[1, 2], [3, 4]], '{}'::int[], '[2:3]={7,8}'::int[]

SELECT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, '192.168.0.1/24'::inet, '10.0.0.0/8'::cidr, '08:00:2b:01:02:03'::macaddr, B'1010', B'1010'::varbit

SELECT '(1,2)'::point, '((0,0),(1,1))'::box, '<(0,0),1>'::circle, '[1,10)'::int4range, '{[1,2],[5,7)}'::int4multirange, '(,2024-01-01)'::daterange

SELECT 'a & b'::tsquery, to_tsvector('simple', 'the quick fox'), '1.23'::money IS NOT NULL, '<a>b</a>'::xml

SELECT ROW(1, 'a', NULL), (1, 2) = (1, 2), ROW(1, NULL) IS NULL

SELECT 1 + 2 * 3, 7 / 2, -7 % 3, 2 ^ 10, |/ 16, 5 & 3, 5 | 3, 5 # 3, ~5, 1 << 4, 'a' || 'b' || NULL

SELECT 1 < 2, 1 = 1, 1 <> 1, 1 BETWEEN 0 AND 2, NULL IS NULL, NULL = NULL, 1 IS DISTINCT FROM NULL, true AND NULL, NOT false

SELECT length('ünï'), upper('straße'), substring('hello' FROM 2 FOR 3), position('l' IN 'hello'), trim(BOTH 'x' FROM 'xxaxx'), overlay('abcdef' PLACING 'ZZ' FROM 2), lpad('7', 3, '0'), repeat('ab', 3), reverse('abc'), md5('x'), format('%s-%I-%L', 1, 'A b', 'c''d')

SELECT E'\101\x41\u0041\U00000041', E'a\'b', U&'\0041', 'a\b', $$x$$, $q$y$q$

SELECT CASE 1 WHEN 1 THEN 'one' WHEN 2 THEN 'two' END, CASE WHEN false THEN 1 END

SELECT extract(epoch FROM TIMESTAMPTZ '2024-01-01 00:00:00+00'), date_part('dow', DATE '2024-01-01'), DATE '2024-01-31' + INTERVAL '1 month', TIMESTAMP '2024-01-01' AT TIME ZONE 'UTC', make_date(2024, 2, 29), justify_hours(INTERVAL '25 hours')

SELECT * FROM generate_series(1, 10, 3) AS g

SELECT * FROM generate_series(DATE '2024-01-01', DATE '2024-01-03', INTERVAL '1 day') AS d

SELECT * FROM unnest(ARRAY[1, 2], ARRAY['a', 'b', 'c']) AS u (x, y)

SELECT * FROM json_to_recordset('[{"a": 1, "b": "x"}, {"a": 2}]') AS r (a int, b text)

SELECT * FROM regexp_matches('a1b22', '([a-z])(\d+)', 'g')

SELECT * FROM string_to_table('a,b,c', ',')

SELECT generate_series(1, 2), generate_series(1, 3)

SELECT now() = current_timestamp, current_date = now()::date, pg_typeof(now()), localtimestamp IS NOT NULL

SELECT current_user, session_user, current_database(), current_schema(), current_catalog

SELECT pg_typeof(1), pg_typeof(1.0), pg_typeof('x'), pg_typeof(NULL)

SELECT 'pg_class'::regclass, 'int4'::regtype, 'lower(text)'::regprocedure

SELECT hashint8extended(1, 8816678312871386365), hashtextextended('a', 8816678312871386365), uuid_hash_extended('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 8816678312871386365)

VALUES (1, 'a'), (2, 'b')

VALUES (1), (2) ORDER BY 1 DESC LIMIT 1

SELECT 1 WHERE false

SELECT

SELECT 1 AS "a.b", 2 AS "ünï", 3 AS " ", 4 AS "x""y"

SELECT 1 AS ""

-- params: 5
SELECT $1::int + 1

-- params: 5 | 6
SELECT $2::int - $1::int, $1::text

-- params: héllo | \N | 1.5 | t | 2024-02-29 | {1,2}
SELECT $1::text, $2::text, $3::numeric, $4::bool, $5::date, $6::int[]

-- params: 2024-02-29 10:11:12.5 | 2024-02-29 10:11:12+00 | 1 day 02:00:00 | a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11
SELECT $1::timestamp, $2::timestamptz = '2024-02-29 10:11:12+00', $3::interval, $4::uuid

-- params: {"a": [1, 2]} | {"b": null} | 1.25 | 3.5
SELECT $1::json, $2::jsonb, $3::float8, $4::float4

-- params: 7 | -7 | x
SELECT $1::int2, $2::int8, $3::varchar(5)

-- params: 1
SELECT * FROM generate_series(1, 3) g WHERE g > $1

SELECT 'x'::int

SELECT 1::nosuchtype

SELECT '2024-13-01'::date

SELECT 99999999999::int

SELECT 40000::int2

SELECT '{1,2'::int[]

SELECT '{"a":'::json

SELECT 'zz'::uuid

SELECT 1.5 / 0

SELECT sqrt(-1)

SELECT nosuchfunction(1)

SELECT lower(1, 2)

SELECT 1 + 'a'::text

SELECT E'\xff'

SELECT "nosuch"

SELECT 'unterminated

SELECT * FROM generate_series(1, 3) g JOIN generate_series(2, 4) h ON g = h ORDER BY 1

SELECT sum(x), avg(x), count(*) FROM generate_series(1, 100) AS x

SELECT x, sum(x) OVER (ORDER BY x ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM generate_series(1, 5) AS x ORDER BY x

SELECT width_bucket(5, 0, 10, 4), round(2.5), round(2.345, 2), trunc(-1.7), ceil(1.2), power(2, 0.5), div(7, 2), mod(7, 3), gcd(12, 18), factorial(5)

SELECT encode('\x0102'::bytea, 'base64'), decode('AQI=', 'base64'), convert_from('\xc3a9'::bytea, 'UTF8'), sha256('x'::bytea), get_byte('\x0102'::bytea, 1)

SELECT pg_sleep(0)

SELECT void FROM (SELECT pg_notify IS NULL AS void FROM (SELECT ''::text AS pg_notify) x) y

SELECT set_config('e2e.custom', 'v', true)

SELECT current_setting('server_encoding'), current_setting('nosuch.setting', true)

SELECT current_setting('nosuch.setting')

SELECT xpath('/a/b/text()', '<a><b>1</b></a>'::xml)

SELECT ('{1,2,3}'::int[])[2:3], array_agg(x ORDER BY x DESC) FROM unnest(ARRAY[3, 1, 2]) AS x
