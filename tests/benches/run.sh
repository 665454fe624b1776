#!/bin/sh
# Gets the peers, builds what is measured, measures. Arguments go to cloister-bench (--quick, --group, --help).
set -eu

cd "$(dirname "$0")/../.."
host=$(rustc -vV | sed -n 's/^host: //p')
target=${CARGO_TARGET_DIR:-target}

tests/benches/peers/install.sh "$target/bench/peers"

echo "bench: building (release)"
cargo build --release --locked -p cloister-supervisor -p cloister-sandbox-runner -p cloister-bench-servers
cargo build --release --locked -p cloister-tests --bin cloister-bench --bin cloister-bench-hop
# The same Workers linked statically: no loader at their start.
RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked -p cloister-bench-servers --target "$host"

exec "$target/release/cloister-bench" --bin "$target/release" --static-bin "$target/$host/release" \
    --peers "$target/bench/peers" --json "$target/bench/bench.json" "$@"
