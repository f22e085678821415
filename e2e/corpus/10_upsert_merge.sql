--- INSERT … ON CONFLICT and MERGE.

DROP TABLE IF EXISTS ups, ups_ref CASCADE

CREATE TABLE ups (user_id bigint NOT NULL, slot int NOT NULL, n int DEFAULT 1, t text, PRIMARY KEY (user_id, slot))

CREATE TABLE ups_ref (id int PRIMARY KEY, n int)

INSERT INTO ups VALUES (1, 1, 1, 'first') ON CONFLICT DO NOTHING

INSERT INTO ups VALUES (1, 1, 2, 'second') ON CONFLICT DO NOTHING

INSERT INTO ups VALUES (1, 1, 2, 'second') ON CONFLICT DO NOTHING RETURNING *

INSERT INTO ups VALUES (1, 1, 5, 'third') ON CONFLICT (user_id, slot) DO UPDATE SET n = ups.n + excluded.n, t = excluded.t RETURNING *

INSERT INTO ups AS u (user_id, slot) VALUES (1, 1) ON CONFLICT ON CONSTRAINT ups_pkey DO UPDATE SET n = u.n + 1 WHERE u.n < 100 RETURNING u.n

INSERT INTO ups (user_id, slot) VALUES (1, 1) ON CONFLICT (user_id, slot) DO UPDATE SET n = 0 WHERE ups.n > 1000 RETURNING n

INSERT INTO ups (user_id, slot, t) VALUES (2, 1, 'x'), (3, 1, 'y'), (1, 1, 'z'), (4, 1, 'w') ON CONFLICT (user_id, slot) DO UPDATE SET t = excluded.t || '!'

--- Over several shards nobody can tell which rows were kept out, nor put the others in order.

-- expect: refused
INSERT INTO ups (user_id, slot, t) VALUES (2, 1, 'x'), (3, 1, 'y'), (1, 1, 'z'), (4, 1, 'w') ON CONFLICT (user_id, slot) DO UPDATE SET t = excluded.t || '!' RETURNING user_id, t

INSERT INTO ups (user_id, slot, t) VALUES (2, 1, 'x'), (9, 1, 'new') ON CONFLICT DO NOTHING

-- expect: refused
INSERT INTO ups (user_id, slot, t) VALUES (2, 1, 'x'), (3, 1, 'x'), (10, 1, 'new'), (11, 1, 'new'), (12, 1, 'new') ON CONFLICT DO NOTHING RETURNING user_id

INSERT INTO ups (user_id, slot) VALUES (2, 1), (2, 1) ON CONFLICT (user_id, slot) DO UPDATE SET n = 3

INSERT INTO ups (user_id, slot) VALUES (2, 1) ON CONFLICT (t) DO NOTHING

INSERT INTO ups (user_id, slot) VALUES (2, 1) ON CONFLICT (nosuch) DO NOTHING

INSERT INTO ups (user_id, slot) VALUES (2, 1) ON CONFLICT DO UPDATE SET n = 1

-- params: 5 | 1 | 10
INSERT INTO ups (user_id, slot, n) VALUES ($1, $2, $3) ON CONFLICT (user_id, slot) DO UPDATE SET n = ups.n + $3 RETURNING n

-- params: 5 | 1 | 10
INSERT INTO ups (user_id, slot, n) VALUES ($1, $2, $3) ON CONFLICT (user_id, slot) DO UPDATE SET n = ups.n + $3 RETURNING n

INSERT INTO ups_ref VALUES (1, 1), (2, 2) ON CONFLICT (id) DO UPDATE SET n = excluded.n + 100 RETURNING *

INSERT INTO ups_ref VALUES (1, 1), (3, 3) ON CONFLICT (id) DO UPDATE SET n = excluded.n + 100 RETURNING *

MERGE INTO ups u USING (VALUES (1, 1, 42)) AS s (uid, slot, n) ON u.user_id = 1 AND u.slot = s.slot WHEN MATCHED THEN UPDATE SET n = s.n

MERGE INTO ups u USING (SELECT id, n FROM ups_ref) r ON u.user_id = 1 AND u.slot = r.id WHEN MATCHED AND r.n > 1000 THEN DELETE WHEN MATCHED THEN UPDATE SET t = 'merged'

MERGE INTO ups_ref r USING (VALUES (1, 5), (8, 6)) AS s (id, n) ON r.id = s.id WHEN MATCHED THEN UPDATE SET n = s.n WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.n)

MERGE INTO ups u USING nosuch s ON u.user_id = 1 WHEN MATCHED THEN DELETE

SELECT * FROM ups

SELECT * FROM ups_ref ORDER BY id

DROP TABLE ups, ups_ref
