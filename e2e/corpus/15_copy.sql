--- COPY in and out, in text and CSV; the binary format is proven in copy_test.go.

DROP TABLE IF EXISTS cp, cp_text, cp_ref, cp_uuid CASCADE

CREATE TABLE cp (user_id bigint NOT NULL, n int DEFAULT 7, t text, PRIMARY KEY (user_id))

CREATE TABLE cp_text (user_id text NOT NULL, t text)

CREATE TABLE cp_uuid (t text, user_id uuid)

CREATE TABLE cp_ref (id int PRIMARY KEY, t text)

COPY cp FROM STDIN
-- data:
1	10	one
2	20	two
3	\N	\N
-4	40	minus
5	50	tab\there, newline\nthere, back\\slash
6	60	ünïcödé 日本語 🐘
7	70	octal \101 hex \x41

COPY cp (t, user_id) FROM STDIN
-- data:
key is last	8
	9
\N	10

COPY cp FROM STDIN WITH (FORMAT csv)
-- data:
11,110,plain
12,120,"quoted, with comma"
13,130,"with ""quotes"""
14,,
15,150,""
16,160,"two
lines"
"17",170," blanks "

COPY cp FROM STDIN WITH (FORMAT csv, HEADER true)
-- data:
user_id,n,t
18,180,after a header
19,190,again

COPY cp (n, t, user_id) FROM STDIN WITH (FORMAT csv, HEADER, DELIMITER ';', QUOTE '''', ESCAPE '\', NULL 'nil')
-- data:
n;t;user_id
1;'it\'s; quoted';20
nil;nil;21
3;'nil';22

COPY cp FROM STDIN WITH (DELIMITER '|', NULL 'none')
-- data:
23|1|pipe \| escaped
24|none|none

COPY cp FROM STDIN DELIMITER ',' NULL ''
-- data:
25,1,old syntax
26,,

COPY cp FROM STDIN CSV HEADER
-- data:
a,b,c
27,1,old csv

COPY cp FROM STDIN WITH (FORMAT csv, FORCE_NULL (t), FORCE_NOT_NULL (n))
-- data:
28,5,""

COPY cp FROM STDIN
-- data:
29	1	before the end mark
\.

COPY cp FROM STDIN
-- data:

SELECT user_id, n, t FROM cp

SELECT t FROM cp WHERE user_id = 5

SELECT t FROM cp WHERE user_id = 16

COPY cp TO STDOUT

COPY cp (user_id, t) TO STDOUT WITH (FORMAT csv, FORCE_QUOTE (t))

COPY cp TO STDOUT WITH (FORMAT csv, NULL 'nil', DELIMITER ';')

COPY cp TO STDOUT WITH (FORMAT binary)

COPY (SELECT user_id, t FROM cp WHERE user_id = 1) TO STDOUT

COPY (SELECT user_id, t FROM cp WHERE user_id = 1) TO STDOUT WITH (FORMAT csv, HEADER)

COPY (SELECT user_id, t FROM cp WHERE user_id = 1) TO STDOUT WITH (FORMAT binary)

COPY (SELECT g, 'x' || g FROM generate_series(1, 3) g ORDER BY g) TO STDOUT

--- A table over several shards has one header.

COPY cp TO STDOUT WITH (FORMAT csv, HEADER)

--- Errors: nothing of the COPY may stay.

COPY cp FROM STDIN
-- data:
100	1	fine
101	x	not a number

COPY cp FROM STDIN
-- data:
100	1	fine
101	1	fine
1	1	duplicate

COPY cp FROM STDIN
-- data:
100	1
101	1	missing before

COPY cp FROM STDIN
-- data:
100	1	a	too many

COPY cp FROM STDIN
-- data:
\N	1	no key

COPY cp FROM STDIN
-- data:
abc	1	no number

COPY cp FROM STDIN WITH (FORMAT csv)
-- data:
100,1,"unterminated

-- fail: I changed my mind
COPY cp FROM STDIN
-- data:
100	1	never

SELECT user_id FROM cp WHERE user_id >= 100

COPY cp_nosuch FROM STDIN

COPY cp (nosuch) FROM STDIN

COPY cp (user_id, user_id) FROM STDIN

COPY cp FROM STDIN WITH (FORMAT nosuch)

COPY cp FROM STDIN WITH (DELIMITER 'ab')

COPY cp_nosuch TO STDOUT

COPY (SELECT nosuch FROM cp WHERE user_id = 1) TO STDOUT

COPY cp_text FROM STDIN
-- data:
alpha	1
be\tta	2
ga\\mma	3
ünï	4
	5
\x41lpha	6

SELECT t FROM cp_text WHERE user_id = 'alpha'

SELECT t FROM cp_text WHERE user_id = E'be\tta'

SELECT t FROM cp_text WHERE user_id = E'ga\\mma'

SELECT t FROM cp_text WHERE user_id = 'ünï'

SELECT t FROM cp_text WHERE user_id = ''

SELECT t FROM cp_text WHERE user_id = 'Alpha'

COPY cp_text FROM STDIN WITH (FORMAT csv)
-- data:
"quo""ted",1
"new
line",2
 blanks ,3

SELECT t FROM cp_text WHERE user_id = 'quo"ted'

SELECT t FROM cp_text WHERE user_id = E'new\nline'

SELECT t FROM cp_text WHERE user_id = ' blanks '

COPY cp_uuid FROM STDIN
-- data:
a	a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11
b	{B0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}
c	c0eebc999c0b4ef8bb6d6bb9bd380a11

SELECT t FROM cp_uuid WHERE user_id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'

SELECT t FROM cp_uuid WHERE user_id = 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'

SELECT t FROM cp_uuid WHERE user_id = 'c0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'

COPY cp_ref FROM STDIN
-- data:
1	x
2	y

SELECT * FROM cp_ref ORDER BY id

COPY cp_ref FROM STDIN
-- data:
3	z
1	again

SELECT count(*) FROM cp_ref

COPY cp_ref TO STDOUT

BEGIN

COPY cp FROM STDIN
-- data:
200	1	a
201	1	b
202	1	c
203	1	d

SELECT user_id FROM cp WHERE user_id >= 200

ROLLBACK

SELECT user_id FROM cp WHERE user_id >= 200

BEGIN

COPY cp (user_id) FROM STDIN
-- data:
300
301
302

COMMIT

SELECT user_id, n FROM cp WHERE user_id >= 300

--- Nothing can say where these rows belong.

COPY cp (n, t) FROM STDIN
-- data:
1	no key column

DROP TABLE cp, cp_text, cp_ref, cp_uuid
