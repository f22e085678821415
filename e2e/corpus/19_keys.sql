--- Keys of every type: text, varchar, uuid, int2, int4; and values that only look alike.

DROP TABLE IF EXISTS key_text, key_varchar, key_uuid, key_int, key_small, key_other CASCADE

CREATE TABLE key_text (user_id text PRIMARY KEY, v int)

CREATE TABLE key_varchar (user_id varchar(30) NOT NULL, v int)

CREATE TABLE key_uuid (user_id uuid PRIMARY KEY, v int)

CREATE TABLE key_int (user_id int PRIMARY KEY, v int)

CREATE TABLE key_small (user_id smallint PRIMARY KEY, v int)

CREATE TABLE key_other (user_id bigint PRIMARY KEY, v int)

INSERT INTO key_text VALUES ('ann', 1), ('Ann', 2), ('ann ', 3), ('', 4), ('ünïcödé', 5), ('1', 6), ('01', 7), ('it''s', 8), (E'tab\t', 9), ('null', 10), ('日本', 11)

INSERT INTO key_varchar VALUES ('bob', 1), ('Bob', 2), ('bob  ', 3), ('x', 4), ('y', 5)

INSERT INTO key_uuid VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 1), ('A1EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 2), ('{a2eebc99-9c0b4ef8-bb6d6bb9bd380a11}', 3), ('a3eebc999c0b4ef8bb6d6bb9bd380a11', 4), ('00000000-0000-0000-0000-000000000000', 5), ('ffffffff-ffff-ffff-ffff-ffffffffffff', 6)

INSERT INTO key_int VALUES (1, 1), (-1, 2), (2147483647, 3), (-2147483648, 4), (0, 5)

INSERT INTO key_small VALUES (1, 1), (-1, 2), (32767, 3), (-32768, 4), (0, 5)

INSERT INTO key_other VALUES (1, 1), (-1, 2), (2147483647, 3), (-2147483648, 4), (0, 5), (2147483648, 6)

SELECT v FROM key_text WHERE user_id = 'ann'

SELECT v FROM key_text WHERE user_id = 'Ann'

SELECT v FROM key_text WHERE user_id = 'ann '

SELECT v FROM key_text WHERE user_id = ''

SELECT v FROM key_text WHERE user_id = 'ünïcödé'

SELECT v FROM key_text WHERE user_id = '1'

SELECT v FROM key_text WHERE user_id = 'it''s'

SELECT v FROM key_text WHERE user_id = E'it\'s'

SELECT v FROM key_text WHERE user_id = $$it's$$

SELECT v FROM key_text WHERE user_id = E'tab\t'

SELECT v FROM key_text WHERE user_id = E'\u65e5\u672c'

-- expect: either
SELECT v FROM key_text WHERE user_id = U&'\65e5\672c'

SELECT v FROM key_text WHERE user_id = 'an' 'n'

SELECT v FROM key_text WHERE user_id = 'an' || 'n'

SELECT v FROM key_text WHERE user_id = 'ann'::text

SELECT v FROM key_text WHERE user_id = 'ann'::varchar

SELECT v FROM key_text WHERE user_id = 'annabel'::varchar(3)

SELECT v FROM key_text WHERE user_id = 'ann'::name

SELECT v FROM key_text WHERE user_id = 'ann'::char(5)

SELECT v FROM key_text WHERE user_id = 'ann' COLLATE "C"

SELECT v FROM key_text WHERE lower(user_id) = 'ann'

SELECT v FROM key_text WHERE user_id LIKE 'ann%'

SELECT v FROM key_text WHERE user_id IN ('ann', 'Ann', 'nobody')

SELECT v FROM key_text WHERE user_id = ANY ('{ann,"it''s","",NULL,null}')

SELECT v FROM key_text WHERE user_id = ANY (ARRAY['ann', '日本'])

SELECT v FROM key_text WHERE user_id = 1

SELECT v FROM key_text WHERE user_id = true

-- params: ann
SELECT v FROM key_text WHERE user_id = $1

-- params: it's
SELECT v FROM key_text WHERE user_id = $1::varchar

-- params: {ann,"",ünïcödé}
SELECT v FROM key_text WHERE user_id = ANY ($1)

-- params: 日本 | \N
SELECT v FROM key_text WHERE user_id IN ($1, $2)

SELECT v FROM key_varchar WHERE user_id = 'bob'

SELECT v FROM key_varchar WHERE user_id = 'bob  '

SELECT v FROM key_varchar WHERE user_id = 'bob'::text

-- params: Bob
SELECT v FROM key_varchar WHERE user_id = $1

INSERT INTO key_varchar VALUES ('longer than thirty characters is refused', 9)

-- expect: refused
INSERT INTO key_varchar VALUES ('longer than thirty characters'::varchar(6), 9) RETURNING user_id

--- Blanks beyond the length are cut when they are stored, so before they are hashed.

-- expect: either
SELECT v FROM key_varchar WHERE user_id = 'x                                        '

SELECT v FROM key_uuid WHERE user_id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'

SELECT v FROM key_uuid WHERE user_id = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'

SELECT v FROM key_uuid WHERE user_id = '{a1eebc999c0b4ef8bb6d6bb9bd380a11}'

SELECT v FROM key_uuid WHERE user_id = 'a2eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid

SELECT v FROM key_uuid WHERE user_id = CAST('a3ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11' AS uuid)

SELECT v FROM key_uuid WHERE user_id = uuid '00000000-0000-0000-0000-000000000000'

SELECT v FROM key_uuid WHERE user_id = 'not-a-uuid'

SELECT v FROM key_uuid WHERE user_id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1'

SELECT v FROM key_uuid WHERE user_id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::text

SELECT v FROM key_uuid WHERE user_id IN ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'ffffffff-ffff-ffff-ffff-ffffffffffff')

