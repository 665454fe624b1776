//! Contract `ipc`: an axum router, as anybody would write it.
#![forbid(unsafe_code)]

use axum::Router;
use axum::extract::{Json, Path};
use axum::routing::{get, post};

fn main() -> Result<(), cloister::Error> {
    let router = Router::new()
        .route("/hello/{name}", get(async |Path(name): Path<String>| format!("hello {name}")))
        .route("/sum", post(async |Json(numbers): Json<Vec<i64>>| numbers.iter().sum::<i64>().to_string()));
    cloister::serve(router)
}
