package drivers

import (
	"fmt"
	"net/url"
	"path/filepath"
	"testing"
)

// TestPsycopg runs the suites of psycopg 3 and psycopg2.
func TestPsycopg(t *testing.T) {
	need(t, "python3")
	dir := environment(t, "python", readFile(t, "psycopg/requirements.txt"), func(dir string) {
		command(t, installPatience, dir, nil, "python3", "-m", "venv", "--clear", "venv")
		copyFiles(t, dir, "psycopg/requirements.txt")
		command(t, installPatience, dir, nil, filepath.Join(dir, "venv/bin/pip"), "install", "-q", "-r", "requirements.txt")
	})
	python := filepath.Join(dir, "venv/bin/python")
	for _, suite := range []string{"smoke_psycopg.py", "smoke_psycopg2.py"} {
		t.Run(suite, func(t *testing.T) {
			command(t, smokePatience, "psycopg", []string{"PYTHONDONTWRITEBYTECODE=1"}, python, suite, dsn)
		})
	}
}

// TestNode runs the suite of node-postgres.
func TestNode(t *testing.T) {
	need(t, "node", "npm")
	dir := environment(t, "node", readFile(t, "node/package.json"), func(dir string) {
		copyFiles(t, dir, "node/package.json")
		command(t, installPatience, dir, nil, "npm", "install", "--no-audit", "--no-fund", "--silent")
	})
	work := t.TempDir()
	copyFiles(t, work, "node/smoke.js")
	command(t, smokePatience, work, []string{"NODE_PATH=" + filepath.Join(dir, "node_modules")}, "node", "smoke.js", dsn)
}

// TestJDBC compiles and runs the suite of the PostgreSQL JDBC driver.
func TestJDBC(t *testing.T) {
	need(t, "java", "javac", "mvn")
	const version = "42.7.4"
	dir := environment(t, "jdbc", version, func(dir string) {
		command(t, installPatience, dir, nil, "mvn", "-q", "-B", "dependency:copy",
			"-Dartifact=org.postgresql:postgresql:"+version, "-DoutputDirectory="+dir)
	})
	jar := filepath.Join(dir, "postgresql-"+version+".jar")
	work := t.TempDir()
	command(t, smokePatience, "jdbc", nil, "javac", "-Xlint:all", "-Werror", "-proc:none", "-d", work, "-cp", jar, "Smoke.java")
	command(t, smokePatience, work, nil, "java", "-XX:TieredStopAtLevel=1", "-cp", jar+":"+work, "Smoke", jdbcURL(t, dsn))
}

// jdbcURL turns a DSN into what JDBC expects.
func jdbcURL(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("user", u.User.Username())
	if password, ok := u.User.Password(); ok {
		q.Set("password", password)
	}
	return fmt.Sprintf("jdbc:postgresql://%s%s?%s", u.Host, u.Path, q.Encode())
}
