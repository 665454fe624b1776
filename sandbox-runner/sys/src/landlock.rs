//! The running kernel's landlock.

const CREATE_RULESET_VERSION: libc::c_uint = 1;

/// The running kernel's landlock ABI; 0 when it has none.
#[must_use]
pub fn landlock_abi() -> i32 {
    // SAFETY: with this flag the kernel takes no memory (landlock_create_ruleset(2)).
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    i32::try_from(abi.max(0)).unwrap_or(0)
}
