--- Rows that come in: single, many over the shards, and every way to write a value.

DROP TABLE IF EXISTS ins_rows, ins_small, ins_ref CASCADE

CREATE TABLE ins_rows (user_id bigint NOT NULL, n int DEFAULT 42, t text, at date DEFAULT DATE '2020-02-29', ok boolean, PRIMARY KEY (user_id))

CREATE TABLE ins_small (user_id smallint PRIMARY KEY, x real)

CREATE TABLE ins_ref (id int PRIMARY KEY, label text)

INSERT INTO ins_rows (user_id, n, t) VALUES (1, 10, 'one')

INSERT INTO ins_rows VALUES (2, 20, 'two', '2021-01-01', true) RETURNING *

INSERT INTO ins_rows VALUES (3) RETURNING user_id, n, t, at, ok

INSERT INTO ins_rows (user_id, n, t) VALUES (4, DEFAULT, NULL) RETURNING n, t

INSERT INTO ins_rows (t, user_id) VALUES ('key is last', 5) RETURNING *

INSERT INTO ins_rows AS r (user_id, t) VALUES (6, 'six') RETURNING r.t AS "alias", r.user_id + 1

INSERT INTO ins_rows (user_id) VALUES (-1), (-2), (-3) RETURNING user_id

INSERT INTO ins_rows (user_id, t) VALUES (9223372036854775807, 'max'), (-9223372036854775808, 'min'), (0, 'zero')

SELECT t FROM ins_rows WHERE user_id = 9223372036854775807

SELECT t FROM ins_rows WHERE user_id = -9223372036854775808

SELECT t FROM ins_rows WHERE user_id = 0

-- expect: either
INSERT INTO ins_rows (user_id) VALUES (9223372036854775808)

-- expect: either
SELECT * FROM ins_rows WHERE user_id = 9223372036854775808

-- rows: ordered
INSERT INTO ins_rows (user_id, t) VALUES (100, 'a'), (101, 'b'), (102, 'c'), (103, 'd'), (104, 'e'), (105, 'f'), (106, 'g'), (107, 'h') RETURNING user_id, t

INSERT INTO ins_rows (user_id, n) VALUES (110, 1 + 1), (111, length('abc')), (112, (3)), (113, DEFAULT), (114, NULL) RETURNING n

INSERT INTO ins_rows (user_id, t) VALUES (120, 'it''s'), (121, E'tab\there\n'), (122, E'\\ back'), (123, $$dollar 'quote' $$), (124, $tag$ $$inner$$ $tag$), (125, U&'d\0061t\+000061') RETURNING t

INSERT INTO ins_rows (user_id, t) VALUES (130, 'ünïcödé'), (131, '日本語'), (132, '🐘🐘'), (133, E'\u00e9'), (134, '') RETURNING t, length(t), octet_length(t)

INSERT INTO ins_rows (user_id, t) VALUES (140, 'a' 'b')

INSERT INTO ins_rows (user_id, t) VALUES (140, 'a'
'b') RETURNING t

INSERT INTO ins_rows (user_id, t) VALUES (141, 'semi;colon'), (142, '-- no comment'), (143, '/* none */') RETURNING t

INSERT INTO ins_rows (user_id /* the key */, t) -- and a comment ; with a semicolon
VALUES (150, 'commented' /* nested /* comment */ */)

INSERT INTO ins_rows (user_id, t) VALUES ('151', 'quoted key'), ('152'::bigint, 'cast key') RETURNING user_id

INSERT INTO ins_rows (user_id, t) VALUES (153::int, 'int key') RETURNING user_id

INSERT INTO ins_rows (user_id, t) VALUES (CAST(154 AS smallint), 'cast') RETURNING user_id

INSERT INTO ins_rows (user_id, t) VALUES (bigint '155', 'typed') RETURNING user_id

INSERT INTO ins_rows (user_id, t) VALUES (+156, 'plus') RETURNING user_id

INSERT INTO ins_rows (user_id, t) VALUES (- 157, 'minus') RETURNING user_id

