--- The tables of the README: users, projects and events, joined where their rows live together.

DROP TABLE IF EXISTS users, projects, events, plans CASCADE

CREATE TABLE users (id bigint PRIMARY KEY, email text)

CREATE TABLE projects (id bigint NOT NULL, creator_user_id bigint NOT NULL REFERENCES users (id), name text NOT NULL, plan int, PRIMARY KEY (creator_user_id, id))

CREATE TABLE events (user_id bigint NOT NULL, id bigint NOT NULL, project_id bigint, what text, PRIMARY KEY (user_id, id))

CREATE TABLE plans (id int PRIMARY KEY, title text)

INSERT INTO plans VALUES (1, 'free'), (2, 'paid')

INSERT INTO users VALUES (1, 'ann@x'), (2, 'bob@x'), (3, 'cyd@x'), (4, 'dan@x'), (5, 'eve@x')

INSERT INTO projects VALUES (10, 1, 'p10', 1), (11, 1, 'p11', 2), (20, 2, 'p20', 1), (30, 3, 'p30', NULL), (31, 3, 'p31', 2), (50, 5, 'p50', 9)

INSERT INTO events VALUES (1, 1, 10, 'open'), (1, 2, 11, 'close'), (1, 3, NULL, 'login'), (2, 1, 20, 'open'), (3, 1, 30, 'open'), (6, 1, 60, 'ghost')

INSERT INTO projects VALUES (99, 404, 'orphan', 1)

SELECT u.email, p.name FROM users u JOIN projects p ON p.creator_user_id = u.id WHERE u.id = 1

SELECT u.email, p.name FROM users u JOIN projects p ON p.creator_user_id = u.id WHERE p.creator_user_id = 1 ORDER BY p.id

SELECT u.email, p.name FROM users u, projects p WHERE u.id = p.creator_user_id AND u.id = 3 ORDER BY p.name

SELECT u.email, p.name, e.what FROM users u JOIN projects p ON p.creator_user_id = u.id JOIN events e ON e.user_id = p.creator_user_id AND e.project_id = p.id WHERE u.id = 1 ORDER BY e.id

SELECT u.email, p.name FROM users u LEFT JOIN projects p ON p.creator_user_id = u.id AND p.id = 404 WHERE u.id = 4

SELECT u.email, p.name FROM projects p RIGHT JOIN users u ON p.creator_user_id = u.id WHERE u.id = 4

-- expect: either
SELECT u.id, e.what FROM users u FULL JOIN events e ON e.user_id = u.id AND u.id = 1 WHERE u.id = 1 OR e.user_id = 1

SELECT u.email, p.name FROM users u JOIN projects p ON p.creator_user_id = u.id AND u.id = 5

SELECT u.email, p.name FROM users u CROSS JOIN projects p WHERE u.id = 1 AND p.creator_user_id = 1 ORDER BY 2

SELECT p.name, q.name FROM projects p JOIN projects q USING (creator_user_id) WHERE creator_user_id = 3 ORDER BY 1, 2

SELECT name, title FROM projects JOIN plans ON plans.id = projects.plan WHERE creator_user_id = 1 ORDER BY 1

SELECT name, title FROM plans RIGHT JOIN projects ON plans.id = projects.plan WHERE creator_user_id = 3 ORDER BY 1

SELECT title, name FROM plans LEFT JOIN projects ON plans.id = projects.plan AND creator_user_id = 1 ORDER BY 1, 2

SELECT title FROM plans NATURAL JOIN (SELECT plan AS id FROM projects WHERE creator_user_id = 2) p

SELECT u.email, n.c FROM users u, LATERAL (SELECT count(*) AS c FROM projects p WHERE p.creator_user_id = u.id) n WHERE u.id = 3

SELECT u.email, last.what FROM users u LEFT JOIN LATERAL (SELECT what FROM events e WHERE e.user_id = u.id ORDER BY e.id DESC LIMIT 1) last ON true WHERE u.id = 1

SELECT u.email FROM users u WHERE u.id = 1 AND EXISTS (SELECT FROM events e WHERE e.user_id = u.id AND e.what = 'open')

SELECT u.email FROM users u WHERE u.id = 2 AND NOT EXISTS (SELECT FROM events e WHERE e.user_id = 2 AND e.what = 'close')

SELECT email, (SELECT count(*) FROM projects p WHERE p.creator_user_id = u.id) AS n FROM users u WHERE id = 1

