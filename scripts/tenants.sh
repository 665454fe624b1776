#!/bin/bash
# Builds the example and test tenants as static programs and prints the folder they are in.
# usage: scripts/tenants.sh [dev|release]
# A target folder of their own: other flags (crt-static) would rebuild everything in the shared one.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-dev}
echo "tenants: building the example and test programs ($profile)" >&2
target=$(uname -m)-unknown-linux-gnu
RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --quiet --profile "$profile" --target "$target" --target-dir target/tenants \
    --bins -p cloister-demo-tenants -p cloister-test-tenants >&2
echo "$PWD/target/tenants/$target/${profile/#dev/debug}"
