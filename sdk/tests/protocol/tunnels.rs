//! Upgrades: tunnels to the client, to fetched servers, and passed on.

use std::io::{Read, Write};

use cloister::{Body, BoxError, Context, Request, Response, UpgradeError};
use cloister_ipc::worker::{BodyRef, FromWorker, HostBody, ToWorker, WorkerBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::supervisor::{Connection, Fallible, Supervisor, fields, request_head, response_head};

fn ask_upgrade(connection: &mut Connection, path: &str) -> u64 {
    let headers = fields(&[("connection", "upgrade"), ("upgrade", "echo")]);
    connection.ask(request_head("GET", &format!("http://a.example{path}"), &headers), HostBody::Empty, &[])
}

fn switching() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    response
}

#[test]
fn a_request_becomes_a_tunnel() {
    let (supervisor, mut connection) =
        Supervisor::run(|mut request: Request, _env, ctx: Context| async move {
            let upgrade = cloister::upgrade(&mut request)?;
            assert!(matches!(cloister::upgrade(&mut request), Err(UpgradeError::NotAsked)));
            if request.uri().path() == "/declined" {
                ctx.wait_until(
                    async move { assert!(matches!(upgrade.await, Err(UpgradeError::NotSwitched))) },
                );
                return Fallible::Ok(Response::new(Body::empty()));
            }
            ctx.wait_until(async move {
                let mut tunnel = upgrade.await.unwrap();
                let mut line = [0; 5];
                tunnel.read_exact(&mut line).await.unwrap();
                line.reverse();
                tunnel.write_all(&line).await.unwrap();
                // Until the other side closes.
                assert_eq!(tunnel.read(&mut line).await.unwrap(), 0);
            });
            Ok(switching())
        });
    let id = ask_upgrade(&mut connection, "/");
    let response = connection.response(id);
    assert_eq!((response.status, response.body, response.wait_until), (101, WorkerBody::Tunnel, true));
    let mut socket = supervisor.give(&connection, BodyRef::Tunnel(id));
    socket.write_all(b"hello").unwrap();
    let mut line = [0; 5];
    socket.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"olleh");
    drop(socket);
    connection.expect(&FromWorker::Done { id });

    let id = ask_upgrade(&mut connection, "/declined");
    assert_eq!(connection.response(id).status, 200);
    connection.expect(&FromWorker::Done { id });

    let id = connection.get("/");
    assert_eq!(connection.exception(id), UpgradeError::NotAsked.to_string());
}

#[test]
fn switching_protocols_needs_somebody_to_take_the_tunnel() {
    let (_supervisor, mut connection) = Supervisor::run(|_request, _env, _ctx| async { switching() });
    let id = ask_upgrade(&mut connection, "/");
    assert!(connection.exception(id).contains("cloister::upgrade"));
}

#[test]
fn a_tunnel_of_a_fetch_is_passed_on_or_taken() {
    let (supervisor, mut connection) = Supervisor::run(|request: Request, _env, _ctx| async move {
        let take = request.uri().path() == "/take";
        let mut response = cloister::fetch(request).await?;
        if take {
            let mut tunnel = cloister::upgrade(&mut response)?.await?;
            tunnel.write_all(b"hello").await?;
            let mut line = String::new();
            tunnel.read_to_string(&mut line).await?;
            return Ok(Response::new(Body::from(line)));
        }
        Ok::<_, BoxError>(response)
    });
    for (fetch, path) in [(1, "/pass"), (2, "/take")] {
        let id = ask_upgrade(&mut connection, path);
        let (message, _) = connection.receive();
        assert!(
            matches!(message, FromWorker::Fetch { fetch: number, request, .. } if (number, request) == (fetch, id))
        );
        let head = response_head(101, &fields(&[("upgrade", "echo")]));
        connection.send(&ToWorker::Response { fetch, head, body: HostBody::Tunnel }, &[]);
        let body = BodyRef::FetchTunnel(fetch);
        if path == "/pass" {
            let response = connection.response(id);
            assert_eq!((response.status, response.body), (101, WorkerBody::Forward(body)));
            assert_eq!(response.headers["upgrade"], "echo");
            continue;
        }
        connection.expect(&FromWorker::Open { body });
        let mut socket = supervisor.give(&connection, body);
        let mut line = [0; 5];
        socket.read_exact(&mut line).unwrap();
        socket.write_all(b"and back").unwrap();
        drop(socket);
        assert_eq!(connection.response(id).text(), "and back");
    }
}
