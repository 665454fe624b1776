# The guest of the security suite: busybox, the programs under test and the libraries they need. Sourced by run.sh.

build_suite() {
    local suite root=$vm/suite.root file source name
    suite=$(cargo test --locked --quiet -p cloister-tests --test security --no-run --message-format=json |
        grep -o '"executable":"[^"]*/security-[^"]*"' | tail -1 | cut -d'"' -f4)
    [ -x "$suite" ] || { echo "the security suite was not built" >&2; exit 1; }
    rm -rf "$root"
    mkdir -p "$root"/{bin,proc,sys,dev,tmp,run,etc,var,home,root,cloister,newroot,lib64} "$root$top/target/tenants/c"
    chmod 1777 "$root/tmp"
    cp "$vm/kernel/busybox" "$root/bin/busybox"
    for name in cp sh mount umount mkdir ip chroot poweroff cat ls sleep id echo sed grep dmesg; do ln -s busybox "$root/bin/$name"; done
    for file in "$suite:security" target/debug/cloister:cloister target/debug/sandbox-runner:sandbox-runner; do
        stripped "${file%:*}" "$root/cloister/${file##*:}"
        libraries "${file%:*}" "$root"
    done
    # Debian's, as tenants.
    for file in /usr/bin/stress-ng /usr/bin/trinity; do
        install -D "$file" "$root$file"
        libraries "$file" "$root"
    done
    # The sources and, newer than they are, the tenants that were made of them.
    mkdir -p "$root$top/tests/tenants" "$root$top/tests/security"
    cp -a tests/tenants/hostile "$root$top/tests/tenants/"
    cp -a tests/security/snapshots "$root$top/tests/security/"
    for source in tests/tenants/hostile/*.c; do
        c_program "$source" "$root$top/target/tenants/c/$(basename "$source" .c)" -static
    done
    for name in files files_twin listener loader; do
        c_program "tests/tenants/hostile/$name.c" "$root$top/target/tenants/c/$name-dynamic"
    done
    printf 'root:x:0:0::/root:/bin/sh\ncloister:x:999:999::/:/bin/sh\nhost-user:x:1001:1001::/home:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:*:1::::::\n' >"$root/etc/shadow"
    printf 'root:x:0:\ncloister:x:999:\n' >"$root/etc/group"
    install -m 755 tests/vm/init "$root/init"
    install -m 755 tests/vm/suite/inside "$root/guest"
    pack "$root" "$vm/suite.initramfs"
}
