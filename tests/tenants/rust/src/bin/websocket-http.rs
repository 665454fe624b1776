//! Contract `http`: a WebSocket server that echoes, and knows nothing of Cloister.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return Ok(response);
    };
    if let Ok(accept) = derive_accept_key(key.as_bytes()).parse() {
        response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(stream) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(stream), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    Ok(response)
}

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let port =
            std::env::var("PORT").map_err(io::Error::other)?.parse::<u16>().map_err(io::Error::other)?;
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                let served = http.serve_connection(TokioIo::new(stream), service_fn(answer)).with_upgrades();
                if let Err(error) = served.await {
                    eprintln!("a connection ended: {error}");
                }
            });
        }
    })
}
