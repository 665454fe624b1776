#!/bin/bash
# Builds what the demo runs, then runs it. --once: every answer checked, nothing left behind.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --release --bins -p cloister-supervisor -p cloister-sandbox-runner
tenants=$(scripts/tenants.sh release)
cargo build --locked --release --bin cloister-demo -p cloister-tests
CLOISTER_TEST_BIN="$PWD/target/release" CLOISTER_TEST_TENANTS="$tenants" exec target/release/cloister-demo "$@"