INSERT INTO ins_rows (user_id, t) VALUES (' 158 ', 'blanks around')

SELECT t FROM ins_rows WHERE user_id = 158

INSERT INTO ins_rows (user_id) VALUES ('abc')

INSERT INTO ins_rows (user_id) VALUES ('')

-- expect: either
SELECT user_id FROM ins_rows WHERE user_id = 15.0e1

-- params: 160 | sixteen
INSERT INTO ins_rows (user_id, t) VALUES ($1, $2) RETURNING user_id, t

-- params: 161 | \N | \N
INSERT INTO ins_rows (user_id, t, n) VALUES ($1, $2, $3) RETURNING *

-- params: 162 | 163 | shared
INSERT INTO ins_rows (user_id, t) VALUES ($1, $3), ($2, $3) RETURNING user_id, t

-- params: 164 | 165 | 166 | x | y | z
INSERT INTO ins_rows (user_id, t) VALUES ($1, $4), ($2, $5), ($3, $6) RETURNING user_id, t

-- params: 167 | 5
INSERT INTO ins_rows (user_id, n) VALUES ($1::bigint, $2::int + 1) RETURNING n

-- params: -9000000000 | big
INSERT INTO ins_rows (user_id, t) VALUES ($1, $2) RETURNING user_id

INSERT INTO ins_rows (user_id) VALUES (1)

INSERT INTO ins_rows (user_id, n) VALUES (170, 'x')

INSERT INTO ins_rows (user_id, nosuch) VALUES (170, 1)

INSERT INTO ins_nosuch (user_id) VALUES (170)

INSERT INTO ins_rows (user_id, n) VALUES (170)

INSERT INTO ins_rows (user_id) VALUES (170, 1)

INSERT INTO ins_rows (user_id, n) VALUES (170, 1/0)

-- expect: either
INSERT INTO ins_rows (user_id, user_id) VALUES (170, 171)

INSERT INTO ins_rows (user_id, n) VALUES (172, 1), (173, 1/0)

SELECT * FROM ins_rows WHERE user_id IN (170, 171, 172, 173)

--- A duplicate on one shard must take back the rows of the others.

INSERT INTO ins_rows (user_id) VALUES (180), (181), (182), (183), (1), (184)

SELECT user_id FROM ins_rows WHERE user_id IN (180, 181, 182, 183, 184)

INSERT INTO ins_small VALUES (1, 1.5), (-1, 'NaN'), (32767, 'Infinity'), (-32768, 1e-30) RETURNING *

INSERT INTO ins_small VALUES (32768, 1)

SELECT x FROM ins_small WHERE user_id = 32767

SELECT x FROM ins_small WHERE user_id = 70000

-- params: 5 | 2.25
INSERT INTO ins_small VALUES ($1, $2) RETURNING *

INSERT INTO ins_ref VALUES (1, 'x'), (2, 'y') RETURNING *

INSERT INTO ins_ref VALUES (2, 'again')

SELECT * FROM ins_ref ORDER BY id

INSERT INTO ins_ref SELECT g, 'g' || g FROM generate_series(10, 12) g RETURNING id, label

-- params: 20 | twenty
INSERT INTO ins_ref VALUES ($1, $2) RETURNING *

--- Keys that only the server knows: never to be guessed.

-- expect: refused
INSERT INTO ins_rows (user_id) VALUES ((random() * 1000000)::bigint + 5000)

-- expect: refused
INSERT INTO ins_rows (user_id) SELECT user_id + 100000 FROM ins_rows WHERE user_id BETWEEN 1 AND 200

-- expect: refused
INSERT INTO ins_rows (user_id) SELECT g FROM generate_series(300, 310) g

INSERT INTO ins_rows DEFAULT VALUES

INSERT INTO ins_rows (n) VALUES (1)

INSERT INTO ins_rows (user_id) VALUES (NULL)

SELECT user_id, n, t, at, ok FROM ins_rows

DROP TABLE ins_rows, ins_small, ins_ref
