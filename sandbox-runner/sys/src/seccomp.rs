//! seccomp(2).

use std::io;

const INSTRUCTION: usize = size_of::<libc::sock_filter>();

/// Adds a filter to this thread (the only one). `program` is an array of `struct sock_filter` in
/// native byte order; the kernel checks that it is a valid program. Needs no_new_privs.
///
/// # Errors
/// `EINVAL` when it is no program, also when it is empty, not whole, or longer than 4096
/// instructions.
pub fn install_filter(program: &[u8]) -> io::Result<()> {
    let (instructions, rest) = program.as_chunks::<INSTRUCTION>();
    if !rest.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut filter: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|&[a, b, jt, jf, e, f, g, h]| libc::sock_filter {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes([e, f, g, h]),
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: the program and the instructions it points to outlive the call, and `len` is their
    // number.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::c_uint::from(0u8),
            &raw const program,
        )
    };
    super::check(returned).map(drop)
}
