#!/bin/bash
# Everything that `make demo` and `make test` need besides a Rust toolchain, on Debian 12. Safe to run again:
# what is there is left alone. Where it may not install (not root, no apt) it names what is missing and stops.
set -euo pipefail

ACCOUNT=cloister
# package: a file that tells it is there: what for
NEEDS=(
    "gcc:/usr/bin/gcc:C compiler, for SQLite, TLS and the hostile test programs"
    "libc6-dev:/usr/lib/x86_64-linux-gnu/libc.a:C library to link programs statically"
    "make:/usr/bin/make:make"
    "curl:/usr/bin/curl:HTTP client of the demo and the tests"
    "ca-certificates:/etc/ssl/certs/ca-certificates.crt:certificates of public authorities"
    "nginx-light:/usr/sbin/nginx:tenant: an unmodified C server"
    "lighttpd:/usr/sbin/lighttpd:tenant: an unmodified C server"
    "caddy:/usr/bin/caddy:tenant: an unmodified Go server"
    "busybox-static:/bin/busybox:tenant: a server that forks for each request"
    "python3:/usr/bin/python3:tenant: a script runtime"
    "stress-ng:/usr/bin/stress-ng:hostile tenant: every kind of load"
    "trinity:/usr/bin/trinity:hostile tenant: system calls by chance"
)

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || die "Cloister runs on Linux only, this is $(uname -s)"
[ "$(uname -m)" = x86_64 ] || die "the demo and the tests want x86_64, this is $(uname -m)"
for tool in cargo rustc; do
    command -v "$tool" >/dev/null || die "$tool is not in PATH: install a Rust toolchain (https://rustup.rs), 1.89 or newer"
done

missing=()
for need in "${NEEDS[@]}"; do
    IFS=: read -r package file purpose <<<"$need"
    [ -e "$file" ] || { missing+=("$package"); say "missing: $package ($purpose)"; }
done

if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "there is no apt-get; install these yourself: ${missing[*]}"
    [ "$(id -u)" = 0 ] || die "not root, so nothing was installed; run as root: apt-get install --no-install-recommends ${missing[*]}"
    say "installing with apt-get: ${missing[*]}"
    # The servers are wanted as programs, not as services: neither started now nor at boot.
    guard=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        guard=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod 755 "$guard"
        trap '[ -z "$guard" ] || rm -f "$guard"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    for service in nginx lighttpd caddy; do
        case " ${missing[*]} " in
            *" $service "* | *" $service-light "*)
                [ ! -d /run/systemd/system ] || systemctl disable --quiet "$service" || say "could not disable the service $service"
                ;;
        esac
    done
    for need in "${NEEDS[@]}"; do
        IFS=: read -r package file purpose <<<"$need"
        [ -e "$file" ] || die "$package was installed, but $file is not there"
    done
fi

if ! getent passwd "$ACCOUNT" >/dev/null; then
    [ "$(id -u)" = 0 ] || die "there is no account '$ACCOUNT'; run as root: useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin $ACCOUNT"
    say "creating the system account '$ACCOUNT', to which the supervisor drops its privileges"
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$ACCOUNT"
fi

say "ready"
