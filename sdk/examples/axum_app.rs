//! An axum application, as it would be written for any server: routes, state, query, JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use cloister::{Context, Env};
use serde::{Deserialize, Serialize};

/// Lives as long as the process: until the Worker is idle, redeployed, or over a limit.
type Visits = Arc<AtomicU64>;

#[derive(Deserialize)]
struct Greeting {
    #[serde(default = "nobody")]
    name: String,
}

fn nobody() -> String {
    "nobody".to_owned()
}

#[derive(Deserialize)]
struct Numbers {
    numbers: Vec<f64>,
}

#[derive(Serialize)]
struct Sum {
    sum: f64,
    count: usize,
}

/// `GET /?name=…`, greeting with the binding `GREETING`.
async fn greet(
    State(visits): State<Visits>,
    Extension(env): Extension<Env>,
    Extension(ctx): Extension<Context>,
    Query(greeting): Query<Greeting>,
) -> String {
    let visit = visits.fetch_add(1, Ordering::Relaxed) + 1;
    let hello = env.var("GREETING").unwrap_or("Hello");
    format!("{hello}, {}! You are visitor {visit} of {}.\n", greeting.name, ctx.worker())
}

/// `GET /items/{id}`.
async fn item(Path(id): Path<u64>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "id": id, "name": format!("item {id}") }))
}

/// `POST /sum` with `{"numbers": […]}`.
async fn sum(Json(Numbers { numbers }): Json<Numbers>) -> Json<Sum> {
    Json(Sum { sum: numbers.iter().sum(), count: numbers.len() })
}

fn main() -> Result<(), cloister::Error> {
    let router = Router::new()
        .route("/", get(greet))
        .route("/items/{id}", get(item))
        .route("/sum", post(sum))
        .with_state(Visits::default());
    cloister::serve(router)
}
