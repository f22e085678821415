#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time (default 20s). Go takes one target at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-20s}

grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | while IFS=: read -r file target; do
	echo "== $(dirname "$file") ${target#func }"
	go test -run '^$' -fuzz "^${target#func }\$" -fuzztime "$time" "$(dirname "$file")" </dev/null
done