-- params: a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11
SELECT v FROM key_uuid WHERE user_id = $1

-- params: a1eebc99-9c0b-4ef8-bb6d-6bb9bd380a11
SELECT v FROM key_uuid WHERE user_id = $1::uuid

-- params: {a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,a1eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}
SELECT v FROM key_uuid WHERE user_id = ANY ($1::uuid[])

INSERT INTO key_uuid VALUES ('not-a-uuid', 1)

SELECT v FROM key_int WHERE user_id = 1

SELECT v FROM key_int WHERE user_id = -1

SELECT v FROM key_int WHERE user_id = -2147483648

SELECT v FROM key_int WHERE user_id = 2147483648

-- expect: either
SELECT v FROM key_int WHERE user_id = 9999999999999999999999

SELECT v FROM key_int WHERE user_id = 1::smallint

SELECT v FROM key_int WHERE user_id = 1::bigint

SELECT v FROM key_int WHERE user_id = 1.0

SELECT v FROM key_int WHERE user_id = 1.5

SELECT v FROM key_int WHERE user_id = 1e0

SELECT v FROM key_int WHERE user_id = 1::numeric

SELECT v FROM key_int WHERE user_id = 1::float8

SELECT v FROM key_int WHERE user_id = '1.0'

SELECT v FROM key_int WHERE user_id = '  1  '

-- expect: either
SELECT v FROM key_int WHERE user_id = '0x1'

SELECT v FROM key_int WHERE user_id = '+1'

SELECT v FROM key_int WHERE user_id = - -1

SELECT v FROM key_int WHERE user_id = -(-1)

SELECT v FROM key_int WHERE user_id = -0

-- params: 1
SELECT v FROM key_int WHERE user_id = $1::bigint

-- params: 2147483648
SELECT v FROM key_int WHERE user_id = $1::bigint

-- params: 1
SELECT v FROM key_int WHERE user_id = $1::numeric

-- params: 1.5
SELECT v FROM key_int WHERE user_id = $1::numeric

-- params: 1
SELECT v FROM key_int WHERE user_id = $1::smallint

-- params: 2147483647
SELECT v FROM key_int WHERE user_id = $1

-- params: -1
SELECT v FROM key_small WHERE user_id = $1

-- params: 40000
SELECT v FROM key_small WHERE user_id = $1::int

SELECT v FROM key_small WHERE user_id = 32767

SELECT v FROM key_small WHERE user_id = 40000

SELECT v FROM key_small WHERE user_id = -32768

SELECT a.v, b.v FROM key_int a JOIN key_other b ON b.user_id = a.user_id WHERE a.user_id = -1

SELECT a.v, b.v FROM key_small a JOIN key_other b ON b.user_id = a.user_id

SELECT a.v, b.v FROM key_text a JOIN key_varchar b ON b.user_id = a.user_id WHERE a.user_id = 'bob'

SELECT v FROM key_other WHERE user_id IN (1, 2147483648)

SELECT v FROM key_other WHERE user_id IN (1::smallint, 2147483648)

UPDATE key_text SET v = v + 100 WHERE user_id = 'ann' RETURNING v

DELETE FROM key_uuid WHERE user_id = 'A0EEBC999C0B4EF8BB6D6BB9BD380A11' RETURNING v

SELECT user_id, v FROM key_text

SELECT user_id, v FROM key_uuid

SELECT user_id, v FROM key_varchar

DROP TABLE key_text, key_varchar, key_uuid, key_int, key_small, key_other
