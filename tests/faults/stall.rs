//! Peers that stop in the middle.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{platform, server};

#[tokio::test]
async fn clients_that_stall_do_not_stop_others() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let mut stalled = Vec::new();
    for said in [
        "GET / HTTP/1.1\r\nhost: a.t",
        "POST /echo HTTP/1.1\r\nhost: a.test\r\ncontent-length: 100\r\n\r\nabc",
        "GET /bytes/1000000000 HTTP/1.1\r\nhost: a.test\r\n\r\n",
    ] {
        for _ in 0..20 {
            let mut client = TcpStream::connect(platform.address()).await.unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            stalled.push(client);
        }
    }
    for _ in 0..20 {
        platform.http().get("http://a.test/").await.expect(200);
    }
}

#[tokio::test]
async fn a_reader_that_stalls_is_not_buffered_for() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    platform.http().get("http://a.test/").await.expect(200);
    let before = platform.memory();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = TcpStream::connect(platform.address()).await.unwrap();
        client.write_all(b"GET /bytes/2000000000 HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
        // It has begun.
        client.read_exact(&mut [0; 65536]).await.unwrap();
        clients.push(client);
    }
    for _ in 0..50 {
        platform.http().get("http://a.test/").await.expect(200);
    }
    let more = platform.memory().saturating_sub(before);
    assert!(more < 32 << 20, "{} MiB were buffered for 4 clients", more >> 20);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    for _ in 0..50 {
        let mut client = TcpStream::connect(platform.address()).await.unwrap();
        client.write_all(b"GET /bytes/1000000000 HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
        client.read_exact(&mut [0; 100]).await.unwrap();
    }
    platform.http().get("http://a.test/").await.expect(200);
}
