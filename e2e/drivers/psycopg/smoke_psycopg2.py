"""Smoke suite of psycopg2. Usage: smoke_psycopg2.py DSN"""

import datetime
import io
import sys
import threading

import psycopg2
import psycopg2.errors
import psycopg2.extras

DSN = sys.argv[1]
TABLE = "drv_psycopg2"
AT = datetime.datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=datetime.timezone.utc)


def raises(sqlstate, cursor, sql, args=None):
    try:
        cursor.execute(sql, args)
    except psycopg2.Error as error:
        assert error.pgcode == sqlstate, (error.pgcode, sqlstate, error)
    else:
        raise AssertionError(f"no error, {sqlstate} is wanted")


def rows(conn):
    with conn, conn.cursor() as cursor:
        values = (1, "ünï 日本 'quoted' \\ %", ["a", 'b"c'], AT, 2.5)
        cursor.execute(f"INSERT INTO {TABLE} VALUES (%s, %s, %s, %s, %s)", values)
        cursor.execute(f"INSERT INTO {TABLE} (user_id) VALUES (%s)", (-2,))
        cursor.execute(f"SELECT * FROM {TABLE} WHERE user_id = %s", (1,))
        assert cursor.fetchone() == values
        cursor.execute(f"SELECT name, tags FROM {TABLE} WHERE user_id = %(key)s", {"key": -2})
        assert cursor.fetchall() == [(None, None)]
        cursor.execute(f"SELECT user_id FROM {TABLE} WHERE user_id IN %s", ((1, -2),))
        assert sorted(cursor.fetchall()) == [(-2,), (1,)]
        cursor.execute(f"SELECT user_id FROM {TABLE} WHERE user_id = ANY (%s)", ([1, -2],))
        assert sorted(cursor.fetchall()) == [(-2,), (1,)]


def many(conn):
    with conn, conn.cursor() as cursor:
        pairs = [(100 + i, f"many {i}") for i in range(40)]
        inserted = psycopg2.extras.execute_values(
            cursor, f"INSERT INTO {TABLE} (user_id, name) VALUES %s RETURNING user_id", pairs, fetch=True
        )
        assert sorted(k for (k,) in inserted) == [k for k, _ in pairs], inserted
        psycopg2.extras.execute_batch(
            cursor, f"UPDATE {TABLE} SET name = name || %s WHERE user_id = %s", [("!", k) for k, _ in pairs], page_size=1
        )
        cursor.execute(f"SELECT name FROM {TABLE} WHERE user_id = 107")
        assert cursor.fetchone() == ("many 7!",)


def transactions(conn):
    with conn.cursor() as cursor:
        for key in range(200, 206):
            cursor.execute(f"INSERT INTO {TABLE} (user_id) VALUES (%s)", (key,))
        conn.rollback()
        cursor.execute(f"SELECT user_id FROM {TABLE} WHERE user_id IN (200, 201, 202, 203, 204, 205)")
        assert cursor.fetchall() == []
        cursor.execute(f"INSERT INTO {TABLE} (user_id) VALUES (210), (211), (212), (213)")
        conn.commit()
        cursor.execute(f"SELECT user_id FROM {TABLE} WHERE user_id IN (210, 211, 212, 213)")
        assert len(cursor.fetchall()) == 4
        conn.commit()


def copy(conn):
    with conn, conn.cursor() as cursor:
        data = "".join(f"{300 + i}\tcopied\\t{i}\n" for i in range(50))
        cursor.copy_expert(f"COPY {TABLE} (user_id, name) FROM STDIN", io.StringIO(data))
        assert cursor.rowcount == 50, cursor.rowcount
        cursor.execute(f"SELECT name FROM {TABLE} WHERE user_id = 307")
        assert cursor.fetchone() == ("copied\t7",)
        out = io.StringIO()
        cursor.copy_expert(f"COPY {TABLE} (user_id, name) TO STDOUT WITH CSV", out)
        assert "307,copied\t7\n" in out.getvalue()


def errors(conn):
    with conn.cursor() as cursor:
        raises("23505", cursor, f"INSERT INTO {TABLE} (user_id) VALUES (1)")
        raises("25P02", cursor, "SELECT 1")
        conn.rollback()
        raises("42703", cursor, f"SELECT nosuch FROM {TABLE} WHERE user_id = 1")
        conn.rollback()
        raises("42601", cursor, "SELEC 1")
        conn.rollback()


def server_side_cursor(conn):
    with conn, conn.cursor(name="named") as cursor:
        cursor.itersize = 3
        cursor.execute(f"SELECT g FROM generate_series(1, 10) g, {TABLE} WHERE user_id = 1")
        assert [g for (g,) in cursor] == list(range(1, 11))


def cancel(conn):
    timer = threading.Timer(0.2, conn.cancel)
    timer.start()
    with conn.cursor() as cursor:
        raises("57014", cursor, "SELECT pg_sleep(30)")
    timer.join()
    conn.rollback()


def main():
    conn = psycopg2.connect(DSN)
    with conn, conn.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {TABLE}")
        cursor.execute(f"CREATE TABLE {TABLE} (user_id bigint PRIMARY KEY, name text, tags text[], at timestamptz, x float8)")
    for part in (rows, many, transactions, copy, errors, server_side_cursor, cancel):
        part(conn)
    with conn, conn.cursor() as cursor:
        cursor.execute(f"DROP TABLE {TABLE}")
    conn.close()


main()
