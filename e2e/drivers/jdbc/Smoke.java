import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.Array;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.Objects;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

/** Smoke suite of the PostgreSQL JDBC driver. Usage: java Smoke JDBC-URL */
public final class Smoke {
    private static final String TABLE = "drv_jdbc";
    private static final OffsetDateTime AT = OffsetDateTime.of(2024, 2, 29, 12, 30, 0, 123_456_000, ZoneOffset.UTC);

    private interface Call {
        void run() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        String url = args[0];
        try (Connection conn = DriverManager.getConnection(url)) {
            exec(conn, "DROP TABLE IF EXISTS " + TABLE);
            exec(conn, "CREATE TABLE " + TABLE
                    + " (user_id bigint PRIMARY KEY, name text, tags text[], at timestamptz, price numeric, raw bytea, n int)");
        }
        // prepareThreshold 5 is the default; 1 prepares at once, -1 asks for binary transfer at once.
        int key = 0;
        for (String option : new String[] {"", "&prepareThreshold=1", "&prepareThreshold=-1", "&preferQueryMode=simple",
                "&preferQueryMode=extendedForPrepared", "&reWriteBatchedInserts=true"}) {
            key += 1000;
            try (Connection conn = DriverManager.getConnection(url + option)) {
                rows(conn, key);
                batch(conn, key + 100);
                transactions(conn, key + 300);
                errors(conn, key);
                fetchSize(conn, key);
                cancel(conn);
            } catch (Exception | AssertionError e) {
                throw new AssertionError("with option '" + option + "'", e);
            }
        }
        try (Connection conn = DriverManager.getConnection(url)) {
            copy(conn);
            metadata(conn);
            exec(conn, "DROP TABLE " + TABLE);
        }
    }

    private static void rows(Connection conn, int key) throws SQLException {
        try (PreparedStatement insert = conn.prepareStatement("INSERT INTO " + TABLE + " VALUES (?, ?, ?, ?, ?, ?, ?)")) {
            insert.setLong(1, key);
            insert.setString(2, "ünï 日本 🐘 'quoted' \\");
            insert.setArray(3, conn.createArrayOf("text", new String[] {"a", "b\"c", null}));
            insert.setObject(4, AT);
            insert.setBigDecimal(5, new BigDecimal("12.34"));
            insert.setBytes(6, new byte[] {0, -1});
            insert.setInt(7, 7);
            equal(1, insert.executeUpdate());
            insert.setLong(1, -key);
            insert.setNull(2, Types.VARCHAR);
            insert.setNull(3, Types.ARRAY);
            insert.setNull(4, Types.TIMESTAMP_WITH_TIMEZONE);
            insert.setNull(5, Types.NUMERIC);
            insert.setNull(6, Types.BINARY);
            insert.setNull(7, Types.INTEGER);
            equal(1, insert.executeUpdate());
        }
        try (PreparedStatement read = conn.prepareStatement("SELECT * FROM " + TABLE + " WHERE user_id = ?")) {
            for (int i = 0; i < 8; i++) { // prepared on the server from the fifth time on
                read.setLong(1, key);
                try (ResultSet rs = read.executeQuery()) {
                    check(rs.next());
                    equal((long) key, rs.getLong(1));
                    equal("ünï 日本 🐘 'quoted' \\", rs.getString("name"));
                    Array tags = rs.getArray(3);
                    equal("[a, b\"c, null]", Arrays.toString((Object[]) tags.getArray()));
                    equal(AT, rs.getObject(4, OffsetDateTime.class));
                    equal(new BigDecimal("12.34"), rs.getBigDecimal(5));
                    check(Arrays.equals(new byte[] {0, -1}, rs.getBytes(6)));
                    check(!rs.next());
                }
                read.setLong(1, -key);
                try (ResultSet rs = read.executeQuery()) {
                    check(rs.next());
                    equal(null, rs.getString(2));
                    equal(0, rs.getInt(7));
                    check(rs.wasNull());
                }
            }
        }
        try (PreparedStatement any = conn.prepareStatement("SELECT count(*) FROM " + TABLE + " WHERE user_id = ? AND n = ANY (?)")) {
            any.setLong(1, key);
            any.setArray(2, conn.createArrayOf("int4", new Integer[] {7, 8}));
            try (ResultSet rs = any.executeQuery()) {
                check(rs.next());
                equal(1, rs.getInt(1));
            }
        }
    }

    private static void batch(Connection conn, int first) throws SQLException {
        try (PreparedStatement insert = conn.prepareStatement("INSERT INTO " + TABLE + " (user_id, n) VALUES (?, ?)")) {
            for (int i = 0; i < 60; i++) {
                insert.setLong(1, first + i);
                insert.setInt(2, i);
                insert.addBatch();
            }
            equal(60, insert.executeBatch().length);
        }
        for (int i : new int[] {0, 31, 59}) {
            equal(i, number(conn, "SELECT n FROM " + TABLE + " WHERE user_id = " + (first + i)));
        }
        try (Statement insert = conn.createStatement()) {
            insert.executeUpdate("INSERT INTO " + TABLE + " (user_id, n) VALUES (" + (first + 70) + ", 5)", new String[] {"n"});
            try (ResultSet rs = insert.getGeneratedKeys()) {
                check(rs.next());
                equal(5, rs.getInt(1));
            }
        }
    }

