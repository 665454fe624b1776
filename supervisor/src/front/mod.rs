//! The front door: what clients speak to.

mod error_page;
mod identity;
mod patience;
mod service;
mod stream;

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::TcpListener as StdListener;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

pub use error_page::error_page;

use crate::dispatch::Dispatcher;
use patience::{Going, Patience};
use service::Service;
use stream::Stream;

/// Most connections one shard has open; more wait in the kernel's queue.
const CONNECTIONS: usize = 16_384;

/// Longest request header, in bytes.
const HEADER_BYTES: usize = 32 * 1024;

/// Most h2 streams of one connection at a time.
const STREAMS: u32 = 128;

/// Bytes of an answer that are kept for one h2 stream whose client does not read; with [`STREAMS`], 4 MiB for a
/// connection.
const SEND_BYTES: usize = 32 * 1024;

/// Bytes that a client's socket keeps unsent.
const UNSENT_BYTES: u32 = 128 * 1024;

/// How long open requests may finish when the supervisor ends.
const DRAIN: Duration = Duration::from_secs(30);

/// How long a connection may take to send a request's header, or do nothing: between requests, in the middle of
/// a request's body, or while an answer waits to be read.
const IDLE: Duration = Duration::from_secs(60);

/// What the front door is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// See [`IDLE`].
    pub idle: Duration,
    /// See [`DRAIN`].
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { idle: IDLE, drain: DRAIN }
    }
}

/// Serves `listeners` on this shard until `stop` is true, then lets open requests finish.
///
/// # Errors
/// A listener can't be registered with the runtime.
pub async fn serve(
    listeners: Vec<StdListener>,
    dispatcher: Arc<Dispatcher>,
    options: Options,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let patience = Patience::start(options.idle);
    let mut accepting = Vec::new();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let door = Door {
            listener: TcpListener::from_std(listener)?,
            dispatcher: Arc::clone(&dispatcher),
            places: Arc::clone(&places),
            patience: patience.clone(),
            stop: stop.clone(),
        };
        accepting.push(tokio::spawn(door.accept()));
    }
    // A closed channel means the end as well.
    let _ = stop.wait_for(|stop| *stop).await;
    for task in accepting {
        task.abort();
    }
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(options.drain, places.acquire_many(all)).await;
    Ok(())
}

struct Door {
    listener: TcpListener,
    dispatcher: Arc<Dispatcher>,
    places: Arc<Semaphore>,
    patience: Patience,
    stop: watch::Receiver<bool>,
}

impl Door {
    async fn accept(self) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        configure(builder.http1());
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_send_buf_size(SEND_BYTES)
            .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX));
        let builder = Arc::new(builder);
        loop {
            // Given back when the connection, and the tunnel that it may become, are over.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if is_shortage(&error) {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    continue;
                }
            };
            // Small answers go out at once; what is not read waits here and not in the kernel; who vanished is noticed.
            let _ = stream.set_nodelay(true);
            let _ = cloister_sys::bound_unsent(&stream, UNSENT_BYTES);
            let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
            let service =
                Service::new(Arc::clone(&self.dispatcher), peer.ip(), self.patience.client(), place);
            let client = service.client();
            let stream = client.stream(stream);
            let serving =
                connection(Arc::clone(&builder), stream, service, client.going(), self.stop.clone());
            let task = tokio::spawn(serving);
            client.watch(task.abort_handle());
        }
    }
}

fn configure(mut http1: auto::Http1Builder<'_, TokioExecutor>) {
    // Slow headers are the patience's affair: hyper's own timer costs 7 % of all requests.
    // Its own bound of 100 fields is kept, as another costs an allocation a request.
    http1.max_buf_size(2 * HEADER_BYTES).header_read_timeout(None);
}

/// Serves one connection; ends it after its open requests when `stop` becomes true.
async fn connection(
    builder: Arc<auto::Builder<TokioExecutor>>,
    stream: Stream,
    service: Service,
    _going: Going,
    mut stop: watch::Receiver<bool>,
) {
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let seen = stop.clone();
    // Whatever the connection's first poll cost: a wait that was put off asks for no wake-up.
    let mut stopping = pin!(tokio::task::coop::unconstrained(stop.wait_for(|stop| *stop)));
    let mut asked = false;
    let ended = poll_fn(|context| {
        // What goes wrong here is the client's: it went away, or does not speak HTTP.
        if connection.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        // Asked for a wake-up once: a task keeps its waker, and asking again at each of its polls costs a
        // request as much as its routing.
        let changed = !asked || seen.has_changed().unwrap_or(true);
        asked = true;
        if changed && stopping.as_mut().poll(context).is_ready() { Poll::Ready(false) } else { Poll::Pending }
    });
    if !ended.await {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// Too few descriptors or too little memory: trying again at once can't help.
fn is_shortage(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
