#!/bin/bash
# Every test of the workspace. Tests that raise walls need root; a test that can't run fails.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "test: run as root: the walls (namespaces, cgroups, uids) can't be raised otherwise" >&2; exit 1; }
cargo build --locked --workspace --all-targets
tenants=$(scripts/tenants.sh dev)
# The harness takes the programs from there instead of asking cargo again in every test program.
export CLOISTER_TEST_BIN="$PWD/target/debug" CLOISTER_TEST_TENANTS="$tenants"
cargo test --locked --workspace --no-fail-fast "$@"