    private static void transactions(Connection conn, int first) throws Exception {
        String count = "SELECT count(*) FROM " + TABLE + " WHERE user_id = " + (first + 2);
        String insert = "INSERT INTO " + TABLE + " (user_id) VALUES (";
        conn.setAutoCommit(false);
        for (int i = 0; i < 5; i++) {
            exec(conn, insert + (first + i) + ")");
        }
        conn.rollback();
        equal(0, number(conn, count));
        for (int i = 0; i < 5; i++) {
            exec(conn, insert + (first + i) + ")");
        }
        Savepoint savepoint = conn.setSavepoint();
        fails("23505", () -> exec(conn, insert + first + ")"));
        fails("25P02", () -> exec(conn, "SELECT 1"));
        conn.rollback(savepoint);
        conn.commit();
        equal(1, number(conn, count));
        conn.commit();
        conn.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        equal(1, number(conn, count));
        conn.commit();
        conn.setAutoCommit(true);
        conn.setReadOnly(true);
        equal(1, number(conn, count));
        conn.setReadOnly(false);
    }

    private static void errors(Connection conn, int key) throws Exception {
        fails("42703", () -> exec(conn, "SELECT nosuch FROM " + TABLE + " WHERE user_id = 1"));
        fails("42601", () -> exec(conn, "SELEC 1"));
        fails("22012", () -> exec(conn, "SELECT 1 / (n - n) FROM " + TABLE + " WHERE user_id = " + key));
        fails("23505", () -> exec(conn, "INSERT INTO " + TABLE + " (user_id) VALUES (" + key + ")"));
    }

    private static void fetchSize(Connection conn, int key) throws SQLException {
        conn.setAutoCommit(false);
        try (PreparedStatement read = conn.prepareStatement(
                "SELECT g FROM generate_series(1, 25) g, " + TABLE + " WHERE user_id = ?")) {
            read.setFetchSize(10);
            read.setLong(1, key);
            int n = 0;
            try (ResultSet rs = read.executeQuery()) {
                while (rs.next()) {
                    n++;
                }
            }
            equal(25, n);
        }
        conn.commit();
        conn.setAutoCommit(true);
    }

    private static void cancel(Connection conn) throws Exception {
        try (Statement statement = conn.createStatement()) {
            statement.setQueryTimeout(1);
            fails("57014", () -> statement.executeQuery("SELECT pg_sleep(30)"));
        }
        equal(1, number(conn, "SELECT 1"));
    }

    private static void copy(Connection conn) throws Exception {
        CopyManager copy = conn.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder data = new StringBuilder();
        for (int i = 0; i < 300; i++) {
            data.append(90_000 + i).append(",\"copied, ").append(i).append("\"\n");
        }
        equal(300L, copy.copyIn("COPY " + TABLE + " (user_id, name) FROM STDIN (FORMAT csv)", new StringReader(data.toString())));
        try (PreparedStatement read = conn.prepareStatement("SELECT name FROM " + TABLE + " WHERE user_id = ?")) {
            read.setLong(1, 90_007);
            try (ResultSet rs = read.executeQuery()) {
                check(rs.next());
                equal("copied, 7", rs.getString(1));
            }
        }
        StringWriter out = new StringWriter();
        copy.copyOut("COPY " + TABLE + " (user_id, name) TO STDOUT (FORMAT csv)", out);
        check(out.toString().contains("90007,\"copied, 7\"\n"));
    }

    private static void metadata(Connection conn) throws SQLException {
        DatabaseMetaData meta = conn.getMetaData();
        try (ResultSet tables = meta.getTables(null, "public", TABLE, new String[] {"TABLE"})) {
            check(tables.next());
            equal(TABLE, tables.getString("TABLE_NAME"));
        }
        try (ResultSet columns = meta.getColumns(null, "public", TABLE, null)) {
            int n = 0;
            while (columns.next()) {
                n++;
            }
            equal(7, n);
        }
        try (ResultSet keys = meta.getPrimaryKeys(null, "public", TABLE)) {
            check(keys.next());
            equal("user_id", keys.getString("COLUMN_NAME"));
        }
    }

    private static void exec(Connection conn, String sql) throws SQLException {
        try (Statement statement = conn.createStatement()) {
            statement.execute(sql);
        }
    }

    private static int number(Connection conn, String sql) throws SQLException {
        try (Statement statement = conn.createStatement(); ResultSet rs = statement.executeQuery(sql)) {
            check(rs.next());
            return rs.getInt(1);
        }
    }

    private static void fails(String state, Call call) throws Exception {
        try {
            call.run();
        } catch (SQLException e) {
            equal(state, e.getSQLState());
            return;
        }
        throw new AssertionError("no error, " + state + " is wanted");
    }

    private static void equal(Object want, Object got) {
        if (!Objects.equals(want, got)) {
            throw new AssertionError("got " + got + ", want " + want);
        }
    }

    private static void check(boolean ok) {
        if (!ok) {
            throw new AssertionError("condition does not hold");
        }
    }
}
