//! Making [`Failure`]s.

use std::io;

use cloister_ipc::launch::{Failure, Stage, Wall};

/// Longest text of a failure, bytes: it travels in a message.
const TEXT_BYTES: usize = 400;

/// A failure at `stage`; `error` may be the kernel's or one of our own.
pub(crate) fn failure(stage: Stage, what: &str, error: &io::Error) -> Failure {
    let mut text = match error.raw_os_error() {
        Some(_) => what.to_owned(),
        None => format!("{what}: {error}"),
    };
    while text.len() > TEXT_BYTES {
        text.pop();
    }
    Failure { stage, errno: error.raw_os_error().unwrap_or(libc_einval()), what: text }
}

fn libc_einval() -> i32 {
    nix::errno::Errno::EINVAL as i32
}

/// What failed, in the form that `map_err` takes.
pub(crate) fn at<E: Into<io::Error>>(stage: Stage, what: impl AsRef<str>) -> impl FnOnce(E) -> Failure {
    move |error| failure(stage, what.as_ref(), &error.into())
}

/// The same for a wall.
pub(crate) fn wall<E: Into<io::Error>>(wall: Wall, what: impl AsRef<str>) -> impl FnOnce(E) -> Failure {
    at(Stage::Wall(wall), what)
}
