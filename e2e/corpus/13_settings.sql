--- Settings follow the session, and transactions take them back.

SHOW server_encoding

SHOW DateStyle

SET DateStyle = 'German'

SHOW datestyle

SELECT DATE '2024-03-01'

SET datestyle TO ISO, MDY

SELECT DATE '2024-03-01'

RESET datestyle

SET TIME ZONE 'America/New_York'

SHOW TimeZone

SHOW TIME ZONE

SELECT TIMESTAMPTZ '2024-07-01 12:00:00+00', current_setting('TimeZone')

SET timezone TO 'UTC'

SELECT TIMESTAMPTZ '2024-07-01 12:00:00+00'

SET TIME ZONE -7

SHOW timezone

SET TIME ZONE INTERVAL '+02:30' HOUR TO MINUTE

SHOW timezone

SET TIME ZONE LOCAL

SET TIME ZONE DEFAULT

SET application_name = 'e2e app'

SHOW application_name

SELECT current_setting('application_name')

SET application_name TO DEFAULT

SHOW application_name

SET work_mem = '8MB'

SHOW work_mem

SELECT setting, unit FROM pg_settings WHERE name = 'work_mem'

SET SESSION work_mem TO 16384

SHOW work_mem

RESET work_mem

SET statement_timeout = 12345

SHOW statement_timeout

SET statement_timeout = '2min'

SHOW statement_timeout

RESET ALL

SHOW statement_timeout

SET extra_float_digits = 0

SELECT 0.1::float8 + 0.2::float8

SET extra_float_digits = 1

SELECT 0.1::float8 + 0.2::float8

RESET extra_float_digits

SET bytea_output = 'escape'

SELECT '\x6100'::bytea

SET bytea_output = 'hex'

SET IntervalStyle = 'iso_8601'

SELECT INTERVAL '1 day 2 hours'

RESET IntervalStyle

SET client_min_messages = 'error'

/* shardproxy: key=1 */ DO $$ BEGIN RAISE NOTICE 'hidden'; END $$

SET client_min_messages = DEFAULT

/* shardproxy: key=1 */ DO $$ BEGIN RAISE NOTICE 'shown'; END $$

SET standard_conforming_strings = off

SET escape_string_warning = off

SELECT 'a\'b', 'c\\d'

SET standard_conforming_strings = on

SELECT 'c\\d'

RESET escape_string_warning

SET search_path = pg_catalog

SHOW search_path

SELECT current_schemas(false)

SET search_path TO "$user", public

SHOW search_path

SET SCHEMA 'pg_catalog'

SHOW search_path

RESET search_path

SET e2e.tenant = 'acme'

SHOW e2e.tenant

SELECT current_setting('e2e.tenant')

SELECT set_config('e2e.tenant', 'other', false)

SHOW e2e.tenant

RESET e2e.tenant

SHOW e2e.tenant

BEGIN

SET LOCAL TIME ZONE 'Asia/Tokyo'

SHOW timezone

SELECT TIMESTAMPTZ '2024-07-01 12:00:00+00'

COMMIT

SHOW timezone

BEGIN

SET TIME ZONE 'Asia/Tokyo'

SHOW timezone

ROLLBACK

SHOW timezone

BEGIN

SET TIME ZONE 'Asia/Tokyo'

COMMIT

SHOW timezone

SET TIME ZONE DEFAULT

BEGIN

SAVEPOINT s

SET work_mem = '3MB'

ROLLBACK TO s

SHOW work_mem

SET work_mem = '5MB'

RELEASE s

COMMIT

SHOW work_mem

RESET work_mem

SET LOCAL work_mem = '1MB'

SHOW work_mem

SELECT set_config('work_mem', '2MB', true), current_setting('work_mem') IS NOT NULL

SHOW work_mem

SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY

SHOW default_transaction_read_only

CREATE TABLE set_t (user_id int)

SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE, ISOLATION LEVEL REPEATABLE READ

SHOW transaction_isolation

SHOW default_transaction_isolation

RESET default_transaction_isolation

SET default_transaction_read_only = on

CREATE TABLE set_t (user_id int)

RESET default_transaction_read_only

SET NAMES 'UTF8'

SHOW client_encoding

SET client_encoding = 'LATIN1'

SELECT 'é' IS NOT NULL

SHOW client_encoding

SET client_encoding = 'UTF8'

SET client_encoding = 'nosuch'

SET ROLE app

SELECT current_user

RESET ROLE

SET ROLE nosuchrole

SET ROLE NONE

SET SESSION AUTHORIZATION DEFAULT

SELECT session_user

SET seed = 0.5

SET XML OPTION DOCUMENT

SHOW xmloption

SET XML OPTION CONTENT

SHOW TRANSACTION ISOLATION LEVEL

SET max_connections = 5

SET server_version = '1'

SHOW server_version_num

SHOW is_superuser

SHOW session_authorization

SET TRANSACTION ISOLATION LEVEL SERIALIZABLE

DISCARD PLANS

DISCARD SEQUENCES

SET application_name = 'gone'

DISCARD ALL

SHOW application_name

BEGIN

DISCARD ALL

ROLLBACK
