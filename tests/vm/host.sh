# What the host needs for guests: packages, the kernel, programs made small. Sourced by run.sh.

# Installs what is missing.
host_packages() {
    local need missing=()
    for need in qemu-system-x86_64:qemu-system-x86 cpio:cpio zstd:zstd gcc:gcc strip:binutils mmdebstrap:mmdebstrap \
        stress-ng:stress-ng trinity:trinity; do
        command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
    done
    [ -e /usr/share/seabios/bios-256k.bin ] || missing+=(seabios)
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing packages: ${missing[*]} (apt-get install them, or run as root)" >&2
        exit 1
    fi
    echo "installing from Debian: ${missing[*]}"
    quietly apt-get update
    quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# A fresh machine's apt knows nothing.
apt_lists() {
    if [ -z "$(candidate linux-image-cloud-amd64)" ] && [ "$(id -u)" = 0 ]; then
        quietly apt-get update
    fi
}

# The version of a package that apt would install; empty when it knows none.
candidate() {
    apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ && $2 != "(none)" { print $2 }'
}

# Runs a command, whose output matters only when it fails.
quietly() {
    "$@" >"$vm/quietly.$$" 2>&1 || { cat "$vm/quietly.$$" >&2; rm -f "$vm/quietly.$$"; return 1; }
    rm -f "$vm/quietly.$$"
}

# Debian 12's newest kernel for virtual machines as $vm/kernel/vmlinuz, and busybox beside it.
host_kernel() {
    apt_lists
    local kernel version
    version=$(candidate linux-image-cloud-amd64)
    kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-6\.1/ {print $2; exit}')
    if [ -z "$kernel" ]; then
        [ -e "$vm/kernel/version" ] && { echo "apt has no package lists: the kernel from before"; return; }
        echo "apt knows no linux-image-cloud-amd64 of version 6.1: this needs Debian 12's package lists (apt-get update)" >&2
        exit 1
    fi
    [ "$(cat "$vm/kernel/version" 2>/dev/null)" = "$version" ] && return
    echo "Debian's kernel $version and busybox"
    rm -rf "$vm/kernel" && mkdir -p "$vm/kernel/unpacked"
    (cd "$vm/kernel" && quietly apt-get download "$kernel" busybox-static)
    for package in "$vm"/kernel/*.deb; do dpkg-deb -x "$package" "$vm/kernel/unpacked"; done
    cp "$vm"/kernel/unpacked/boot/vmlinuz-* "$vm/kernel/vmlinuz"
    cp "$vm/kernel/unpacked/bin/busybox" "$vm/kernel/busybox"
    rm -rf "$vm"/kernel/unpacked "$vm"/kernel/*.deb
    echo "$version" >"$vm/kernel/version"
}

# stripped FILE TARGET: a copy without debug information, which is most of such a file.
stripped() {
    local key
    key=$vm/stripped/$(sha256sum "$1" | cut -d' ' -f1)
    if [ ! -e "$key" ]; then
        mkdir -p "$vm/stripped"
        find "$vm/stripped" -type f -mtime +2 -delete
        strip --strip-debug -o "$key.$$" "$1"
        mv "$key.$$" "$key"
    fi
    install -Dm755 "$key" "$2"
}

# libraries PROGRAM ROOT: copies what it is linked to.
libraries() {
    local library
    ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        install -D "$library" "$2$library"
    done
}

# c_program SOURCE TARGET FLAG...: a C tenant, compiled when it, what it includes or the flags are new.
c_program() {
    local source=$1 target=$2 key
    shift 2
    key=$vm/c/$( (echo "$source $*"; cat "$source"; find "$(dirname "$source")" -name '*.h' -exec cat {} +) | sha256sum | cut -d' ' -f1)
    if [ ! -e "$key" ]; then
        mkdir -p "$vm/c"
        gcc -O1 -pthread -Wall -Werror -s "$@" -o "$key.$$" "$source"
        mv "$key.$$" "$key"
    fi
    install -D "$key" "$target"
}

# pack ROOT ARCHIVE: an initramfs of the folder, unless the archive is of the same content already.
pack() {
    local key
    key=$(cd "$1" && {
        find . -printf '%p %y %m %U %l\n' | sort
        find . -type f -print0 | sort -z | xargs -0 sha256sum
    } | sha256sum)
    if [ "$(cat "$2.of" 2>/dev/null)" = "$key" ] && [ -e "$2" ]; then return; fi
    rm -f "$2.of"
    (cd "$1" && find . -print0 | cpio --quiet -0 -o -H newc $([ "$(id -u)" = 0 ] || echo -R 0:0) | zstd -q -3 -T0) >"$2"
    echo "$key" >"$2.of"
}
