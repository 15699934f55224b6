# Every target does its own set-up; a second call takes seconds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
STAMP := $(VENV)/installed

# The laboratory that tests/lab and the benchmarks run in: two queues, everything private, nothing left.
LAB := $(BIN)/xsk-engine lab run --queues 2 --

# An ordinary user is root in there, and pytest's folder in /tmp may be the real one's.
LAB_TMP := --basetemp=build/lab-tmp

# The emulated machine: igb, virtio or virtio-no-iommu; IOMMU=strict, lazy or passthrough.
NICS ?= igb

FUZZ_SECONDS ?= 300

SOAK_SECONDS ?= 1800
SOAK_DESCS ?= 10000000000

# Where install-c puts things, below DESTDIR; LIBDIR within PREFIX. The example has a prefix of its own.
PREFIX ?= /usr/local
LIBDIR ?= lib
C_PREFIX := $(CURDIR)/build/c/prefix

.DEFAULT_GOAL := help
.PHONY: help setup setup-test build demo test test-unit test-native test-native-python test-native-threads test-lab test-machine test-machine-short tsan test-faults model soak-descs soak \
	machine machine-shell docs lint format test-traffic test-tcp-long test-tcp-matrix fuzz test-fuzz test-tcp bench bench-quick bench-micro bench-limit bench-start \
	bench-pace bench-replay bench-live bench-library bench-sink bench-premap bench-tcp bench-tcp-loss bench-tcp-bounds dist install-c example-c example-fan_out \
	example-video example-log_shipper example-two_producers example-flow_beside example-http_upload clean distclean

help: ## this list
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

setup:
	@PYTHON=$(PYTHON) .ci/setup build

setup-test:
	@PYTHON=$(PYTHON) .ci/setup test

$(BIN)/meson: | setup
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'meson-python>=0.17' 'meson>=1.3' ninja

# The development install that meson-python documents: native code is rebuilt when it is imported.
$(STAMP): pyproject.toml meson.build meson_options.txt native/meson.build $(BIN)/meson
	$(PIP) install --no-build-isolation --editable '.[test,lint]'
	@touch $@

# Such an install keeps no bytecode by itself: without, every command would compile the package anew.
build: setup $(STAMP) ## virtual environment and native library
	@$(BIN)/python -m compileall -q xsk_engine

demo: build ## frames through a private laboratory, every one checked; their latencies, with a picture (no root needed)
	@mkdir -p build
	@$(BIN)/xsk-engine demo --picture build/demo-latency.svg

# Side by side where no test asks how long something took, or a machine of its own mostly waits.
TOGETHER = @$(MAKE) --no-print-directory --jobs
# Its jobs are this make's own: ninja, which meson and an import of the package call, would ask for them and find nobody.
APART := env -u MAKEFLAGS

test: setup-test build build/native build/asan build/tsan $(STAMP)-fuzz ## all tests but the long ones
	$(TOGETHER) --output-sync=target test-machine-short test-unit test-native-python model
	@$(MAKE) --no-print-directory test-native-threads
	$(TOGETHER) test-lab test-fuzz

test-unit: setup-test build ## parsing, packets, layouts: seconds
	$(APART) $(BIN)/python -m pytest -q tests/unit tests/ffi

test-native: test-native-python test-native-threads ## model tests, and the stress test under sanitizers

test-native-python: setup-test build build/native
	$(APART) $(BIN)/meson compile -C build/native >/dev/null
	$(APART) $(BIN)/python -m pytest -q -m "not slow" tests/native

test-native-threads: setup-test build build/native build/asan tsan
	$(BIN)/meson test -C build/native --print-errorlogs
	$(BIN)/meson test -C build/asan --print-errorlogs

model: setup-test build ## return list, rings, sleep and wake and their like: all interleavings of the models in native/models, by spin
	$(APART) $(BIN)/python -m tests.models

tsan: setup-test build build/tsan ## the native tests with real threads under ThreadSanitizer
	$(BIN)/meson test -C build/tsan --print-errorlogs

test-faults: setup-test build build/native ## what goes wrong with devices, kernels, processes and limits
	$(BIN)/meson compile -C build/native >/dev/null
	$(LAB) $(BIN)/python -m pytest -q $(LAB_TMP) tests/lab/faults tests/lab/test_trouble.py

soak: setup-test build ## 30 minutes at full rate, with flows, endpoints, connections and engines that come and go: what is lost, wrong or kept? SOAK_SECONDS=
	$(LAB) $(BIN)/python -m tests.soak --seconds $(SOAK_SECONDS) $(if $(SOAK_SEED),--seed $(SOAK_SEED))

