#!/usr/bin/env bash
# Installs what building, testing and the demo need and this machine lacks: PostgreSQL (server, client, pgbench),
# PgBouncer, gcc and make, by apt-get as root or through sudo. Does nothing where all is there.
# No server is started: neither Debian's own PostgreSQL cluster nor PgBouncer.
set -euo pipefail

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

have_server() {
	have initdb && return 0
	compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || compgen -G '/usr/pgsql-*/bin/initdb' >/dev/null
}

missing=()
have_server || missing+=(postgresql postgresql-contrib)
{ have psql && have pgbench; } || missing+=(postgresql-client postgresql-contrib)
have pgbouncer || missing+=(pgbouncer)
have gcc || missing+=(gcc libc6-dev)
have make || missing+=(make)

if ! have go; then
	die "Go is missing, and no distribution has a new enough one: get $(sed -n 's/^go //p' "$(dirname "$0")/../go.mod") or newer from https://go.dev/dl/"
fi
if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi
have apt-get || die "please install: ${missing[*]} (only apt-get is known here)"

root=()
if [ "$(id -u)" -ne 0 ]; then
	have sudo || die "please install as root: ${missing[*]}"
	root=(sudo)
fi
apt() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@"; }

# Undo, however we end, what keeps the packages from starting their servers.
policy=/usr/sbin/policy-rc.d
nocluster=/etc/postgresql-common/createcluster.d/shardproxy-setup.conf
made_policy=
restore() {
	if [ -n "$made_policy" ]; then "${root[@]}" rm -f "$policy"; fi
	"${root[@]}" rm -f "$nocluster"
}
trap restore EXIT

if [ ! -e "$policy" ]; then
	made_policy=1
	printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
	"${root[@]}" chmod 755 "$policy"
fi
"${root[@]}" mkdir -p "$(dirname "$nocluster")"
echo 'create_main_cluster = false' | "${root[@]}" tee "$nocluster" >/dev/null

say "installing ${missing[*]}"
apt update
apt install --no-install-recommends "${missing[@]}"
have_server || die "the PostgreSQL server is still missing"
say "done"
