#!/bin/bash
# What one request costs the supervisor, in instructions, against what is committed: it hardly depends on the machine.
# --write: commits what it costs now.
set -euo pipefail
cd "$(dirname "$0")/.."
baseline=tests/benches/baseline.json
tests/benches/peers/install.sh target/bench/peers wrk valgrind
cargo build --locked --release -p cloister-bench-servers -p cloister-tests --bin bench-worker --bin cloister-bench --bin cloister-bench-hop
what=(--check "$baseline")
[ "${1:-}" != --write ] || what=(--write "$baseline")
exec target/release/cloister-bench --group cost --only "one hop" --rounds 1 --json target/bench/cost.json "${what[@]}"
