//! Capabilities (capabilities(7)) as masks. Written here because a mask also covers capabilities
//! that are younger than any list of names.

use std::io;

/// Mask of `CAP_KILL`.
pub const CAP_KILL: u64 = 1 << 5;
/// Mask of `CAP_SETGID`.
pub const CAP_SETGID: u64 = 1 << 6;
/// Mask of `CAP_SETUID`.
pub const CAP_SETUID: u64 = 1 << 7;
/// Mask of `CAP_SYS_CHROOT`.
pub const CAP_SYS_CHROOT: u64 = 1 << 18;
/// Mask of `CAP_SYS_PTRACE`.
pub const CAP_SYS_PTRACE: u64 = 1 << 19;
/// Mask of `CAP_SYS_ADMIN`.
pub const CAP_SYS_ADMIN: u64 = 1 << 21;

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Low and high half of a mask.
const fn halves(mask: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = mask.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// Makes `mask` this thread's effective and permitted capabilities, and nothing inheritable.
pub fn set_capabilities(mask: u64) -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let data = halves(mask).map(|half| Data { effective: half, permitted: half, inheritable: 0 });
    // SAFETY: header and two data elements are what version 3 takes; both outlive the call.
    super::check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Drops every capability from the bounding set. Needs `CAP_SETPCAP`.
pub fn drop_bounding() -> io::Result<()> {
    for capability in 0..64 {
        // SAFETY: this operation takes integers only.
        let dropped = super::check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into());
        match dropped {
            Ok(_) => {}
            // The first number that the kernel does not know ends the list.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Capabilities in any set of this thread (effective, permitted, inheritable, bounding, ambient).
pub fn capabilities_left() -> io::Result<u64> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: header and two data elements are what version 3 takes; both outlive the call.
    super::check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let mut left = data.iter().zip([0, 32]).fold(0, |mask, (data, shift)| {
        mask | u64::from(data.effective | data.permitted | data.inheritable) << shift
    });
    for capability in 0..64u32 {
        // SAFETY: this operation takes integers only.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(capability), 0, 0, 0) } {
            0 => {}
            1 => left |= 1 << capability,
            _ => break, // not known to the kernel: the list is over
        }
    }
    Ok(left)
}
