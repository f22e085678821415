--- What psql's backslash commands, ORMs and drivers ask of the catalogs.

DROP TABLE IF EXISTS cat_t, cat_r CASCADE

CREATE TABLE cat_t (user_id bigint NOT NULL, id int, name varchar(30) DEFAULT 'x', price numeric(8, 2), tags text[], PRIMARY KEY (user_id, id))

CREATE TABLE cat_r (id int PRIMARY KEY, label text UNIQUE NOT NULL)

CREATE INDEX cat_t_name ON cat_t (name)

SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public' AND table_name LIKE 'cat\_%' ORDER BY 1

SELECT column_name, ordinal_position, column_default, is_nullable, data_type, character_maximum_length, numeric_precision, numeric_scale, udt_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'cat_t' ORDER BY ordinal_position

SELECT constraint_name, constraint_type FROM information_schema.table_constraints WHERE table_name = 'cat_r' AND constraint_type <> 'CHECK' ORDER BY 1

SELECT kcu.column_name FROM information_schema.table_constraints tc JOIN information_schema.key_column_usage kcu USING (constraint_schema, constraint_name) WHERE tc.constraint_type = 'PRIMARY KEY' AND tc.table_name = 'cat_t' ORDER BY kcu.ordinal_position

SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('cat_t', 'cat_r') ORDER BY 1

--- psql \d

SELECT n.nspname AS "Schema", c.relname AS "Name", CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'i' THEN 'index' WHEN 'S' THEN 'sequence' WHEN 't' THEN 'TOAST table' WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table' WHEN 'I' THEN 'partitioned index' END AS "Type", pg_catalog.pg_get_userbyid(c.relowner) AS "Owner"
FROM pg_catalog.pg_class c
     LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
WHERE c.relkind IN ('r','p','v','m','S','f','') AND c.relname LIKE 'cat\_%'
      AND n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast' AND n.nspname <> 'information_schema'
  AND pg_catalog.pg_table_is_visible(c.oid)
ORDER BY 1,2;

--- psql \d cat_t

-- compare: shape
SELECT c.oid, n.nspname, c.relname
FROM pg_catalog.pg_class c
     LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname OPERATOR(pg_catalog.~) '^(cat_t)$' COLLATE pg_catalog.default
  AND pg_catalog.pg_table_is_visible(c.oid)
ORDER BY 2, 3;

SELECT a.attname,
  pg_catalog.format_type(a.atttypid, a.atttypmod),
  (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid, true)
   FROM pg_catalog.pg_attrdef d
   WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.atthasdef),
  a.attnotnull,
  (SELECT c.collname FROM pg_catalog.pg_collation c, pg_catalog.pg_type t
   WHERE c.oid = a.attcollation AND t.oid = a.atttypid AND a.attcollation <> t.typcollation) AS attcollation,
  a.attidentity,
  a.attgenerated
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = 'cat_t'::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;

SELECT c2.relname, i.indisprimary, i.indisunique, i.indisclustered, i.indisvalid, pg_catalog.pg_get_indexdef(i.indexrelid, 0, true),
  pg_catalog.pg_get_constraintdef(con.oid, true), contype, condeferrable, condeferred, i.indisreplident, c2.reltablespace
FROM pg_catalog.pg_class c, pg_catalog.pg_class c2, pg_catalog.pg_index i
  LEFT JOIN pg_catalog.pg_constraint con ON (conrelid = i.indrelid AND conindid = i.indexrelid AND contype IN ('p','u','x'))
WHERE c.oid = 'cat_t'::regclass AND c.oid = i.indrelid AND i.indexrelid = c2.oid
ORDER BY i.indisprimary DESC, c2.relname;

--- psql \l, \dn, \du, \df, \dT, \dx

SELECT d.datname, pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype FROM pg_catalog.pg_database d WHERE d.datname = 'template1'

SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname IN ('public', 'pg_catalog') ORDER BY 1

SELECT r.rolname, r.rolcanlogin FROM pg_catalog.pg_roles r WHERE r.rolname = 'app'

SELECT p.proname, pg_catalog.pg_get_function_result(p.oid), pg_catalog.pg_get_function_arguments(p.oid) FROM pg_catalog.pg_proc p WHERE p.proname = 'lower' ORDER BY 2, 3

SELECT pg_catalog.format_type(t.oid, NULL) FROM pg_catalog.pg_type t WHERE t.typname = 'int4'

SELECT extname FROM pg_extension WHERE extname = 'plpgsql'

--- psql's tab completion

SELECT c.relname, NULL::pg_catalog.text FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p') AND (c.relname) LIKE 'cat\_%' ORDER BY 1 LIMIT 1000

--- What drivers and ORMs ask when they connect.

SELECT current_schema()

SELECT version() LIKE 'PostgreSQL%'

SHOW standard_conforming_strings

SHOW transaction_isolation

SHOW server_version

-- params: 23
SELECT typname, typtype, typelem, typbasetype FROM pg_type WHERE oid = $1

SELECT t.typname, t.oid, t.typarray, t.typelem FROM pg_type t WHERE t.typname IN ('int4', 'text', 'bool', 'timestamptz') ORDER BY 1

SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'

-- params: public | cat_t
SELECT EXISTS (SELECT FROM information_schema.tables WHERE table_schema = $1 AND table_name = $2)

-- params: cat_r
SELECT relname, relkind FROM pg_class WHERE relname = $1

SELECT to_regclass('public.cat_t') IS NOT NULL, to_regclass('nosuch')

SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) WHERE i.indrelid = 'cat_t'::regclass AND i.indisprimary ORDER BY a.attnum

SELECT 'nosuch'::regclass

SELECT name, setting FROM pg_settings WHERE name IN ('server_encoding', 'integer_datetimes') ORDER BY 1

SELECT pg_get_userbyid(relowner), relhasindex, relnatts FROM pg_class WHERE oid = 'public.cat_r'::regclass

SELECT has_table_privilege('cat_t', 'SELECT'), has_schema_privilege('public', 'USAGE')

SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = pg_backend_pid()

SELECT pg_backend_pid() > 0, pg_is_in_recovery(), pg_postmaster_start_time() < now()

SELECT * FROM pg_catalog.pg_locks WHERE false

SELECT pg_encoding_to_char(6), pg_client_encoding(), getdatabaseencoding()

DROP TABLE cat_t, cat_r
