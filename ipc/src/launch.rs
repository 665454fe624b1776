//! Messages between the supervisor, the launcher and blanks.
