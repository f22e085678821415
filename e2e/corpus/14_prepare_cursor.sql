--- SQL-level prepared statements and cursors.

DROP TABLE IF EXISTS prep CASCADE

CREATE TABLE prep (user_id bigint NOT NULL, id int, t text, PRIMARY KEY (user_id, id))

INSERT INTO prep VALUES (1, 1, 'a'), (1, 2, 'b'), (1, 3, 'c'), (2, 1, 'd'), (3, 1, 'e'), (4, 1, 'f')

PREPARE get (bigint) AS SELECT t FROM prep WHERE user_id = $1 ORDER BY id

-- protocol: simple
EXECUTE get(1)

-- protocol: simple
EXECUTE get(2)

-- protocol: simple
EXECUTE get('3')

-- protocol: simple
EXECUTE get(999)

-- protocol: simple
EXECUTE get(NULL)

-- protocol: simple
EXECUTE get

-- protocol: simple
EXECUTE get(1, 2)

-- protocol: simple
EXECUTE get('x')

PREPARE get AS SELECT 1

PREPARE put (bigint, int, text) AS INSERT INTO prep VALUES ($1, $2, $3) RETURNING t

-- protocol: simple
EXECUTE put(5, 1, 'it''s')

-- protocol: simple
EXECUTE put(5, 1, 'twice')

-- protocol: simple
EXECUTE put(6, 1, NULL)

PREPARE untyped AS SELECT t FROM prep WHERE user_id = $1 AND id = $2

-- protocol: simple
EXECUTE untyped(1, 2)

PREPARE plain AS SELECT 1 AS one

-- protocol: simple
EXECUTE plain

-- protocol: simple
EXECUTE plain()

PREPARE bad AS SELECT nosuch FROM prep WHERE user_id = $1

-- protocol: simple
EXECUTE bad(1)

PREPARE "Quoted Name" AS SELECT 'q'

-- protocol: simple
EXECUTE "Quoted Name"

-- protocol: simple
BEGIN

-- protocol: simple
EXECUTE get(1)

-- protocol: simple
EXECUTE put(7, 1, 'in a transaction')

-- protocol: simple
EXECUTE get(7)

-- protocol: simple
ROLLBACK

-- protocol: simple
EXECUTE get(7)

SELECT name, statement, parameter_types FROM pg_prepared_statements WHERE name = 'nosuch'

DEALLOCATE get

-- protocol: simple
EXECUTE get(1)

DEALLOCATE PREPARE put

DEALLOCATE ALL

-- protocol: simple
EXECUTE plain

PREPARE again AS SELECT 2

-- protocol: simple
EXECUTE again

DISCARD ALL

-- protocol: simple
EXECUTE again

BEGIN

DECLARE c CURSOR FOR SELECT id, t FROM prep WHERE user_id = 1 ORDER BY id

-- rows: ordered
FETCH 2 FROM c

-- rows: ordered
FETCH NEXT FROM c

FETCH c

CLOSE c

FETCH c

ROLLBACK

BEGIN

DECLARE c SCROLL CURSOR FOR SELECT id FROM prep WHERE user_id = 1 ORDER BY id

FETCH LAST FROM c

FETCH PRIOR FROM c

FETCH ABSOLUTE 1 FROM c

FETCH RELATIVE 1 FROM c

MOVE FORWARD 1 IN c

-- rows: ordered
FETCH BACKWARD ALL FROM c

MOVE FORWARD ALL FROM c

DECLARE c CURSOR FOR SELECT 1

COMMIT

BEGIN

DECLARE c NO SCROLL CURSOR FOR SELECT id FROM prep WHERE user_id = 1 ORDER BY id

FETCH 1 FROM c

UPDATE prep SET t = 'changed' WHERE user_id = 1 AND id = 1

FETCH ALL FROM c

FETCH PRIOR FROM c

ROLLBACK

BEGIN

DECLARE u CURSOR FOR SELECT * FROM prep WHERE user_id = 2 FOR UPDATE

FETCH u

UPDATE prep SET t = 'where current' WHERE CURRENT OF u

ROLLBACK

BEGIN

DECLARE c BINARY CURSOR FOR SELECT 1::int4

FETCH c

CLOSE ALL

COMMIT

DECLARE c CURSOR FOR SELECT 1

FETCH 1 FROM c

MOVE 1 FROM c

CLOSE c

DROP TABLE prep
