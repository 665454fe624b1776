//! Which Workers ran for a request, as the platform recorded it.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use crate::{Answer, Platform};

/// One invocation.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Full name of the Worker.
    pub worker: String,
    /// How it ended.
    pub outcome: String,
    /// CPU time, microseconds.
    pub cpu_us: u64,
    /// Wall time, microseconds.
    pub wall_us: u64,
    /// A process was started for it.
    pub cold: bool,
    /// How many Workers were called before it.
    pub depth: u64,
}

impl Platform {
    /// Paths of every deployed Worker below `/workers`.
    async fn scripts(&self) -> Vec<String> {
        let mut folders = vec!["/scripts".to_owned()];
        let namespaces = self.api(Method::GET, "/dispatch/namespaces", None).await.expect(200).json();
        for namespace in namespaces["result"].as_array().into_iter().flatten() {
            let name = namespace["namespace_name"].as_str().expect("a name");
            folders.push(format!("/dispatch/namespaces/{name}/scripts"));
        }
        let mut paths = Vec::new();
        for folder in folders {
            let scripts = self.api(Method::GET, &folder, None).await.expect(200).json();
            for script in scripts["result"].as_array().into_iter().flatten() {
                paths.push(format!("{folder}/{}", script["id"].as_str().expect("an id")));
            }
        }
        paths
    }

    /// The invocations that made this answer, the first called first. Empty when no Worker ran.
    pub async fn ran_for(&self, answer: &Answer) -> Vec<Ran> {
        let ray = answer.header("cloister-ray").expect("every answer has its ray").to_owned();
        let paths = self.scripts().await;
        let end = Instant::now() + Duration::from_secs(2);
        loop {
            let mut ran = Vec::new();
            for path in &paths {
                let events = self.api(Method::GET, &format!("{path}/tail"), None).await.expect(200).json();
                let of_it = |event: &&Value| event["kind"] == "invocation" && event["ray"] == ray.as_str();
                ran.extend(events["result"].as_array().into_iter().flatten().filter(of_it).map(read));
            }
            // A record is written when the last byte was sent, so it may come after the answer; the
            // first Worker's comes last.
            if ran.iter().any(|ran| ran.depth == 0) || Instant::now() > end {
                ran.sort_by_key(|ran| ran.depth);
                return ran;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn read(event: &Value) -> Ran {
    let number = |key: &str| event[key].as_u64().unwrap_or_default();
    let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
    Ran {
        worker: text("worker"),
        outcome: text("outcome"),
        cpu_us: number("cpu_us"),
        wall_us: number("wall_us"),
        cold: event["cold"] == true,
        depth: number("depth"),
    }
}