SELECT email FROM users WHERE id = 1 AND id IN (SELECT creator_user_id FROM projects WHERE creator_user_id = 1)

-- params: 1
SELECT u.email, p.name FROM users u JOIN projects p ON p.creator_user_id = u.id WHERE u.id = $1 ORDER BY p.id

-- params: 1 | 10
SELECT e.what FROM events e JOIN projects p ON p.creator_user_id = e.user_id AND p.id = e.project_id WHERE e.user_id = $1 AND p.id = $2

-- params: 3
SELECT u.email FROM users u WHERE u.id = $1 AND EXISTS (SELECT FROM projects p WHERE p.creator_user_id = $1)

SELECT u.email, p.name FROM users u JOIN projects p ON p.creator_user_id = u.id

SELECT u.email, p.name FROM users u LEFT JOIN projects p ON p.creator_user_id = u.id

-- expect: either
SELECT u.email, p.name FROM users u FULL JOIN projects p ON p.creator_user_id = u.id

SELECT u.email, e.what FROM users u LEFT JOIN events e ON e.user_id = u.id AND u.id = 1

SELECT u.email, p.name, title FROM users u JOIN projects p ON p.creator_user_id = u.id LEFT JOIN plans ON plans.id = p.plan

SELECT u.email FROM users u WHERE EXISTS (SELECT FROM events e WHERE e.user_id = u.id)

SELECT u.email FROM users u WHERE NOT EXISTS (SELECT FROM events e WHERE e.user_id = u.id)

SELECT u.email, p.name FROM users u JOIN projects p ON p.creator_user_id = u.id WHERE u.id IN (1, 2, 3)

SELECT u.email FROM users u JOIN projects p ON p.creator_user_id = u.id WHERE nosuch = 1

SELECT id FROM users u JOIN projects p ON p.creator_user_id = u.id WHERE u.id = 1

DELETE FROM users WHERE id = 1

DELETE FROM events WHERE user_id = 6

CREATE VIEW user_projects AS SELECT u.id AS uid, u.email, p.name FROM users u JOIN projects p ON p.creator_user_id = u.id

SELECT email, name FROM user_projects WHERE uid = 1 ORDER BY name

SELECT email, name FROM user_projects

DROP VIEW user_projects

--- Joins that no shard can answer alone: peers give the part that one shard, or each shard for itself, sees.

SELECT u.email, p.name FROM users u JOIN projects p ON p.id = u.id

SELECT u.email, p.name FROM users u JOIN projects p ON p.name = u.email

SELECT u.email, p.name FROM users u, projects p

SELECT u.email, p.name FROM users u CROSS JOIN projects p WHERE u.id = 1

SELECT u.email, e.what FROM users u JOIN events e ON e.user_id <> u.id

SELECT a.email, b.email FROM users a JOIN users b ON b.id = a.id + 1

SELECT title, name FROM plans LEFT JOIN projects ON plans.id = projects.plan

SELECT title, name FROM projects RIGHT JOIN plans ON plans.id = projects.plan

SELECT title, name FROM plans FULL JOIN projects ON plans.id = projects.plan

SELECT title FROM plans WHERE EXISTS (SELECT FROM projects WHERE projects.plan = plans.id)

SELECT title FROM plans WHERE id NOT IN (SELECT plan FROM projects WHERE plan IS NOT NULL)

SELECT u.email FROM users u WHERE EXISTS (SELECT FROM events WHERE what = 'ghost')

SELECT u.email FROM users u WHERE u.id = 1 AND EXISTS (SELECT FROM events WHERE what = 'open')

SELECT email FROM users WHERE id = (SELECT max(user_id) FROM events WHERE what = 'open')

SELECT email FROM users WHERE id IN (SELECT id FROM projects)

SELECT email, (SELECT count(*) FROM events) FROM users WHERE id = 1

SELECT u.email, e.what FROM users u LEFT JOIN events e ON e.user_id = 1

SELECT u.email, n.c FROM users u, LATERAL (SELECT count(*) AS c FROM projects p WHERE p.id > u.id) n WHERE u.id = 1

SELECT p.name, q.name FROM projects p JOIN projects q ON p.plan = q.plan WHERE p.creator_user_id = 1

SELECT u.email, p.name FROM users u JOIN projects p ON p.creator_user_id = u.id OR p.plan = 1 WHERE u.id = 1

DROP TABLE users, projects, events, plans
