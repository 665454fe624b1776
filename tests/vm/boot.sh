# Boots a guest and judges what it says. Sourced by run.sh.

# boot NAME: boots $vm/NAME.initramfs. It has passed when the guest says so and the sum of its tests, which it
# writes to its second serial port (ttyS1), has no failure; a guest that dies or is mute has failed.
boot() {
    local name=$1 minutes=${MINUTES:-20} said=$vm/$1.log console=$vm/$1.console begin=$SECONDS
    echo "booting ($(du -h "$vm/$name.initramfs" | cut -f1), at most $minutes minutes; kernel's words in $console)"
    # In the foreground, or an interrupted run would leave the guest running.
    timeout --foreground --kill-after=10 "$((minutes * 60))" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 3072 \
        -kernel "$vm/kernel/vmlinuz" -initrd "$vm/$name.initramfs" -nodefaults -no-reboot -display none \
        -serial "file:$console" -serial stdio \
        -append "console=ttyS0 panic=-1 cgroup_no_v1=all cloister.filter=${TESTS:-} systemd.show_status=no" </dev/null |
        sed -u 's|\r||g' | tee "$said" || echo "QEMU ended with ${PIPESTATUS[0]} (124: out of time)"
    echo "guest $name: $((SECONDS - begin)) s"
    if grep -qx 'GUEST PASSED' "$said" && grep -q '^test result: ok\. [1-9]' "$said" && ! grep -q '^test result: FAILED' "$said"; then
        echo "guest $name: passed"
        return
    fi
    echo "guest $name: FAILED; the end of what its kernel said:" >&2
    tail -25 "$console" | tr -d '\r' >&2
    # Counted by whoever sums up, also when the guest could not say so itself.
    grep -q '^test result: FAILED' "$said" || echo "test result: FAILED. 0 passed; 1 failed; the guest died or was mute"
    return 1
}
