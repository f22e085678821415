--- Tables by every key rule, and what DDL says on the way.

DROP TABLE IF EXISTS ddl_events, ddl_child, ddl_projects, ddl_kinds, ddl_moods, ddl_dropped CASCADE

DROP TYPE IF EXISTS ddl_mood

CREATE TABLE ddl_projects (id bigint NOT NULL, creator_user_id bigint NOT NULL, name text, PRIMARY KEY (creator_user_id, id))

CREATE TABLE ddl_events (user_id uuid NOT NULL, at timestamptz, payload jsonb DEFAULT '{}')

CREATE TABLE ddl_kinds (id int PRIMARY KEY, label varchar(20) UNIQUE)

CREATE TABLE ddl_projects (id bigint)

CREATE TABLE IF NOT EXISTS ddl_projects (id bigint, creator_user_id bigint)

CREATE TABLE ddl_bad (user_id bigint, x nosuchtype)

CREATE TABLE ddl_bad (user_id bigint, user_id bigint)

ALTER TABLE ddl_projects ADD COLUMN budget numeric(10, 2) DEFAULT 0.5

ALTER TABLE ddl_projects ADD COLUMN IF NOT EXISTS budget numeric(10, 2)

ALTER TABLE ddl_projects ADD CONSTRAINT ddl_budget_positive CHECK (budget >= 0)

ALTER TABLE ddl_projects RENAME COLUMN name TO title

ALTER TABLE ddl_projects ALTER COLUMN title SET DEFAULT 'untitled'

ALTER TABLE ddl_projects ALTER COLUMN title TYPE varchar(40)

ALTER TABLE ddl_nosuch ADD COLUMN x int

ALTER TABLE IF EXISTS ddl_nosuch ADD COLUMN x int

CREATE INDEX ddl_projects_title ON ddl_projects (lower(title))

CREATE UNIQUE INDEX IF NOT EXISTS ddl_projects_title ON ddl_projects (creator_user_id, title)

CREATE INDEX CONCURRENTLY ddl_events_at ON ddl_events (at)

DROP INDEX CONCURRENTLY ddl_events_at

COMMENT ON TABLE ddl_projects IS 'what users make'

COMMENT ON COLUMN ddl_projects.title IS 'shown; it''s short'

SELECT obj_description('ddl_projects'::regclass), col_description('ddl_projects'::regclass, 3)

INSERT INTO ddl_projects (id, creator_user_id) VALUES (1, 77) RETURNING *

SELECT * FROM ddl_projects WHERE creator_user_id = 77

INSERT INTO ddl_projects (id, creator_user_id, budget) VALUES (2, 77, -1)

CREATE TYPE ddl_mood AS ENUM ('sad', 'ok', 'happy')

CREATE TABLE ddl_moods (user_id bigint PRIMARY KEY, mood ddl_mood NOT NULL)

INSERT INTO ddl_moods VALUES (1, 'happy'), (2, 'sad'), (3, 'ok')

-- params: 1 | ok
SELECT user_id, mood, mood > $2 AS more FROM ddl_moods WHERE user_id = $1

SELECT mood FROM ddl_moods WHERE user_id IN (1, 2, 3)

INSERT INTO ddl_moods VALUES (4, 'angry')

ALTER TYPE ddl_mood ADD VALUE IF NOT EXISTS 'furious' AFTER 'ok'

INSERT INTO ddl_moods VALUES (4, 'furious') RETURNING mood

CREATE TABLE ddl_child (user_id bigint NOT NULL, project bigint, note text, FOREIGN KEY (user_id, project) REFERENCES ddl_projects (creator_user_id, id) ON DELETE CASCADE)

INSERT INTO ddl_child VALUES (77, 1, 'there is one')

INSERT INTO ddl_child VALUES (77, 99, 'there is none')

DELETE FROM ddl_projects WHERE creator_user_id = 77 AND id = 1

SELECT count(*) FROM ddl_child WHERE user_id = 77

CREATE TABLE ddl_short (user_id bigint REFERENCES ddl_moods, n int REFERENCES ddl_kinds)

DROP TABLE ddl_short

CREATE VIEW ddl_view AS SELECT creator_user_id, id, upper(title) AS title FROM ddl_projects

INSERT INTO ddl_projects (id, creator_user_id, title) VALUES (5, 80, 'seen')

SELECT * FROM ddl_view WHERE creator_user_id = 80

CREATE OR REPLACE VIEW ddl_view AS SELECT creator_user_id, id, upper(title) AS title, budget FROM ddl_projects

SELECT title, budget FROM ddl_view v WHERE v.creator_user_id = 80

DROP VIEW ddl_view

DROP VIEW ddl_view

CREATE FUNCTION ddl_double(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT n * 2'

SELECT ddl_double(21)

SELECT ddl_double(id) FROM ddl_projects WHERE creator_user_id = 80

CREATE FUNCTION ddl_atomic(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT a + b; END

SELECT ddl_atomic(2, 3)

CREATE OR REPLACE FUNCTION ddl_body(x text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $body$
BEGIN
  IF x = '' THEN RAISE EXCEPTION 'empty; not allowed' USING ERRCODE = '22023', HINT = 'say something'; END IF;
  RAISE NOTICE 'body of %', x;
  RETURN x || ';' || x;
END $body$

SELECT ddl_body('a')

SELECT ddl_body('')

DROP FUNCTION ddl_double(bigint), ddl_atomic(int, int), ddl_body(text)

DROP FUNCTION ddl_double(bigint)

CREATE TABLE ddl_dropped (user_id int)

ALTER TABLE ddl_dropped RENAME TO ddl_renamed

INSERT INTO ddl_renamed VALUES (1)

SELECT * FROM ddl_renamed WHERE user_id = 1

DROP TABLE ddl_dropped

DROP TABLE ddl_renamed

DROP TABLE ddl_renamed

BEGIN

CREATE TABLE ddl_rolled (user_id bigint)

INSERT INTO ddl_rolled VALUES (1)

SELECT * FROM ddl_rolled WHERE user_id = 1

ROLLBACK

SELECT * FROM ddl_rolled WHERE user_id = 1

CREATE SCHEMA ddl_schema

CREATE TABLE ddl_schema.t (user_id bigint, x int)

INSERT INTO ddl_schema.t VALUES (1, 2)

SELECT x FROM ddl_schema.t WHERE user_id = 1

SELECT t.x FROM "ddl_schema"."t" WHERE t.user_id = 1

DROP SCHEMA ddl_schema

DROP SCHEMA ddl_schema CASCADE

CREATE TABLE "ddl Quoted" ("user_id" bigint, "Weird "" Name" text, "select" int)

INSERT INTO "ddl Quoted" VALUES (7, 'x', 1)

SELECT "Weird "" Name", "select" FROM "ddl Quoted" WHERE "user_id" = 7

DROP TABLE "ddl Quoted"

GRANT SELECT ON ddl_kinds TO PUBLIC

REVOKE SELECT ON ddl_kinds FROM PUBLIC

DROP TABLE ddl_projects

DROP TABLE ddl_events, ddl_child, ddl_projects, ddl_kinds, ddl_moods CASCADE

DROP TYPE ddl_mood
