//! WebSockets through both contracts, and through a dispatch Worker.

use cloister_tests::{Platform, Upload, tenant};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::{dispatcher, platform, platform_with, worker};

/// Talks over a WebSocket: short, long, and binary messages, then a close from this side.
async fn talk(platform: &Platform, url: &str) {
    let stream = TcpStream::connect(platform.address()).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let said = [
        Message::text("hello"),
        Message::text("ü".repeat(200_000)),
        Message::binary(vec![7_u8; 100_000]),
        Message::text(""),
    ];
    for message in said {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    while let Some(message) = socket.next().await {
        assert!(message.unwrap().is_close());
    }
}

#[tokio::test]
async fn by_the_http_contract() {
    let platform = platform().await;
    Upload::user("production", "a", tenant("websocket-http")).http().deploy(&platform).await;
    talk(&platform, "ws://a.test/").await;
}

#[tokio::test]
async fn by_the_sdk() {
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    talk(&platform, "ws://a.test/websocket").await;
    platform.http().get("http://a.test/").await.expect(200);
}

#[tokio::test]
async fn through_a_dispatch_worker() {
    let platform = platform_with(dispatcher::config()).await;
    dispatcher::deploy(&platform).await;
    worker("a").deploy(&platform).await;
    talk(&platform, "ws://d.example/tail/a/websocket").await;
    talk(&platform, "ws://d.example/dispatch/a/websocket").await;
}
