//! Burns CPU without end under `/spin`, to be stopped by its limit; answers anything else at once.
//! `/spin/50` burns 50 milliseconds and answers.

use std::time::{Duration, Instant};

use cloister::{Body, Context, Env, Request, Response};

fn burn(time: Duration) -> u64 {
    let start = Instant::now();
    let mut turns = 0u64;
    while start.elapsed() < time {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
    turns
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(|request: Request, _env: Env, _ctx: Context| async move {
        let time = match request.uri().path().strip_prefix("/spin") {
            None => Duration::ZERO,
            Some(rest) => rest.trim_start_matches('/').parse().map_or(Duration::MAX, Duration::from_millis),
        };
        Response::new(Body::from(format!(
            "done after {} turns, process {}\n",
            burn(time),
            std::process::id()
        )))
    })
}
