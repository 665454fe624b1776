#!/bin/bash
# Builds what the demo runs, then runs it. --once: every answer checked, nothing left behind.
set -euo pipefail
cd "$(dirname "$0")/.."
if (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; then
    echo "demo: something listens on 127.0.0.1:8080, another demo perhaps: stop it, then try again" >&2
    exit 1
fi
cargo build --locked --release --bins -p cloister-supervisor -p cloister-sandbox-runner
tenants=$(scripts/tenants.sh release)
cargo build --locked --release --bin cloister-demo -p cloister-tests
CLOISTER_TEST_BIN="$PWD/target/release" CLOISTER_TEST_TENANTS="$tenants" exec target/release/cloister-demo "$@"
