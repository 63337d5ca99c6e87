# The commands of the project: `make help` lists them. What they need besides Go comes on demand
# into .local/, in the versions that tools/ names.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test check check-go check-template fmt generate build deploy-test fuzz schemathesis e2e invoke local-functions bench clean bin/marketmeter

LINT := .local/bin/golangci-lint
VULN := .local/vuln/govulncheck
SAM  := .local/sam/bin/sam
# Python tools pin each other's libraries: each has an environment of its own.
CHECKOV   := .local/checkov/bin/checkov
CFN_LINT  := .local/cfn-lint-serverless/bin/cfn-lint
MOTO      := .local/moto/bin/moto_server
ST        := .local/schemathesis/bin/schemathesis
CLIENTS   := .local/sandbox-clients/bin/python
# Functions invoked here run on this machine's processor, whatever the deployed ones run on.
ARCH := $(patsubst aarch64,arm64,$(shell uname -m))
# The go1.x build method of sam passes no flags; go takes them from GOFLAGS. Static, so that the
# same program runs in any image; with the commit, whatever GOFLAGS says; without aws-lambda-go's RPC mode, HTTP/2, paths and symbols: half the size.
FUNCTIONS := CGO_ENABLED=0 GOFLAGS="$$(go env GOFLAGS) -tags=lambda.norpc,nethttpomithttp2 -trimpath -ldflags=-s -buildvcs=true"

export SAM_CLI_TELEMETRY := 0

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: bin/marketmeter ## Serve the whole API on a local DynamoDB with sample data (ADDR, default 127.0.0.1:8080)
	@exec bin/marketmeter serve --sample

# A shell that has read .local/env may name the database of `make run`, which may be gone: what says "of its own" starts one.
OWN_DYNAMODB := env -u DYNAMODB_ENDPOINT -u TABLE_NAME bin/marketmeter with-dynamodb

# Many tests wait for a deadline or a process: with one test for each processor, as go has it, the processors wait too.
TEST := go test -p=3 -parallel=6 -timeout=30m
ifdef SHORT
ifdef CI
$(error SHORT leaves tests out, and CI runs all of them)
endif

test: bin/marketmeter $(MOTO) ## Run every test, on a DynamoDB Local of its own (SHORT=1: without what takes long, and without -race)
	$(OWN_DYNAMODB) -- $(TEST) -short ./...
else
test: bin/marketmeter $(CLIENTS) $(MOTO)
	scripts/chromium
	$(OWN_DYNAMODB) -- $(TEST) -race ./...
	cd sandbox/clienttest && go test -race ./...
endif

fuzz: bin/marketmeter ## Look for what the decoders get wrong: 50,000 inputs or 30 s each, or FUZZTIME; part of .ci/run
	$(OWN_DYNAMODB) -- scripts/fuzz

check: check-go check-template ## Check format, code, imports, modules, vulnerabilities, words and template (-j2: at once)

check-go: $(LINT) $(VULN)
	$(LINT) run
	scripts/words --self-test
	scripts/words
	cd sandbox/clienttest && $(CURDIR)/$(LINT) run && go mod tidy -diff && go mod verify
	go run ./internal/generate -diff
	go mod tidy -diff
	go mod verify
	GOTOOLCHAIN=$$(awk '$$1 == "toolchain" { print $$2 }' go.mod) $(VULN) -db file://$(CURDIR)/.local/vuln/db ./...

check-template: $(SAM) $(CFN_LINT) $(CHECKOV)
	$(SAM) validate --lint
	$(CFN_LINT) --include-checks I --append-rules cfn_lint_serverless.rules -- template.yaml
	$(CHECKOV) --config-file .checkov.yaml

fmt: $(LINT) ## Format the code
	$(LINT) fmt

generate: ## Write what follows from httpapi.Operations: tables in docs/security.md, rows in template.yaml
	go run ./internal/generate

build: $(SAM) ## Build the functions for sam deploy
	$(FUNCTIONS) $(SAM) build

deploy-test: $(MOTO) ## Deploy the template to moto's server, check what is there, and that faults are told
	.local/moto/bin/python scripts/deploy-test

e2e: bin/marketmeter local-functions $(MOTO) ## Run the tests of API and workers on the functions in containers (sam local), then each event
	SANDBOX_URL=http://127.0.0.1:8090 bin/marketmeter with-dynamodb --sample --containers -- sh -c 'scripts/e2e && scripts/e2e-workers && scripts/invoke'

invoke: bin/marketmeter local-functions ## Run each event in events/ through sam local invoke, part of e2e
	SANDBOX_URL=http://127.0.0.1:8090 bin/marketmeter with-dynamodb --sample --containers -- scripts/invoke

# Into a folder of its own: `sam deploy` must never find functions built for this processor.
local-functions: $(SAM)
	scripts/sam-docker
	$(FUNCTIONS) $(SAM) build --parameter-overrides Architecture=$(ARCH) --build-dir .local/functions >/dev/null

schemathesis: bin/marketmeter $(ST) ## Call the local server with what api/openapi.yaml allows and forbids (SEED)
	bin/marketmeter with-dynamodb --sample -- scripts/schemathesis

bench: SHELL := bash
bench: bin/marketmeter ## Measure what docs/performance.md promises, a line for each figure (ROUNDS=1 for a quick look, LONG=1 for more)
	@mkdir -p .local; set -o pipefail; \
	bin/marketmeter with-dynamodb -- go test -run='^$$' -bench=. -benchtime=1x -timeout=2h ./... 2>&1 | \
		tee .local/bench.log | grep --line-buffered '^bench: ' || { cat .local/bench.log; exit 1; }

clean: ## Remove what was built; tools and data in .local/ stay
	rm -rf bin .aws-sam .local/functions

bin/marketmeter:
	go build -buildvcs=true -o $@ ./cmd/marketmeter

$(LINT): tools/go.mod tools/go.sum
	cd tools && GOBIN=$(CURDIR)/.local/bin go install tool
	touch $@

# The Go vulnerability database is a Go module too: govulncheck reads it from a folder, without a network.
$(VULN): tools/vuln/go.mod tools/vuln/go.sum
	cd tools/vuln && GOBIN=$(CURDIR)/$(@D) go install tool
	rm -rf $(@D)/db
	$(@D)/indexdb -out $(@D)/db -vulns "$$(cd tools/vuln && go list -m -f '{{.Dir}}' golang.org/x/vulndb)/data/osv"
	touch $@

$(SAM): tools/sam-requirements.txt
$(CHECKOV): tools/checkov-requirements.txt
$(CFN_LINT): tools/cfn-lint-serverless-requirements.txt
$(MOTO): tools/moto-requirements.txt
$(ST): tools/schemathesis-requirements.txt
$(CLIENTS): tools/sandbox-clients-requirements.txt
$(SAM) $(CHECKOV) $(CFN_LINT) $(MOTO) $(ST) $(CLIENTS):
	python3 -m venv --clear $(dir $(@D))
	$(@D)/pip install --quiet -r $<
	touch $@