soak-descs: setup-test build build/native ## 10^10 descs on the fake kernel from 1000 before an index wraps: three wraps (some minutes); SOAK_DESCS=
	$(BIN)/meson compile -C build/native >/dev/null
	build/native/tests/native/wraps $(SOAK_DESCS)

test-tcp: setup-test build build/native ## TCP between two engines, and with a small reference, over thousands of bad wires (some minutes)
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m pytest -q tests/native/tcp

test-lab: setup-test build build/native ## real AF_XDP in network namespaces
	$(APART) $(BIN)/meson compile -C build/native >/dev/null
	$(APART) $(LAB) $(BIN)/python -m pytest -q -m "not slow" $(LAB_TMP) tests/lab

test-traffic: setup-test build ## 100,000 packets of random programs through Wireshark, 12 million through the kernel's checks
	$(LAB) $(BIN)/python -m pytest -q -m slow $(LAB_TMP) --ignore tests/lab/test_tcp_long.py \
		--ignore tests/lab/test_tcp_matrix.py tests/lab

test-tcp-long: setup-test build ## a gigabyte through a TCP connection for each of three MTUs, and Wireshark's opinion of it (root)
	$(LAB) $(BIN)/python -m pytest -q -m slow $(LAB_TMP) tests/lab/test_tcp_long.py

test-tcp-matrix: setup-test build ## TCP over some 200 bad wires into a kernel's socket, and peers that go (root, 11 minutes)
	$(LAB) $(BIN)/python -m pytest -q $(LAB_TMP) tests/lab/test_tcp_matrix.py

EXAMPLE_ADDRESS = $(if $(filter fan_out,$*),,10.77.0.2)

example-fan_out: ## market data to a hundred multicast groups; likewise example-video, -log_shipper, -two_producers, -flow_beside
example-fan_out example-video example-two_producers example-flow_beside: example-%: build
	@$(LAB) $(BIN)/python examples/$*.py vtx $(EXAMPLE_ADDRESS)

example-log_shipper: example-%: build
	@seq -f 'line %.0f' 1000 | $(LAB) $(BIN)/python examples/$*.py vtx $(EXAMPLE_ADDRESS)

example-http_upload: build ## a file by HTTP through the engine's TCP, to Python's own HTTP server (root)
	@$(LAB) sh -c '$(BIN)/xsk-engine lab peer -- $(BIN)/python examples/http_receiver.py 10.77.0.2 8080 & receiver=$$!; \
		trap "kill $$receiver" EXIT; sleep 1; \
		$(BIN)/python examples/http_upload.py vtx http://10.77.0.2:8080/readme README.md'

fuzz: setup-test build $(STAMP)-fuzz ## hostile input of every kind, FUZZ_SECONDS=300 for each target; FUZZ="tcp values": only these
	@$(MAKE) --no-print-directory -s -k -j $$(nproc) -f tests/fuzz/fuzz.mk SECONDS=$(FUZZ_SECONDS) $(FUZZ)

# The lab beside it has the cores whenever it wants them.
test-fuzz: setup-test build $(STAMP)-fuzz
	@chrt --idle 0 $(MAKE) --no-print-directory -s -k --jobs=1 -f tests/fuzz/fuzz.mk SECONDS=20

test-machine-short: setup-test build
	$(APART) $(BIN)/python -m pytest -q -rs -m "not slow" -o faulthandler_timeout=900 tests/machine

test-machine: setup-test build ## all tests of the emulated machine: zero-copy NICs, strict IOMMU (8 minutes)
	$(BIN)/python -m pytest -v -rs -o faulthandler_timeout=900 tests/machine

machine: setup-test build ## boot the emulated machine, show what its NICs can do; NICS=virtio, IOMMU=lazy
	@$(BIN)/python -m tests.machine summary --nics $(NICS) $(if $(IOMMU),--iommu $(IOMMU))

machine-shell: setup-test build ## a console in it
	@$(BIN)/python -m tests.machine shell --nics $(NICS) $(if $(IOMMU),--iommu $(IOMMU))

build/native: $(STAMP)
	$(BIN)/meson setup --reconfigure $@ -Dtests=true >/dev/null || $(BIN)/meson setup $@ -Dtests=true

build/asan: $(STAMP)
	$(BIN)/meson setup $@ -Dtests=true -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false

build/tsan: $(STAMP)
	$(BIN)/meson setup $@ -Dtests=true -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false

docs: build $(STAMP)-bench ## docs/cli.md, figures.md and the man pages from what the program says of itself, README's figures from bench/results
	$(BIN)/python docs/generate.py

lint: setup-test build ## ruff, mypy, clang-format, and docs that are what the program says
	$(BIN)/python docs/generate.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files '*.c' '*.h' | xargs $(BIN)/clang-format --dry-run --Werror

