# The one door. `make help` lists what is behind it.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install build models run demo test check types lint format drift fuzz e2e bench bench-load soak bench-engine bench-verify image image-lock image-test measure reproduce pack clean

NODE ?= node
TSX := $(NODE) --import tsx
LISTEN ?= 127.0.0.1:8443
INSTALLED := node_modules/.package-lock.json

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): package-lock.json package.json attestation/package.json
	@$(NODE) -e 'const [a, b] = process.versions.node.split(".").map(Number); if (a < 20 || (a === 20 && b < 19)) { console.error("Assay needs Node >= 20.19, this is " + process.versions.node); process.exit(1); }'
	npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

install: $(INSTALLED) ## npm ci --ignore-scripts, when the lock changed

build: $(INSTALLED) ## compile everything to dist/
	@$(NODE) node_modules/typescript/bin/tsc -b attestation attestation/node src image

models: build ## make the demo models (deterministic, cached)
	@$(TSX) scripts/demo-model/main.ts

run: models ## install, build, make the demo model, start the attested server
	@ulimit -c 0; exec $(NODE) dist/src/cli/main.js serve --demo --listen $(LISTEN)

demo: models ## server up, client verifies, streams a chat answer, prints the verdict, shuts down
	@$(TSX) scripts/demo.ts

test: types models optional ## everything that must hold; what CI runs
	@$(if $(filter true,$(CI)),ASSAY_IMAGE_TEST=1) $(NODE) node_modules/vitest/vitest.mjs run

# A browser, the inputs of the image and tool servers are large and not needed by most: only CI fetches them. Tests say when they are missing.
optional: build
ifeq ($(CI),true)
	@command -v chromium >/dev/null || { apt-get -qq update && apt-get -qq install -y chromium; } >/dev/null 2>&1 || echo '! chromium cannot be installed: the browser tests are skipped'
	@$(NODE) dist/image/inputs.js || echo '! the inputs of the image cannot be fetched: the boot tests are skipped'
	@$(TSX) test/fixtures/mcp/fetch.ts || echo '! the tool servers cannot be fetched: their tools are not tried'
endif

check: types lint format drift ## types, lint, format, floors, unused code, drift

types: build ## the tests and scripts, too
	@$(NODE) node_modules/typescript/bin/tsc -b

lint: $(INSTALLED)
	@node_modules/.bin/oxlint --type-aware --deny-warnings
	@node_modules/.bin/knip

format: $(INSTALLED)
	@node_modules/.bin/prettier --check .

drift: build ## regenerate generated files and compare
	@$(TSX) scripts/drift.ts

fuzz: models ## the property tests, a hundred times longer
	@ASSAY_FUZZ=100 $(NODE) node_modules/vitest/vitest.mjs run test/attestation test/src -t 'property'

e2e: models ## only the end-to-end tests
	@$(NODE) node_modules/vitest/vitest.mjs run test/e2e

soak: models ## ten minutes of random clients and faults; SECONDS=600
	@$(TSX) scripts/soak.ts --seconds $(or $(SECONDS),600)

bench: models ## measure; prints tables, asserts nothing
	@$(TSX) scripts/bench.ts
	@$(TSX) scripts/bench-attester.ts
	@$(TSX) scripts/bench-model.ts
	@$(TSX) scripts/bench-cold.ts
	@$(TSX) scripts/bench-tenants.ts

bench-engine: models ## engine against LLAMA_SERVER=/path/to/llama-server, when given
	@$(TSX) scripts/bench-engine.ts

bench-verify: build ## one SNP and one TDX verification beside the bare signature checks
	@$(TSX) scripts/bench-verify.ts

bench-load: models ## goodput and refusals at one and two times the load
	@$(TSX) scripts/bench-load.ts

image-inputs: build ## fetch what image/inputs.lock.json lists into .cache/inputs
	@$(NODE) dist/image/inputs.js

image: build ## build the VM image into out/
	@$(NODE) dist/image/build.js

image-lock: build ## renew image/inputs.lock.json from signature-checked indices
	@$(NODE) dist/image/lock-update.js

image-model: build ## pack MODEL=weights.gguf as a model disk
	@$(NODE) dist/image/model.js $(MODEL)

image-reference: build ## write image/reference-values.json from NAME=out/manifest.json …
	@$(NODE) dist/image/reference.js $(MANIFESTS)

image-test: models ## boot the image under software emulation (needs make image-inputs)
	@ASSAY_IMAGE_TEST=1 $(NODE) node_modules/vitest/vitest.mjs run test/image

measure: build ## recompute everything out/manifest.json states
	@$(NODE) attestation/bin/assay-verify.js measure out/manifest.json

reproduce: build ## build the image twice, differently, and compare every byte
	@$(NODE) dist/image/reproduce.js

pack: $(INSTALLED) ## the npm packages, out/*.tgz: the same bytes wherever they are made
	@$(TSX) scripts/pack.ts

clean: ## remove what was built (not node_modules, not the cache of inputs)
	rm -rf dist attestation/dist out coverage
