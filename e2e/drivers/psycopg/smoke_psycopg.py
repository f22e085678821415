"""Smoke suite of psycopg 3. Usage: smoke_psycopg.py DSN"""

import datetime
import decimal
import sys
import threading
import uuid

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

DSN = sys.argv[1]
TABLE = "drv_psycopg"
ANN = uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
AT = datetime.datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=datetime.timezone.utc)


def raises(sqlstate, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except psycopg.Error as error:
        assert error.sqlstate == sqlstate, (error.sqlstate, sqlstate, error)
    else:
        raise AssertionError(f"no error, {sqlstate} is wanted")


def rows(conn):
    values = (ANN, "ünï 日本 🐘", ["a", 'b"c', None], AT, Jsonb({"k": [1, None]}), decimal.Decimal("12.34"), b"\x00\xff")
    conn.execute(f"INSERT INTO {TABLE} VALUES (%s, %s, %s, %s, %s, %s, %s)", values)
    nobody = uuid.uuid4()
    conn.execute(f"INSERT INTO {TABLE} (user_id) VALUES (%s)", (nobody,))
    for binary in (False, True):
        cursor = conn.cursor(binary=binary)
        for _ in range(8):  # prepared from the fifth time on
            cursor.execute(f"SELECT * FROM {TABLE} WHERE user_id = %s", (ANN,))
            row = cursor.fetchone()
            assert row[:4] == values[:4] and row[4] == {"k": [1, None]} and row[5:] == values[5:], row
            assert cursor.fetchone() is None
        cursor.execute(f"SELECT name, tags, at FROM {TABLE} WHERE user_id = %s", (nobody,), prepare=True)
        assert cursor.fetchall() == [(None, None, None)]
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(f"SELECT name FROM {TABLE} WHERE user_id = ANY (%s)", ([ANN, nobody],))
        assert sorted(str(r["name"]) for r in cursor) == ["None", "ünï 日本 🐘"]


def many(conn):
    keys = [uuid.uuid4() for _ in range(50)]
    with conn.cursor() as cursor:  # executemany is a pipeline
        cursor.executemany(f"INSERT INTO {TABLE} (user_id, name) VALUES (%s, %s)", [(k, str(k)) for k in keys])
        assert cursor.rowcount == 50, cursor.rowcount
        cursor.executemany(f"INSERT INTO {TABLE} (user_id) VALUES (%s) RETURNING user_id", [(uuid.uuid4(),) for _ in range(3)], returning=True)
        returned = 0
        while True:
            returned += len(cursor.fetchall())
            if not cursor.nextset():
                break
        assert returned == 3, returned
    with conn.pipeline():
        cursors = [conn.execute(f"SELECT name FROM {TABLE} WHERE user_id = %s", (k,)) for k in keys]
        assert [c.fetchone()[0] for c in cursors] == [str(k) for k in keys]
    try:
        with conn.pipeline():
            conn.execute(f"SELECT 1/0 FROM {TABLE} WHERE user_id = %s", (keys[0],))
            conn.execute("SELECT 1")
    except psycopg.errors.DivisionByZero:
        conn.rollback()
    else:
        raise AssertionError("the pipeline hides an error")


def transactions(conn):
    keys = [uuid.uuid4() for _ in range(6)]
    count = f"SELECT count(*) FROM {TABLE} WHERE user_id = %s"
    try:
        with conn.transaction():
            for key in keys:
                conn.execute(f"INSERT INTO {TABLE} (user_id) VALUES (%s)", (key,))
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert conn.execute(count, (keys[3],)).fetchone() == (0,)
    with conn.transaction():
        conn.execute(f"INSERT INTO {TABLE} (user_id) VALUES (%s)", (keys[0],))
        try:
            with conn.transaction():  # a savepoint
                conn.execute(f"INSERT INTO {TABLE} (user_id) VALUES (%s)", (keys[0],))
        except psycopg.errors.UniqueViolation:
            pass
        conn.execute(f"INSERT INTO {TABLE} (user_id) VALUES (%s)", (keys[1],))
    for key in keys[:2]:
        assert conn.execute(count, (key,)).fetchone() == (1,)


def copy(conn):
    keys = [uuid.uuid4() for _ in range(100)]
    with conn.cursor() as cursor:
        with cursor.copy(f"COPY {TABLE} (user_id, name, tags) FROM STDIN") as out:
            for i, key in enumerate(keys[:50]):
                out.write_row((key, f"tab\t{i}\nline\\", ["x", None]))
        with cursor.copy(f"COPY {TABLE} (user_id, name) FROM STDIN (FORMAT BINARY)") as out:
            out.set_types(["uuid", "text"])
            for i, key in enumerate(keys[50:]):
                out.write_row((key, f"binary {i}"))
        cursor.execute(f"SELECT name FROM {TABLE} WHERE user_id = %s", (keys[7],))
        assert cursor.fetchone() == ("tab\t7\nline\\",)
        cursor.execute(f"SELECT name FROM {TABLE} WHERE user_id = %s", (keys[57],))
        assert cursor.fetchone() == ("binary 7",)
        with cursor.copy(f"COPY {TABLE} (user_id, name) TO STDOUT") as out:
            out.set_types(["uuid", "text"])
            copied = dict(out.rows())
        assert copied[keys[57]] == "binary 7"


def errors(conn):
    raises("23505", conn.execute, f"INSERT INTO {TABLE} (user_id) VALUES (%s)", (ANN,))
    conn.rollback()
    raises("42703", conn.execute, f"SELECT nosuch FROM {TABLE} WHERE user_id = %s", (ANN,))
    raises("25P02", conn.execute, "SELECT 1")
    conn.rollback()
    raises("42601", conn.execute, "SELEC 1")
    conn.rollback()
    raises("22P02", conn.execute, f"SELECT 1 FROM {TABLE} WHERE user_id = %s", ("no uuid",))
    conn.rollback()


def server_side_cursor(conn):
    with conn.transaction(), conn.cursor(name="named") as cursor:
        cursor.execute(f"SELECT g FROM generate_series(1, 10) g, {TABLE} WHERE user_id = %s", (ANN,))
        assert [r[0] for r in cursor.fetchmany(4)] == [1, 2, 3, 4]
        assert len(cursor.fetchall()) == 6


def cancel(conn):
    timer = threading.Timer(0.2, conn.cancel_safe)
    timer.start()
    raises("57014", conn.execute, "SELECT pg_sleep(30)")
    timer.join()
    conn.rollback()
    assert conn.execute("SELECT 1").fetchone() == (1,)
    conn.rollback()


def main():
    with psycopg.connect(DSN, autocommit=True) as conn:
        conn.execute(f"DROP TABLE IF EXISTS {TABLE}")
        conn.execute(
            f"CREATE TABLE {TABLE} (user_id uuid PRIMARY KEY, name text, tags text[], at timestamptz, doc jsonb, price numeric, raw bytea)"
        )
        many(conn)
        transactions(conn)
    with psycopg.connect(DSN) as conn:
        for part in (rows, transactions, copy):
            part(conn)
            conn.commit()
        for part in (errors, server_side_cursor, cancel):
            part(conn)
    with psycopg.connect(DSN, autocommit=True) as conn:
        conn.execute(f"DROP TABLE {TABLE}")


main()
