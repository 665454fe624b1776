#!/bin/bash
# make test-vm: runs the security suite on Debian 12's own kernel (6.1: landlock ABI 2, no MDWE) with
# pure cgroup v2, in a QEMU guest without hardware help (TCG). Needs root only to install packages.
#
# The guest is an initramfs of the programs under test, busybox and the libraries they need. Its root
# is bound over itself once, because pivot_root refuses to leave an initramfs.
set -euo pipefail
cd "$(dirname "$0")/../.."
top=$PWD
vm=$top/target/vm
tests=${TESTS:-}            # a filter for test names, empty for all
minutes=${MINUTES:-20}

missing=()
for need in qemu-system-x86_64:qemu-system-x86 cpio:cpio zstd:zstd gcc:gcc stress-ng:stress-ng trinity:trinity; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ -e /usr/share/seabios/bios-256k.bin ] || missing+=(seabios)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing from Debian: ${missing[*]}"
        apt-get install -y --no-install-recommends "${missing[@]}" >"/tmp/cloister-vm-apt.$$" 2>&1 ||
            { cat "/tmp/cloister-vm-apt.$$"; exit 1; }
        rm -f "/tmp/cloister-vm-apt.$$"
    else
        echo "missing packages: ${missing[*]} (apt-get install them, or run as root)" >&2
        exit 1
    fi
fi

mkdir -p "$vm/packages" "$vm/unpacked"
echo "1. Debian 12's kernel and busybox"
if [ ! -e "$vm/unpacked/vmlinuz" ]; then
    kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-6\.1/ {print $2; exit}')
    if [ -z "$kernel" ]; then
        echo "apt knows no linux-image-cloud-amd64 of version 6.1: this needs Debian 12's package lists (apt-get update)" >&2
        exit 1
    fi
    (cd "$vm/packages" && apt-get download -qq "$kernel" busybox-static 2>&1 | grep -v unsandboxed || true)
    for package in "$vm"/packages/*.deb; do dpkg-deb -x "$package" "$vm/unpacked"; done
    cp "$vm"/unpacked/boot/vmlinuz-* "$vm/unpacked/vmlinuz"
fi

echo "2. programs under test"
cargo build --quiet -p cloister-supervisor -p cloister-sandbox-runner --bins
suite=$(cargo test --quiet -p cloister-tests --test security --no-run --message-format=json |
    grep -o '"executable":"[^"]*/security-[^"]*"' | tail -1 | cut -d'"' -f4)
[ -x "$suite" ] || { echo "the security suite was not built" >&2; exit 1; }

echo "3. guest"
root=$vm/root
rm -rf "$root"
mkdir -p "$root"/{bin,proc,sys,dev,tmp,run,etc,var,home,root,cloister,newroot,lib64} "$root$top/target/tenants/c"
chmod 1777 "$root/tmp"
cp "$vm/unpacked/bin/busybox" "$root/bin/busybox"
for tool in cp sh mount umount mkdir ip chroot poweroff cat ls sleep id echo sed grep dmesg; do ln -s busybox "$root/bin/$tool"; done
for file in "$suite" target/debug/cloister target/debug/sandbox-runner /usr/bin/stress-ng /usr/bin/trinity; do
    case $file in
        /usr/bin/*) mkdir -p "$root/usr/bin" && cp "$file" "$root$file" ;;
        *) strip --strip-debug -o "$root/cloister/$(basename "$file" | sed 's/^security-.*/security/')" "$file" ;;
    esac
    ldd "$file" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done
# The sources and, newer than they are, the tenants that were made of them.
mkdir -p "$root$top/tests/tenants" "$root$top/tests/security"
cp -a tests/tenants/hostile "$root$top/tests/tenants/"
cp -a tests/security/snapshots "$root$top/tests/security/" 2>/dev/null || true
for source in tests/tenants/hostile/*.c; do
    gcc -static -O1 -pthread -Wall -Werror -s -o "$root$top/target/tenants/c/$(basename "$source" .c)" "$source"
done
for name in files loader; do
    gcc -O1 -pthread -Wall -Werror -s -o "$root$top/target/tenants/c/$name-dynamic" "tests/tenants/hostile/$name.c"
done
printf 'root:x:0:0::/root:/bin/sh\ncloister:x:999:999::/:/bin/sh\nhost-user:x:1001:1001::/home:/bin/sh\n' >"$root/etc/passwd"
printf 'root:*:1::::::\n' >"$root/etc/shadow"
printf 'root:x:0:\ncloister:x:999:\n' >"$root/etc/group"
install -m 755 tests/vm/init "$root/init"
install -m 755 tests/vm/inside "$root/cloister/inside"
(cd "$root" && find . -print0 | cpio --quiet -0 -o -H newc | zstd -q -3 -T0) >"$vm/initramfs"

echo "4. boot ($(du -h "$vm/initramfs" | cut -f1), at most $minutes minutes)"
log=$vm/log
timeout "$((minutes * 60))" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 \
    -kernel "$vm/unpacked/vmlinuz" -initrd "$vm/initramfs" -nodefaults -no-reboot -display none -serial stdio \
    -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all cloister.filter=$tests" </dev/null |
    tr -d '\r' | tee "$log"
if grep -q '^GUEST PASSED$' "$log"; then
    echo "test-vm: passed"
else
    echo "test-vm: FAILED (log: $log)" >&2
    exit 1
fi