format: build ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .
	git ls-files '*.c' '*.h' | xargs $(BIN)/clang-format -i

bench: setup-test build build/native $(STAMP)-bench ## the engine beside everybody else: all experiments into bench/results/, with a report (80 minutes, root)
	@PYTHON=$(PYTHON) .ci/setup rivals
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run

bench-quick: setup-test build build/native $(STAMP)-bench ## the same in a few minutes, to see how things stand: tables, and a page in build/bench-quick/
	@PYTHON=$(PYTHON) .ci/setup rivals
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run --quick --out build/bench-quick

bench-micro: build build/native ## ns per operation of allocator and packet path, into bench/results/
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run micro

bench-limit: build build/native ## the engine against a minimal C sender, into bench/results/
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run limit

bench-start: build build/native ## from starting a sender to its first packet, into bench/results/ (3 minutes)
	@PYTHON=$(PYTHON) .ci/setup rivals
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run start

bench-pace: build build/native ## how well rates are kept, beside trafgen, tcpreplay and iperf3, into bench/results/ (8 minutes)
	@PYTHON=$(PYTHON) .ci/setup rivals
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run pace

bench-replay: build build/native ## a capture file sent again, beside tcpreplay, into bench/results/ (7 minutes)
	@PYTHON=$(PYTHON) .ci/setup rivals
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run replay

bench-live: build ## what watching a run costs it, into bench/results/ (2 minutes)
	$(BIN)/python -m bench run live

bench-library: build build/native ## the library beside a C sender, sockets and asyncio, into bench/results/ (3 minutes)
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run library

bench-sink: build ## what it costs a sink to check every packet, into bench/results/ (1 minute, root)
	$(BIN)/python -m bench run sink

bench-tcp-loss: setup-test build build/native ## TCP of the engine beside the kernel's CUBIC, over wires that lose and reorder (10 minutes, root)
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run loss $(if $(ROUNDS),--rounds $(ROUNDS))

bench-premap: setup-test build build/native $(STAMP)-bench ## what mapping once saves: DMA maps, instructions, allocator (8 minutes)
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run premap allocator $(if $(ROUNDS),--rounds $(ROUNDS))

bench-tcp-bounds: setup-test build build/native $(STAMP)-bench ## what an ACK costs, and a blind TCP stream beside the kernel's TCP (5 minutes, root)
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run acks blind $(if $(ROUNDS),--rounds $(ROUNDS))

bench-tcp: setup-test build build/native ## TCP of the engine beside the kernel's: instructions in zero-copy, goodput on veth (15 minutes, root); ROUNDS=1 to try
	$(BIN)/meson compile -C build/native >/dev/null
	$(BIN)/python -m bench run instructions goodput connections $(if $(ROUNDS),--rounds $(ROUNDS))

$(STAMP)-fuzz: $(STAMP)
	$(PIP) install --no-build-isolation --editable '.[fuzz]'
	@touch $@

$(STAMP)-bench: $(STAMP)
	$(PIP) install --no-build-isolation --editable '.[bench]'
	@touch $@

dist: build ## sdist, and a wheel built from it, into dist/
	$(PIP) install build
	$(BIN)/python -m build

install-c: $(BIN)/meson ## libxske, xske.h and xske.pc for C programs, without Python; PREFIX=/usr/local LIBDIR=lib DESTDIR=
	$(BIN)/meson setup build/c $(if $(wildcard build/c/build.ninja),--reconfigure) -Dlibrary_only=true \
		--prefix=$(abspath $(PREFIX)) --libdir=$(LIBDIR) >/dev/null
	$(BIN)/meson install -C build/c $(if $(DESTDIR),--destdir=$(abspath $(DESTDIR)))

example-c: build ## examples/c_sender.c: the arena and the loop from C, in a private laboratory
	@$(MAKE) --no-print-directory install-c PREFIX=$(C_PREFIX) LIBDIR=lib DESTDIR= >/dev/null
	cc -O2 -pthread examples/c_sender.c -o build/c/c_sender -Wl,-rpath,$(C_PREFIX)/lib \
		$$(PKG_CONFIG_PATH=$(C_PREFIX)/lib/pkgconfig pkg-config --cflags --libs xske libxdp)
	$(LAB) build/c/c_sender vtx 02:77:00:00:00:01 02:77:00:00:00:02 10.77.0.1 10.77.0.2 9000 100000

clean: ## what was built; the emulated machine's packages stay
	rm -rf build dist $(STAMP) $(STAMP)-bench $(STAMP)-fuzz .pytest_cache .mypy_cache .ruff_cache .hypothesis

distclean: clean ## and the virtual environment and the machine's packages
	rm -rf $(VENV) .machine
