# make demo and make test are all that a newcomer needs; both install what is missing.

GO    ?= go
TOOLS := $(CURDIR)/bin/tools

GOLANGCI_VERSION := v2.15.0
GOLANGCI         := $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)

# Packages whose code runs concurrently. The race detector costs a second build of the SQL grammar and much
# time; what starts whole processes (e2e, cmd, bench) gains nothing from it.
RACE_PACKAGES = $(shell $(GO) list ./wire/... ./topology/... ./router/... ./backend/... ./proxy/... ./rebalance/... ./admin/... ./fence/... ./doctor/... ./internal/... 2>/dev/null)

FUZZTIME ?= 20s
SOAK     ?= 5m
BENCH    ?=

.PHONY: build setup test unit race soak fuzz bench bench-moves bench-go lint fmt demo clean

build:
	$(GO) build -o bin/ ./cmd/...

setup:
	scripts/setup.sh

test: setup build unit race

unit:
	$(GO) test -count=1 -timeout 30m ./...

race:
	$(GO) test -race -count=1 -timeout 30m $(RACE_PACKAGES)

# Moves and faults under load for SOAK, then a victim at every state of a move, then random statements whose seed is printed; SHARDPROXY_SOAK_SEED repeats the faults of an earlier run.
soak:
	SHARDPROXY_SOAK=$(SOAK) $(GO) test -count=1 -timeout 24h -v -run '^Test(Ledger|MoveCrashes)$$' ./e2e
	$(GO) test -count=1 -timeout 24h -v -run '^Test(Random.*|MovingPlans)AreExact$$' ./router -exact.count=20000 -exact.seed=$$(date +%s)

# Every fuzz target for FUZZTIME.
fuzz:
	scripts/fuzz.sh $(FUZZTIME)

# Against PostgreSQL and PgBouncer; BENCH holds further flags of bench/harness.
bench: setup build
	$(GO) run ./bench/harness $(BENCH)

# What moves cost: writes docs/moves.json, docs/moves.svg and the tables in docs/moves.md; BENCH holds further flags.
bench-moves:
	$(GO) run ./bench/moves -docs docs $(BENCH)

bench-go:
	$(GO) test -run '^$$' -bench . -benchmem ./topology ./router ./wire

lint: $(GOLANGCI)
	@for script in scripts/*.sh .ci/run; do bash -n $$script || exit 1; done
	$(GOLANGCI) run ./...

fmt: $(GOLANGCI)
	$(GOLANGCI) fmt ./...

# The version is part of the name, so that another one is built and an old one stays usable.
$(GOLANGCI):
	mkdir -p $(TOOLS)/build
	GOBIN=$(TOOLS)/build $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(TOOLS)/build/golangci-lint $@
	rmdir $(TOOLS)/build

demo: setup build
	scripts/demo.sh

# Data of `shardproxy dev` (.dev) is not touched.
clean:
	rm -rf bin bench/results.json
