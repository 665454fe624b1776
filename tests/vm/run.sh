#!/bin/bash
# make test-vm: Cloister on Debian 12's own kernel (6.1: landlock ABI 2, no MDWE) with pure cgroup v2,
# in QEMU guests without hardware help (TCG). Needs root only to install packages.
#
# usage: tests/vm/run.sh [suite|service]...      default: both
#   suite    the security suite, in a guest of busybox and the programs under test
#   service  a minimal Debian with systemd, installed as docs/OPERATIONS.md says, run as an operator would
# TESTS: a filter for names of the suite's tests. MINUTES: the most a guest may take (20).
#
# Kernel, packages, root file system and packed guests are kept in target/vm and made anew when what
# they are made of has changed.
set -euo pipefail
cd "$(dirname "$0")/../.."
top=$PWD
vm=$top/target/vm
mkdir -p "$vm"
source tests/vm/host.sh
source tests/vm/boot.sh

guests=("$@")
[ ${#guests[@]} -gt 0 ] || guests=(suite service)
for guest in "${guests[@]}"; do
    [ -e "tests/vm/$guest.sh" ] && [ -d "tests/vm/$guest" ] || { echo "no guest $guest: suite, service" >&2; exit 2; }
done

host_packages
host_kernel
echo "building the programs under test"
cargo build --locked --quiet -p cloister-supervisor -p cloister-sandbox-runner --bins
status=0
for guest in "${guests[@]}"; do
    printf '\n-- guest %s\n' "$guest"
    source "tests/vm/$guest.sh"
    "build_$guest"
    boot "$guest" || status=1
done
exit "$status"
