--- Several statements in one Query: one implicit transaction, and the first error ends it.

DROP TABLE IF EXISTS mul, mul_ref CASCADE; CREATE TABLE mul (user_id bigint PRIMARY KEY, n int); CREATE TABLE mul_ref (id int PRIMARY KEY)

SELECT 1; SELECT 2

SELECT 1; SELECT 2;

SELECT 1;; ;SELECT 2;;

;

;;;

-- a comment

/* only a comment */;

SELECT 1 /* ; */; -- ; SELECT 3
SELECT '; SELECT 4'; SELECT $$;$$, $a$;$$;$a$, ";" FROM (SELECT 5 AS ";") x

INSERT INTO mul VALUES (1, 1); INSERT INTO mul VALUES (2, 2); SELECT n FROM mul WHERE user_id = 1; UPDATE mul SET n = 20 WHERE user_id = 2

SELECT user_id, n FROM mul

INSERT INTO mul VALUES (3, 3); SELECT 1/0; INSERT INTO mul VALUES (4, 4)

SELECT user_id FROM mul WHERE user_id IN (3, 4)

INSERT INTO mul VALUES (3, 3); INSERT INTO mul VALUES (1, 1); INSERT INTO mul VALUES (4, 4)

SELECT user_id FROM mul WHERE user_id IN (3, 4)

INSERT INTO mul VALUES (3, 3); SELEC 1; INSERT INTO mul VALUES (4, 4)

SELECT user_id FROM mul WHERE user_id IN (3, 4)

INSERT INTO mul VALUES (3, 3); SELECT * FROM nosuchtable

SELECT user_id FROM mul WHERE user_id = 3

BEGIN; INSERT INTO mul VALUES (5, 5); INSERT INTO mul VALUES (6, 6); COMMIT

SELECT user_id FROM mul WHERE user_id IN (5, 6)

INSERT INTO mul VALUES (7, 7); BEGIN; INSERT INTO mul VALUES (8, 8); ROLLBACK; SELECT 'after'

SELECT user_id FROM mul WHERE user_id IN (7, 8)

BEGIN; INSERT INTO mul VALUES (9, 9); SELECT 1/0; COMMIT

SELECT 1

COMMIT; SELECT user_id FROM mul WHERE user_id = 9

INSERT INTO mul VALUES (10, 10); COMMIT; INSERT INTO mul VALUES (11, 11); SELECT 1/0

SELECT user_id FROM mul WHERE user_id IN (10, 11)

BEGIN

SELECT 1; SELECT 2/0; SELECT 3

ROLLBACK; SELECT 'out'

SET work_mem = '6MB'; SHOW work_mem; RESET work_mem; SHOW work_mem

SET LOCAL work_mem = '7MB'; SHOW work_mem

SHOW work_mem

SET work_mem = '9MB'; SELECT 1/0

SHOW work_mem

INSERT INTO mul_ref VALUES (1); INSERT INTO mul_ref VALUES (2); SELECT * FROM mul_ref ORDER BY id

SELECT n FROM mul WHERE user_id = 1; SELECT n FROM mul WHERE user_id = 2; SELECT id FROM mul_ref ORDER BY id

CREATE TABLE mul_new (user_id int, t text); INSERT INTO mul_new VALUES (1, 'a'), (2, 'b'); SELECT t FROM mul_new WHERE user_id = 1; DROP TABLE mul_new

SELECT * FROM mul_new WHERE user_id = 1

PREPARE mul_p AS SELECT 5; EXECUTE mul_p; DEALLOCATE mul_p

BEGIN; DECLARE mul_c CURSOR FOR SELECT 1; FETCH mul_c; COMMIT

VACUUM mul; SELECT 1

SELECT 1; VACUUM mul

SAVEPOINT mul_s; SELECT 1

BEGIN; SAVEPOINT a; INSERT INTO mul VALUES (30, 1); ROLLBACK TO a; INSERT INTO mul VALUES (31, 1); COMMIT; SELECT user_id FROM mul WHERE user_id IN (30, 31)

/* shardproxy: key=1 */ DO $$ BEGIN RAISE NOTICE 'one; two'; END $$

SELECT 1; COPY mul FROM STDIN; SELECT user_id FROM mul WHERE user_id = 40
-- data:
40	1
41	1

COPY mul TO STDOUT; SELECT 1

CREATE FUNCTION mul_atomic() RETURNS int LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT mul_atomic(); DROP FUNCTION mul_atomic

SELECT 1; SELECT exists(SELECT FROM mul); INSERT INTO mul VALUES (50, 1)

SELECT user_id FROM mul WHERE user_id = 50

DROP TABLE mul; DROP TABLE mul_ref
