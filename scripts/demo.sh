#!/usr/bin/env bash
# Shows shardproxy with four real PostgreSQL shards of its own: tables are created through one DSN, their rows
# land on the shards that their keys say, and pgbench runs through it. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d "${TMPDIR:-/tmp}/shardproxy-demo-XXXXXX")
chmod 755 "$work" # started by root, the servers run as another user
pid=
finish() {
	status=$?
	trap - EXIT
	if [ -n "$pid" ] && kill -TERM "$pid" 2>/dev/null; then
		wait "$pid" || true
	fi
	if [ "$status" -ne 0 ]; then
		echo "demo: failed; the end of the log:" >&2
		tail -n 40 "$work/log" >&2 || true
	fi
	rm -rf "$work"
	exit "$status"
}
trap finish EXIT

title() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
run() { # prints the SQL, then the answer
	local dsn=$1 sql=$2
	printf '\n> %s\n' "$sql"
	psql -X -q -v ON_ERROR_STOP=1 -P pager=off "$dsn" -c "$sql"
}

title "4 PostgreSQL shards with a replica each, and the proxy"
bin/shardproxy dev --dir "$work/dev" --ephemeral --shards 4 --replicas 1 \
	--listen 127.0.0.1:0 --http 127.0.0.1:0 --table pgbench_accounts.aid >"$work/out" 2>"$work/log" &
pid=$!
until [ -s "$work/dev/dev.json" ]; do
	kill -0 "$pid" 2>/dev/null || { wait "$pid" || true; pid=; echo "demo: it did not start" >&2; exit 1; }
	sleep 0.1
done
field() { sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$work/dev/dev.json"; }
dsn=$(field dsn | head -n 1)
console=$(field admin | head -n 1)
metrics=$(field http | head -n 1)
mapfile -t shards < <(sed -n '/"role": "primary"/{n;s/.*"dsn": "\(.*\)".*/\1/p}' "$work/dev/dev.json")
echo "applications see one database: $dsn"

title "Tables: users by id, projects by their creator, events by a uuid"
run "$dsn" "CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL)"
run "$dsn" "CREATE TABLE projects (id bigint, creator_user_id bigint NOT NULL REFERENCES users, name text, PRIMARY KEY (creator_user_id, id))"
run "$dsn" "CREATE TABLE events (user_id uuid NOT NULL, at timestamptz NOT NULL DEFAULT now(), what text)"

title "Rows go in one by one, and several at once"
for id in $(seq 1 12); do
	psql -X -q -v ON_ERROR_STOP=1 "$dsn" -c "INSERT INTO users VALUES ($id, 'user$id@example.com')"
done
echo "12 users inserted"
for id in 3 7 11; do
	run "$dsn" "INSERT INTO projects VALUES (1, $id, 'first of $id'), (2, $id, 'second of $id')"
done
run "$dsn" "INSERT INTO events (user_id, what) VALUES ('5f6c5f8a-9f0b-4c8e-8a52-6f0c86a1b6aa', 'login')"

title "The proxy knows the shard: a row, and a join, by the key"
run "$dsn" "SELECT * FROM users WHERE id = 7"
run "$dsn" "SELECT u.email, p.name FROM users u JOIN projects p ON p.creator_user_id = u.id WHERE u.id = 7 ORDER BY p.id"

title "Each shard asked directly: which users it holds"
total=0
for i in "${!shards[@]}"; do
	ids=$(psql -X -A -t "${shards[$i]}" -c "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '-') FROM users")
	count=$(psql -X -A -t "${shards[$i]}" -c "SELECT count(*) FROM users")
	# The shards own equal parts of the ring of hashes, so the owner can be told in plain SQL.
	wrong=$(psql -X -A -t "${shards[$i]}" -c "SELECT count(*) FROM users
		WHERE floor((hashint8extended(id, 8816678312871386365)::numeric + 2::numeric ^ 63) / (2::numeric ^ 64) * ${#shards[@]}) <> $i")
	printf 's%d: users %s\n' "$((i + 1))" "$ids"
	total=$((total + count))
	[ "$wrong" = 0 ] || { echo "demo: shard $((i + 1)) holds $wrong users that its range does not" >&2; exit 1; }
done
[ "$total" = 12 ] || { echo "demo: the shards hold $total users instead of 12" >&2; exit 1; }
echo "12 users, each once, each where hashint8extended says"

title "pgbench fills pgbench_accounts (key: aid) through the proxy"
pgbench -i -I dtgvp -q -s 1 "$dsn" 2>&1 | tail -n 3
for i in "${!shards[@]}"; do
	printf 's%d: %s accounts\n' "$((i + 1))" "$(psql -X -A -t "${shards[$i]}" -c 'SELECT count(*) FROM pgbench_accounts')"
done
for mode in simple extended prepared; do
	title "pgbench -S -M $mode, 16 clients"
	pgbench -n -S -M "$mode" -c 16 -j 2 -T 3 "$dsn" | grep -E 'processed|failed|latency average|tps'
done

title "The console: pools, as in PgBouncer"
run "$console" "SHOW POOLS"
if command -v curl >/dev/null; then
	title "Metrics at $metrics/metrics"
	curl -fsS "$metrics/metrics" | grep '^shardproxy_' | head -n 8 || true
fi

title "Done; stopping everything"
