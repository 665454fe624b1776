//! Outbound Workers.

use cloister_ipc::worker::OutboundContext;

use super::*;
use crate::egress::{OutboundCall, OutboundInvoker};
use crate::outcome::Failure;

/// Answers with whom it stands for; adds a header and fetches when it is called `relay`.
struct Runner(Mutex<Option<Arc<Egress>>>);

impl OutboundInvoker for Runner {
    fn invoke<'a>(
        &'a self,
        outbound: &'a WorkerId,
        context: OutboundContext,
        caller: &'a Caller,
        mut req: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Failure>> {
        Box::pin(async move {
            if &*outbound.name == "broken" {
                return Err(Failure::Exception);
            }
            if &*outbound.name == "relay" {
                let egress = self.0.lock().unwrap().clone().unwrap();
                let own = Caller {
                    worker: outbound.clone(),
                    depth: caller.depth + 1,
                    outbound: None,
                    on_behalf_of: Some(caller.worker.clone()),
                    ..caller.clone()
                };
                req.headers_mut().insert("x-outbound", "1".parse().unwrap());
                return match egress.fetch(&own, req).await {
                    Ok(response) => Ok(response),
                    Err(error) => Ok(Response::builder()
                        .status(error.status())
                        .body(Body::full(error.to_string()))
                        .unwrap()),
                };
            }
            let OutboundContext { namespace, worker, params } = context;
            let text =
                format!("{outbound} for {namespace}/{worker} {params:?} {} {}", req.method(), req.uri());
            Ok(Response::new(Body::full(text)))
        })
    }
}

fn rig(policy: &str) -> Rig {
    let rig = Rig::new(policy, &[("a.test", &["127.0.0.1"])]);
    rig.egress.lend_outbound(Arc::new(Runner(Mutex::new(Some(Arc::clone(&rig.egress))))));
    rig
}

fn carrying(worker: &str) -> Caller {
    let worker = WorkerId { namespace: None, name: worker.into() };
    let params = vec![("plan".to_owned(), "\"free\"".to_owned())];
    Caller { outbound: Some(OutboundCall { worker, params }), ..caller() }
}

const OUTBOUND: &str = "[[rule]]\nname = \"out\"\nhosts = [\"*\"]\naction = \"outbound\"\n";

#[tokio::test]
async fn a_rule_or_a_dispatch_call_names_the_outbound_worker() {
    let named = rig(&format!("{OUTBOUND}outbound_worker = \"mine\""));
    let text = named.get("http://A.test.:80//x?y").await.unwrap().text();
    assert_eq!(text, "mine for production/shop [] GET http://a.test//x?y");
    assert_eq!(named.decided(), "outbound out");
    let text = named.fetch(&carrying("theirs"), request("GET", "http://a.test/")).await.unwrap().text();
    assert_eq!(text, r#"theirs for production/shop [("plan", "\"free\"")] GET http://a.test/"#);

    let open = rig(OPEN);
    let text = open.fetch(&carrying("theirs"), request("GET", "http://a.test/")).await.unwrap().text();
    assert!(text.starts_with("theirs for"), "{text}");
    assert_eq!(open.decided(), "outbound open");

    let unnamed = rig(OUTBOUND);
    assert!(matches!(unnamed.get("http://a.test/").await, Err(EgressError::Denied { .. })));
}

#[tokio::test]
async fn what_the_policy_denies_no_outbound_worker_sees() {
    let closed = rig("");
    let error = closed.fetch(&carrying("theirs"), request("GET", "http://a.test/")).await.unwrap_err();
    assert!(matches!(error, EgressError::Denied { .. }), "{error}");
}

#[tokio::test]
async fn what_an_outbound_worker_asks_is_judged_as_its_own() {
    let origin = Origin::start().await;
    let uri = format!("http://a.test:{}/", origin.port());
    let rig = rig(OPEN);
    let text = rig.fetch(&carrying("relay"), request("GET", &uri)).await.unwrap().text();
    assert!(text.contains("\nx-outbound: 1\n"), "{text}");
    let decisions = rig.egress.decisions();
    let own = decisions.iter().find(|decision| decision.worker == "relay").unwrap();
    assert_eq!(own.on_behalf_of.as_deref(), Some("production/shop"));

    // Its own policy decides, whatever the caller's allows.
    let mut changes = rig.egress.policy_changes();
    write(rig.folder.path(), "account.toml", "version = 1");
    changes.changed().await.unwrap();
    let seen = rig.fetch(&carrying("relay"), request("GET", &uri)).await.unwrap();
    assert_eq!(seen.head.status, StatusCode::FORBIDDEN);
    write(rig.folder.path(), "account.toml", &format!("version = 1\n{OUTBOUND}outbound_worker = \"relay\""));
    changes.changed().await.unwrap();
    let seen = rig.fetch(&carrying("relay"), request("GET", &uri)).await.unwrap();
    assert!(seen.body.unwrap().contains("have no outbound Worker"));
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn a_broken_outbound_worker_is_told_of() {
    let rig = rig(OPEN);
    let error = rig.fetch(&carrying("broken"), request("GET", "http://a.test/")).await.unwrap_err();
    assert!(matches!(error, EgressError::Outbound { failure: Failure::Exception, .. }), "{error}");
}

/// What one Worker has an outbound Worker hold, or wait for, is not taken from others that share it.
#[tokio::test]
async fn an_outbound_worker_has_a_share_for_each_on_whose_behalf_it_asks() {
    let address = echo_after_upgrade(None).await;
    let two = std::num::NonZeroU32::new(2).unwrap();
    let config = EgressConfig { worker_requests: two, ..EgressConfig::default() };
    let policy = format!("{OPEN}limits = {{ requests_per_second = 3 }}");
    let rig = Rig::with(&policy, &[("ws.test", &["127.0.0.1"])], config);
    let behalf = |name: &str| Caller {
        worker: WorkerId { namespace: None, name: "relay".into() },
        on_behalf_of: Some(WorkerId { namespace: Some("production".into()), name: name.into() }),
        ..caller()
    };
    let hold = async |name: &str| {
        let mut req = request("GET", &format!("http://ws.test:{}/", address.port()));
        req.headers_mut().insert("connection", "upgrade".parse().unwrap());
        req.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        rig.egress.fetch(&behalf(name), req).await
    };
    let held = (hold("greedy").await.unwrap(), hold("greedy").await.unwrap());
    assert!(matches!(hold("greedy").await, Err(EgressError::TooMany { limit: 2 })));
    let other = hold("other").await.unwrap();
    drop((held, other));
    let limited = async |name: &str| {
        let fetched = rig.fetch(&behalf(name), request("HEAD", "http://ws.test:1/")).await;
        matches!(fetched, Err(EgressError::RateLimited { .. }))
    };
    while !limited("greedy").await {}
    assert!(!limited("other").await);
    // So it is with the wait for answers to what is refused.
    for _ in 0..100 {
        rig.egress.pace(&behalf("greedy"), false).await;
    }
    let begin = std::time::Instant::now();
    rig.egress.pace(&behalf("other"), false).await;
    assert!(begin.elapsed() < std::time::Duration::from_millis(500), "{:?}", begin.elapsed());
}
