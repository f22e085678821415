#!/usr/bin/env bash
# Shows shardproxy with four real PostgreSQL shards of its own: tables are created through one DSN, their rows
# land on the shards that their keys say, pgbench runs through it, and a fifth shard takes its share meanwhile. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d "${TMPDIR:-/tmp}/shardproxy-demo-XXXXXX")
chmod 755 "$work" # started by root, the servers run as another user
pid=
load=
finish() {
	status=$?
	trap - EXIT
	rm -f "$work/growing" # which ends the load
	if [ -n "$load" ]; then
		wait "$load" || true
	fi
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
bin/shardproxy dev --dir "$work/dev" --ephemeral --shards 4 --replicas 1 --spare 1 \
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
spare=${shards[4]} # a server with an empty database, which is no shard yet
shards=("${shards[@]:0:4}")
export SHARDCTL_DSN=$console
echo "applications see one database: $dsn"

title "Tables: users by id, projects by their creator, events by a uuid"
run "$dsn" "CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL)"
run "$dsn" "CREATE TABLE projects (id bigint, creator_user_id bigint NOT NULL REFERENCES users, name text, PRIMARY KEY (creator_user_id, id))"
run "$dsn" "CREATE TABLE events (user_id uuid, at timestamptz DEFAULT now(), what text, PRIMARY KEY (user_id, at))"

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
	pgbench -n -S -M "$mode" -c 16 -j 2 -T 2 "$dsn" | grep -E 'processed|failed|latency average|tps'
done

title "A fifth shard, while clients write to accounts (by key) and to tellers (a copy on every shard)"
cat >"$work/transfer.sql" <<'SQL'
\set aid random(1, 100000)
\set tid random(1, 10)
\set delta random(-5000, 5000)
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
SQL
touch "$work/growing"
while [ -e "$work/growing" ]; do
	pgbench -n -M prepared -c 8 -j 2 -T 2 -f "$work/transfer.sql" "$dsn"
done >"$work/load" 2>&1 &
load=$!
ctl() { # prints the command, then what it says
	printf '\n> shardctl %s\n' "$*"
	bin/shardctl "$@" 2>&1
}
ctl shard add s5 --dsn "$spare"
ctl rebalance --wait --finish
title "And shard s1 is cut in two: half of it goes to s2"
ctl split s1 --to s2 --wait --finish
rm "$work/growing"
wait "$load" || { load=; cat "$work/load" >&2; echo "demo: pgbench failed" >&2; exit 1; }
load=
awk '/actually processed/ { sub("/.*", "", $NF); n += $NF } /failed transactions/ { f += $5 }
	END { printf "\npgbench: %d transactions meanwhile, %d failed\n", n, f; exit !(n > 0 && f == 0) }' "$work/load"
if grep 'ERROR' "$work/load" >&2; then
	exit 1
fi

title "Is everything in its place?"
ctl shards
ctl verify
shards+=("$spare")
rows=0 balance=0 tellers=
for i in "${!shards[@]}"; do
	IFS='|' read -r count sum told < <(psql -X -A -t "${shards[$i]}" -c "SELECT count(*), coalesce(sum(abalance), 0), (SELECT sum(tbalance) FROM pgbench_tellers) FROM pgbench_accounts")
	printf 's%d: %s accounts\n' "$((i + 1))" "$count"
	rows=$((rows + count)) balance=$((balance + sum))
	[ "${tellers:=$told}" = "$told" ] || { echo "demo: shard $((i + 1)) has other tellers than the first" >&2; exit 1; }
done
[ "$rows" = 100000 ] || { echo "demo: there are $rows accounts instead of 100000" >&2; exit 1; }
[ "$balance" = "$tellers" ] || { echo "demo: accounts have $balance, tellers $tellers" >&2; exit 1; }
echo "100000 accounts, each once; accounts and tellers agree on every shard"

title "The console: pools, as in PgBouncer"
run "$console" "SHOW POOLS"
if command -v curl >/dev/null; then
	title "Metrics at $metrics/metrics"
	curl -fsS "$metrics/metrics" | grep '^shardproxy_' | head -n 8 || true
fi

title "Done; stopping everything"
