//! A WebSocket that says everything back.

use cloister::{Body, BoxError, Context, Env, Request, Response, Upgraded};
use futures_util::{SinkExt, StreamExt};
use http::{StatusCode, header};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

async fn talk(tunnel: Upgraded) -> Result<(), BoxError> {
    let mut socket = WebSocketStream::from_raw_socket(tunnel, Role::Server, None).await;
    while let Some(message) = socket.next().await {
        let message = message?;
        // Pings and closes are answered by the library.
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn answer(mut request: Request, _env: Env, ctx: Context) -> Result<Response, BoxError> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (Some(accept), Ok(upgrade)) = (key, cloister::upgrade(&mut request)) else {
        let response = http::Response::builder().status(StatusCode::UPGRADE_REQUIRED);
        return Ok(response
            .header(header::UPGRADE, "websocket")
            .body(Body::from("this is a WebSocket\n"))?);
    };
    ctx.wait_until(async move {
        let talked = match upgrade.await {
            Ok(tunnel) => talk(tunnel).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = talked {
            eprintln!("the WebSocket broke off: {error}");
        }
    });
    Ok(http::Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(Body::empty())?)
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(answer)
}
