# Thin on purpose: each target is one command, the thinking is in scripts/ and in the crates.
.PHONY: build setup demo test test-vm fuzz lint bench cost install install-files
CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
BUILT ?= target/release

build:              ## the two programs of an installation, target/release/{cloister,sandbox-runner}
	$(CARGO) build --locked --release --bins -p cloister-supervisor -p cloister-sandbox-runner

setup:              ## Debian packages and the system account that demo and tests use (says what it does)
	scripts/setup.sh

demo: setup         ## a platform on 127.0.0.1:8080, step by step; ONCE=1: check every answer, then end
	scripts/demo.sh $(if $(ONCE),--once)

test: setup         ## every test
	scripts/test.sh

test-vm:            ## security suite and systemd service on Debian 12's kernel 6.1 with cgroup v2, in QEMU guests
	tests/vm/run.sh

fuzz:               ## decoders and Worker protocol under a fuzzer (needs nightly Rust and cargo-fuzz); SECONDS=60 each
	cd ipc && $(CARGO) +nightly fuzz run decoder -- -max_total_time=$(or $(SECONDS),60)
	cd supervisor && $(CARGO) +nightly fuzz run worker -- -max_total_time=$(or $(SECONDS),60)

lint:               ## format, clippy, Rust version, licences and sources of dependencies
	scripts/lint.sh

bench:              ## the peers measured beside Cloister: docs/BENCHMARKS.md (ARGS=--quick)
	tests/benches/run.sh $(ARGS)

cost:               ## the instructions of one request, against tests/benches/baseline.json
	scripts/cost.sh

install: build      ## programs, systemd unit, account, folders, configuration; PREFIX=/usr/local DESTDIR=
	$(MAKE) install-files

# What packagers and tests call, with programs that are built already, in the folder BUILT.
install-files:
	install -Dm755 -t $(DESTDIR)$(PREFIX)/bin $(BUILT)/cloister $(BUILT)/sandbox-runner
	install -Dm644 packaging/cloister.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/cloister.conf
	install -Dm644 packaging/cloister.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/cloister.conf
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/bin/|$(PREFIX)/bin/|' packaging/cloister.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/cloister.service
	sed 's|/usr/bin/|$(PREFIX)/bin/|' packaging/cloister-unprivileged.service \
		>$(DESTDIR)$(PREFIX)/lib/systemd/system/cloister-unprivileged.service
	chmod 644 $(DESTDIR)$(PREFIX)/lib/systemd/system/cloister*.service
	test -e $(DESTDIR)/etc/cloister/cloister.toml || install -Dm644 packaging/cloister.toml $(DESTDIR)/etc/cloister/cloister.toml
