--- Changes of rows that are there.

DROP TABLE IF EXISTS upd, upd_child, upd_ref CASCADE

CREATE TABLE upd (user_id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, t text, CHECK (n < 1000))

CREATE TABLE upd_child (user_id bigint NOT NULL, id int NOT NULL, n int, PRIMARY KEY (user_id, id))

CREATE TABLE upd_ref (id int PRIMARY KEY, t text)

INSERT INTO upd VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c'), (4, 4, 'd'), (5, 5, 'e'), (6, 6, 'f'), (7, 7, 'g'), (8, 8, 'h')

INSERT INTO upd_child VALUES (1, 1, 10), (1, 2, 20), (2, 1, 30), (3, 1, 40)

INSERT INTO upd_ref VALUES (1, 'x'), (2, 'y'), (3, 'z')

UPDATE upd SET n = n + 1 WHERE user_id = 1

UPDATE upd SET n = 50, t = 'both' WHERE user_id = 2 RETURNING *

UPDATE upd AS u SET (n, t) = (60, 'row') WHERE u.user_id = 3 RETURNING u.n, u.t

UPDATE upd SET n = DEFAULT WHERE user_id = 3 RETURNING n

UPDATE upd SET t = NULL WHERE user_id = 3 AND n = 999

UPDATE upd SET n = c.n FROM upd_child c WHERE c.user_id = upd.user_id AND upd.user_id = 1 AND c.id = 2 RETURNING upd.n, c.id

UPDATE upd SET t = r.t FROM upd_ref r WHERE r.id = 1 AND upd.user_id = 1 RETURNING upd.t

UPDATE upd SET n = (SELECT max(n) FROM upd_child c WHERE c.user_id = upd.user_id) WHERE user_id = 1 RETURNING n

UPDATE upd SET user_id = 1 WHERE user_id = 1

UPDATE upd SET user_id = user_id WHERE user_id = 2 RETURNING user_id

-- params: 4 | 77
UPDATE upd SET n = $2 WHERE user_id = $1 RETURNING user_id, n

-- params: new | 4
UPDATE upd SET t = $1 WHERE user_id = $2

UPDATE upd SET n = 5000 WHERE user_id = 4

UPDATE upd SET n = NULL WHERE user_id = 4

UPDATE upd SET nosuch = 1 WHERE user_id = 4

UPDATE upd SET n = 'x' WHERE user_id = 4

UPDATE upd SET n = 1/0 WHERE user_id = 4

UPDATE upd_nosuch SET n = 1 WHERE user_id = 4

UPDATE upd SET n = 100 + user_id WHERE user_id IN (5, 6, 7)

UPDATE upd SET t = 'all'

UPDATE upd SET t = 'some' WHERE n > 100 RETURNING user_id, t

UPDATE upd SET n = 2000 WHERE user_id IN (5, 6, 7, 8)

SELECT user_id, n, t FROM upd

UPDATE upd_ref SET t = t || '!' WHERE id = 2 RETURNING *

UPDATE upd_ref SET t = upper(t)

UPDATE upd_ref SET id = 1 WHERE id = 2

SELECT * FROM upd_ref ORDER BY id

DELETE FROM upd_child WHERE user_id = 1 AND id = 1

DELETE FROM upd_child WHERE user_id = 1 RETURNING id, n

DELETE FROM upd_child WHERE user_id = 1

DELETE FROM upd USING upd_child c WHERE c.user_id = upd.user_id AND upd.user_id = 2 RETURNING upd.user_id, c.n

-- params: 3
DELETE FROM upd WHERE user_id = $1 RETURNING user_id

-- params: {4,5}
DELETE FROM upd WHERE user_id = ANY ($1) RETURNING user_id

DELETE FROM upd WHERE user_id IN (6, 7)

DELETE FROM upd WHERE nosuch = 1

DELETE FROM upd_ref WHERE id = 3 RETURNING t

DELETE FROM upd_ref

SELECT * FROM upd_ref

DELETE FROM upd_child

SELECT * FROM upd

DELETE FROM upd

SELECT * FROM upd_child

DROP TABLE upd, upd_child, upd_ref
