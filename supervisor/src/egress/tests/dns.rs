//! The real resolver against a DNS server on loopback.

use std::collections::BTreeMap;

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;

/// Answers every name below `private.test` with 10.0.0.7 and fd00::7, those below `loop.test` with
/// 127.0.0.1, and no other; tells the names it was asked for.
async fn dns_server() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let names = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let query = question.queries[0].clone();
            let name = query.name().to_ascii().to_lowercase();
            names.lock().unwrap().push(name.clone());
            let address: Option<IpAddr> = match query.query_type() {
                RecordType::A if name.ends_with("private.test.") => Some([10, 0, 0, 7].into()),
                RecordType::AAAA if name.ends_with("private.test.") => Some("fd00::7".parse().unwrap()),
                RecordType::A if name.ends_with("loop.test.") => Some([127, 0, 0, 1].into()),
                _ => None,
            };
            let mut answer = Message::new(question.id, MessageType::Response, OpCode::Query);
            answer.metadata.recursion_available = true;
            answer.metadata.recursion_desired = true;
            answer.add_query(query.clone());
            match address {
                Some(address) => {
                    let record = Record::from_rdata(query.name().clone(), 60, RData::from(address));
                    answer.add_answer(record);
                }
                None => answer.metadata.response_code = ResponseCode::NoError,
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    (address, asked)
}

async fn rig(policy: &str, hosts: &[(&str, &str)]) -> (Arc<Egress>, TempDir, Arc<Mutex<Vec<String>>>) {
    let (server, asked) = dns_server().await;
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "default.toml", &format!("version = 1\n{policy}"));
    let config = EgressConfig {
        policy_dir: Some(folder.path().to_owned()),
        nameservers: vec![server.to_string().try_into().unwrap()],
        hosts: hosts
            .iter()
            .map(|(name, address)| {
                let name = (*name).to_owned().try_into().unwrap();
                (name, super::super::Addresses::One(address.parse().unwrap()))
            })
            .collect::<BTreeMap<_, _>>(),
        ..EgressConfig::default()
    };
    (Egress::start(&config).unwrap(), folder, asked)
}

#[tokio::test]
async fn answers_that_point_inside_are_refused() {
    let (egress, _folder, asked) = rig("default = \"allow\"", &[]).await;
    for host in ["www.private.test", "loop.test"] {
        let error = egress.fetch(&caller(), request("GET", &format!("http://{host}/"))).await.unwrap_err();
        assert!(matches!(error, EgressError::Address { .. }), "{error}");
    }
    let error = egress.fetch(&caller(), request("GET", "http://nothing.test/")).await.unwrap_err();
    assert!(matches!(error, EgressError::Resolve { .. }), "{error}");
    // No search domain was tried.
    assert!(
        asked.lock().unwrap().iter().all(|name| name.ends_with(".test.") && name.matches('.').count() <= 3)
    );
}

#[tokio::test]
async fn answers_in_a_named_network_are_dialled() {
    let origin = Origin::start().await;
    let (egress, _folder, _) = rig(OPEN, &[]).await;
    let uri = format!("http://a.loop.test:{}/", origin.port());
    let response = egress.fetch(&caller(), request("GET", &uri)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn configured_names_are_not_asked_for_but_judged_all_the_same() {
    let origin = Origin::start().await;
    let hosts = [("Fixed.test", "127.0.0.1"), ("metadata.test", "169.254.169.254")];
    let (egress, _folder, asked) = rig(OPEN, &hosts).await;
    let uri = format!("http://fixed.test:{}/", origin.port());
    assert!(egress.fetch(&caller(), request("GET", &uri)).await.is_ok());
    let error = egress.fetch(&caller(), request("GET", "http://metadata.test/")).await.unwrap_err();
    assert!(matches!(error, EgressError::Address { .. }), "{error}");
    assert!(asked.lock().unwrap().is_empty());
}
