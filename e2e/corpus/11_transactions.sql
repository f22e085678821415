--- Transactions: on one shard, over several, savepoints, and what PostgreSQL says about misuse.

DROP TABLE IF EXISTS txn, txn_ref CASCADE

CREATE TABLE txn (user_id bigint PRIMARY KEY, n int)

CREATE TABLE txn_ref (id int PRIMARY KEY, n int)

BEGIN

INSERT INTO txn VALUES (1, 10)

SELECT n FROM txn WHERE user_id = 1

COMMIT

SELECT n FROM txn WHERE user_id = 1

BEGIN

INSERT INTO txn VALUES (2, 20)

UPDATE txn SET n = 11 WHERE user_id = 1

ROLLBACK

SELECT user_id, n FROM txn WHERE user_id IN (1, 2)

BEGIN

INSERT INTO txn VALUES (2, 20)

INSERT INTO txn VALUES (3, 30)

INSERT INTO txn VALUES (4, 40)

INSERT INTO txn VALUES (5, 50)

SELECT user_id, n FROM txn

COMMIT

SELECT user_id, n FROM txn

BEGIN

UPDATE txn SET n = n + 1 WHERE user_id = 2

UPDATE txn SET n = n + 1 WHERE user_id = 3

UPDATE txn SET n = n + 1 WHERE user_id = 4

UPDATE txn SET n = n + 1 WHERE user_id = 5

ABORT

SELECT user_id, n FROM txn

START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

SHOW transaction_isolation

SHOW transaction_read_only

SELECT n FROM txn WHERE user_id = 1

INSERT INTO txn VALUES (9, 9)

SELECT n FROM txn WHERE user_id = 1

END

BEGIN

SELECT 1/0

SELECT 1

INSERT INTO txn VALUES (9, 9)

SAVEPOINT late

SHOW search_path

COMMIT

SELECT n FROM txn WHERE user_id = 9

BEGIN

INSERT INTO txn VALUES (6, 60)

SAVEPOINT a

INSERT INTO txn VALUES (7, 70)

INSERT INTO txn VALUES (7, 71)

SELECT n FROM txn WHERE user_id = 7

ROLLBACK TO SAVEPOINT a

SELECT n FROM txn WHERE user_id = 7

SELECT n FROM txn WHERE user_id = 6

INSERT INTO txn VALUES (8, 80)

SAVEPOINT b

UPDATE txn SET n = 81 WHERE user_id = 8

RELEASE SAVEPOINT b

ROLLBACK TO b

ROLLBACK TO a

INSERT INTO txn VALUES (10, 100)

RELEASE a

COMMIT

SELECT user_id, n FROM txn WHERE user_id IN (6, 7, 8, 10)

--- A savepoint must reach shards that join later.

BEGIN

SAVEPOINT early

INSERT INTO txn VALUES (11, 1)

INSERT INTO txn VALUES (12, 1)

INSERT INTO txn VALUES (13, 1)

INSERT INTO txn VALUES (14, 1)

SAVEPOINT early

INSERT INTO txn VALUES (15, 1)

INSERT INTO txn VALUES (16, 1)

ROLLBACK TO early

INSERT INTO txn VALUES (17, 1)

RELEASE early

ROLLBACK TO early

INSERT INTO txn VALUES (18, 1)

COMMIT

SELECT user_id FROM txn WHERE user_id > 10

BEGIN

SAVEPOINT s

ROLLBACK TO nosuch

ROLLBACK TO s

RELEASE nosuch

ROLLBACK

SAVEPOINT outside

RELEASE outside

ROLLBACK TO outside

COMMIT

ROLLBACK

BEGIN

BEGIN

SET TRANSACTION ISOLATION LEVEL SERIALIZABLE

SHOW transaction_isolation

SELECT n FROM txn WHERE user_id = 1

SET TRANSACTION ISOLATION LEVEL READ COMMITTED

ROLLBACK

BEGIN

INSERT INTO txn VALUES (20, 1)

COMMIT AND CHAIN

INSERT INTO txn VALUES (21, 1)

ROLLBACK AND CHAIN

INSERT INTO txn VALUES (22, 1)

COMMIT

SELECT user_id FROM txn WHERE user_id IN (20, 21, 22)

BEGIN READ ONLY

SELECT count(*) FROM txn WHERE user_id = 1

UPDATE txn SET n = 1 WHERE user_id = 1

ROLLBACK

BEGIN READ WRITE

DELETE FROM txn WHERE user_id = 20

COMMIT WORK

BEGIN ISOLATION LEVEL SERIALIZABLE

SHOW transaction_isolation

COMMIT

BEGIN

INSERT INTO txn_ref VALUES (1, 1), (2, 2)

UPDATE txn SET n = 500 WHERE user_id = 1

SELECT n FROM txn_ref ORDER BY id

ROLLBACK

SELECT n FROM txn_ref

BEGIN

INSERT INTO txn_ref VALUES (1, 1)

INSERT INTO txn VALUES (30, 1)

COMMIT

SELECT t.user_id, r.n FROM txn t JOIN txn_ref r ON r.id = 1 WHERE t.user_id = 30

BEGIN

CREATE TABLE txn_new (user_id bigint PRIMARY KEY)

INSERT INTO txn_new VALUES (1)

INSERT INTO txn_new VALUES (2)

COMMIT

SELECT user_id FROM txn_new

DROP TABLE txn_new

BEGIN

SELECT n FROM txn WHERE user_id = 1 FOR UPDATE

UPDATE txn SET n = 77 WHERE user_id = 1 RETURNING n

SELECT n FROM txn WHERE user_id = 1

COMMIT

BEGIN

LOCK TABLE txn IN SHARE MODE

SELECT n FROM txn WHERE user_id = 1

COMMIT

LOCK TABLE txn

BEGIN

SELEC 1

SELECT 1

ROLLBACK

BEGIN

SELECT * FROM txn_nosuch

COMMIT

BEGIN

SET LOCAL statement_timeout = '1s'

SHOW statement_timeout

ROLLBACK

SHOW statement_timeout

BEGIN

SELECT txid_current() = txid_current(), txid_current_if_assigned() IS NULL

COMMIT

DROP TABLE txn, txn_ref
