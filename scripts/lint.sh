#!/bin/bash
# Format, clippy, the promised Rust version, and the licences and sources of all dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings

# The other machine with a policy: what holds a Worker must compile for it too. (The rest needs a C compiler for it.)
other=aarch64-unknown-linux-gnu
[ "$(uname -m)" != aarch64 ] || other=x86_64-unknown-linux-gnu
if compgen -G "$("${RUSTC:-rustc}" --print target-libdir --target "$other")/libstd-*.rlib" >/dev/null; then
    cargo check --locked --target "$other" --all-targets \
        -p cloister-sys -p cloister-sandbox-runner -p cloister-policies -p cloister-ipc -p cloister
else
    echo "lint: NOT CHECKED: whether it compiles for $other, whose standard library is not installed" \
        "(rustup target add $other, or RUSTC= a compiler that has it)" >&2
fi

# No dependency may ask for a newer Rust than Cargo.toml promises (rust-version), whatever toolchain runs here.
cargo metadata --locked --format-version 1 | python3 -c '
import json, sys
number = lambda text: tuple(int(part) for part in (text + ".0.0").split(".")[:3])
packages = json.load(sys.stdin)["packages"]
promised = {p["rust_version"] for p in packages if p["source"] is None}
if len(promised) != 1 or None in promised:
    sys.exit(f"lint: the packages of the workspace promise different Rust versions: {promised}")
promise = promised.pop()
newer = [p["name"] + " " + p["version"] + " wants Rust " + p["rust_version"]
         for p in packages if p["rust_version"] and number(p["rust_version"]) > number(promise)]
if newer:
    sys.exit("lint: Cargo.toml promises Rust " + promise + ", but:\n  " + "\n  ".join(newer))
print(f"lint: Rust {promise} is enough for all {len(packages)} packages")
'

# cargo-deny, kept with the build; unoptimised, since that is one minute instead of several.
deny=$(command -v cargo-deny || echo target/tools/bin/cargo-deny)
if [ ! -x "$deny" ]; then
    echo "lint: installing cargo-deny into target/tools"
    cargo install --quiet --locked --debug --root target/tools --target-dir target/tools/build cargo-deny@0.20.2
    rm -rf target/tools/build
fi
"$deny" --locked check bans licenses sources
