# The guest of the service: a minimal Debian 12 with systemd, Cloister installed by `make install`. Sourced by run.sh.

# What the guest's Debian is made of.
SERVICE_PACKAGES=systemd,systemd-sysv,curl,jq
# What it needs only to be made, or nobody reads there.
SERVICE_LEFT_OUT=('dev/*' 'usr/share/doc/*' 'usr/share/man/*' 'usr/share/locale/*' usr/share/perl
    'usr/lib/x86_64-linux-gnu/'{perl,'libperl*','gconv/*'})

# Debian itself, packed: $vm/debian.initramfs.
build_debian() {
    local key mirror path leave_out=()
    # Security fixes of what matters here make it anew.
    key="$SERVICE_PACKAGES ${SERVICE_LEFT_OUT[*]} $(candidate systemd) $(candidate libc6)"
    [ -e "$vm/debian.initramfs" ] && [ "$(cat "$vm/debian.version" 2>/dev/null)" = "$key" ] && return
    echo "a minimal Debian 12 with systemd"
    # From where this host has its own packages.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Created-By: Packages' 'Component: main' | head -1)
    rm -rf "$vm/debian.root" "$vm/debian.version"
    quietly mmdebstrap --variant=essential --include="$SERVICE_PACKAGES" \
        --aptopt='Apt::Install-Recommends "false"' bookworm "$vm/debian.tar" ${mirror:+"$mirror"}
    mkdir "$vm/debian.root"
    for path in "${SERVICE_LEFT_OUT[@]}"; do leave_out+=(--exclude="./$path"); done
    tar -C "$vm/debian.root" "${leave_out[@]}" -xf "$vm/debian.tar"
    mkdir "$vm/debian.root/newroot"
    ln -s /lib/systemd/systemd "$vm/debian.root/guest"
    # There is nobody to log in, and no udev to find a terminal.
    ln -sf /dev/null "$vm/debian.root/etc/systemd/system/getty.target"
    install -m 755 tests/vm/init "$vm/debian.root/init"
    pack "$vm/debian.root" "$vm/debian.initramfs"
    rm -rf "$vm/debian.root" "$vm/debian.tar"
    echo "$key" >"$vm/debian.version"
}

build_service() {
    local root=$vm/service.root built=$vm/service.built tenants program
    build_debian
    tenants=$(scripts/tenants.sh dev)
    rm -rf "$root" "$built"
    for program in cloister sandbox-runner; do stripped "target/debug/$program" "$built/$program"; done
    make --no-print-directory --silent install-files BUILT="$built" PREFIX=/usr DESTDIR="$root"
    stripped "$tenants/anything" "$root/tenants/anything"
    c_program tests/tenants/http/server.c "$root/tenants/server" -static
    c_program tests/tenants/http/server.c "$root/tenants/server-dynamic"
    install -m 755 tests/vm/service/checks "$root/checks"
    mkdir "$root/checks.d" && cp tests/vm/service/checks.d/* "$root/checks.d/"
    install -Dm644 tests/vm/service/checks.service "$root/etc/systemd/system/checks.service"
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
    ln -s ../checks.service "$root/etc/systemd/system/multi-user.target.wants/checks.service"
    pack "$root" "$vm/service.own"
    # The kernel unpacks one after the other.
    cat "$vm/debian.initramfs" "$vm/service.own" >"$vm/service.initramfs"
}
