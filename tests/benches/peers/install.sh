#!/bin/sh
# Gets the programs that cloister-bench measures against and with. Idempotent: what is there is left alone.
# Usage: install.sh DIRECTORY [PROGRAM...]   npm's part goes to DIRECTORY; Debian's to the system. Default: all.
# What can't be had is named on stderr ("SKIPPED: …") and the exit status stays 0: the bench then leaves
# that contestant out, and says so in its table.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
to=${1:?usage: install.sh DIRECTORY [PROGRAM...]}
shift
mkdir -p "$to"

skipped() { echo "SKIPPED: $1 ($2)" >&2; }

# program:package
want="nginx:nginx-light haproxy:haproxy bwrap:bubblewrap squid:squid tinyproxy:tinyproxy wrk:wrk strace:strace \
valgrind:valgrind perf:linux-perf"
missing=""
for pair in $want; do
    [ $# = 0 ] || case " $* " in *" ${pair%%:*} "*) ;; *) continue ;; esac
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        skipped "$missing" "not root: apt-get install$missing"
    elif ! command -v apt-get >/dev/null 2>&1; then
        skipped "$missing" "no apt-get on this system"
    else
        echo "bench peers: installing from Debian:$missing"
        # The packages would start their daemons: RUNLEVEL=1 tells invoke-rc.d not to.
        export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
        apt="apt-get -qq -y -o DPkg::Lock::Timeout=300"
        $apt update >/dev/null || true
        for package in $missing; do
            $apt install --no-install-recommends "$package" >"$to/apt-$package.log" 2>&1 ||
                skipped "$package" "apt-get failed; see $to/apt-$package.log"
        done
    fi
fi

[ $# = 0 ] || case " $* " in *" workerd "*) ;; *) exit 0 ;; esac
if ! cmp -s "$here/package.json" "$to/package.json"; then
    if ! command -v npm >/dev/null 2>&1; then
        skipped workerd "no npm: apt-get install npm"
    else
        echo "bench peers: installing from npm: workerd"
        cp "$here/package.json" "$to/package.json.new"
        rm -rf "$to/npm" && mkdir "$to/npm" && cp "$here/package.json" "$to/npm/package.json"
        if npm install --prefix "$to/npm" --no-package-lock --no-audit --no-fund --ignore-scripts \
            >"$to/npm.log" 2>&1; then
            mv "$to/package.json.new" "$to/package.json"
        else
            rm -f "$to/package.json.new"
            skipped workerd "npm failed; see $to/npm.log"
        fi
    fi
fi
