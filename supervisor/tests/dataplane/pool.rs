//! Processes: started once, shared, replaced, probed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloister::Body as WorkerBody;
use cloister_supervisor::outcome::Failure;
use cloister_supervisor::pool::Options;
use cloister_supervisor::registry::Deployed;
use http::Response;
use tokio::sync::Notify;

use crate::double::{Plane, account, get, text, worker};

#[tokio::test]
async fn many_waiting_requests_are_one_start() {
    let plane = Plane::new();
    plane.sdk(worker("one"), |_, _, _| async move { Ok(Response::new(WorkerBody::from("1"))) });
    let requests = (0..20).map(|_| plane.ask("one", get("http://a/")));
    for response in futures_util::future::join_all(requests).await {
        assert_eq!(text(response.unwrap()).await, "1");
    }
    assert_eq!(plane.starter.starts.load(Ordering::Relaxed), 1);
}

fn gated(plane: &Plane, deployed: Deployed) -> (Arc<Notify>, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let gate = Arc::new(Notify::new());
    let (inside, entered) = tokio::sync::mpsc::unbounded_channel();
    let handler_gate = gate.clone();
    plane.sdk(deployed, move |_, _, _| {
        let (gate, inside) = (handler_gate.clone(), inside.clone());
        async move {
            let _ = inside.send(());
            gate.notified().await;
            Ok(Response::new(WorkerBody::from("done")))
        }
    });
    (gate, entered)
}

#[tokio::test]
async fn concurrency_one_queues_and_a_full_queue_sheds() {
    let plane = Arc::new(Plane::with(Options { waiting: 1, ..Options::default() }));
    let (gate, mut entered) = gated(&plane, Deployed { concurrency: 1, ..worker("gated") });
    let ask = |plane: Arc<Plane>| async move { plane.ask("gated", get("http://a/")).await };
    let first = tokio::spawn(ask(plane.clone()));
    entered.recv().await.unwrap();
    let second = tokio::spawn(ask(plane.clone()));
    tokio::task::yield_now().await;
    let refusal = plane.ask("gated", get("http://a/")).await.unwrap_err();
    assert_eq!((refusal.failure, refusal.retry_after), (Failure::LoadShed, Some(1)));
    gate.notify_one();
    assert!(first.await.unwrap().is_ok());
    entered.recv().await.unwrap();
    gate.notify_one();
    assert!(second.await.unwrap().is_ok());
    assert_eq!(plane.starter.starts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_deploy_serves_the_new_version_and_lets_the_old_finish() {
    let plane = Arc::new(Plane::new());
    let (gate, mut entered) = gated(&plane, worker("app"));
    let asking = plane.clone();
    let old = tokio::spawn(async move { asking.ask("app", get("http://a/")).await });
    entered.recv().await.unwrap();
    let new = Deployed { version: "2".into(), ..worker("app") };
    plane.sdk(new, |_, _, _| async move { Ok(Response::new(WorkerBody::from("new"))) });
    plane.dispatcher.pool().retire(&account("app"));
    assert_eq!(text(plane.ask("app", get("http://a/")).await.unwrap()).await, "new");
    let live = plane.dispatcher.pool().live();
    assert_eq!(live.iter().filter(|live| live.draining).count(), 1);
    gate.notify_one();
    assert_eq!(text(old.await.unwrap().unwrap()).await, "done");
}

/// Requests that end one after the other do not put off the end of a process that was replaced.
#[tokio::test]
async fn a_replaced_process_ends_at_its_time_whatever_it_still_answers() {
    const REQUESTS: usize = 30;
    let plane = Arc::new(Plane::with(Options { drain: Duration::from_secs(1), ..Options::default() }));
    tokio::spawn(plane.dispatcher.pool().clone().keep());
    let (gate, mut entered) = gated(&plane, worker("app"));
    let mut requests = Vec::new();
    for _ in 0..REQUESTS {
        let plane = plane.clone();
        requests.push(tokio::spawn(async move { plane.ask("app", get("http://a/")).await }));
        entered.recv().await.unwrap();
    }
    plane.sdk(Deployed { version: "2".into(), ..worker("app") }, |_, _, _| async move {
        Ok(Response::new(WorkerBody::from("new")))
    });
    plane.dispatcher.pool().retire(&account("app"));
    let one_by_one = tokio::spawn(async move {
        for _ in 0..REQUESTS {
            tokio::time::sleep(Duration::from_millis(300)).await;
            gate.notify_one();
        }
    });
    let mut lost = 0;
    for request in requests {
        lost += usize::from(request.await.unwrap().is_err());
    }
    assert!(lost > 0, "it lived until the last of them was answered");
    one_by_one.abort();
}

#[tokio::test]
async fn a_probe_tells_what_is_wrong() {
    let plane = Plane::new();
    plane.sdk(worker("good"), |_, _, _| async move { Ok(Response::new(WorkerBody::empty())) });
    plane.deploy(worker("dies"), Arc::new(|_, _| Box::pin(async {})));
    let (good, dies) = {
        let snapshot = plane.registry.snapshot();
        let find = |name| snapshot.find(None, name).unwrap().clone();
        (find("good"), find("dies"))
    };
    assert!(plane.dispatcher.pool().probe(&good).await.is_ok());
    let error = plane.dispatcher.pool().probe(&dies).await.unwrap_err();
    assert!(error.message.contains("ended before it was ready"), "{error}");
    assert!(plane.dispatcher.pool().live().is_empty());
}
