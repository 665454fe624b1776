//! The whole Worker: the control socket and every connection.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use cloister_ipc::PROTOCOL;
use cloister_ipc::control::{Control, Start};

use crate::control::ControlSocket;
use crate::driver::Driver;
use crate::error::Error;
use crate::handler::Handler;
use crate::link::Link;
use crate::stream::Stream;

/// Serves until the supervisor is gone, or has shut every connection down.
pub(crate) async fn run<H: Handler>(control: OwnedFd, handler: H) -> Result<(), Error> {
    let mut control = ControlSocket::new(control).map_err(Error::io("watch the control socket"))?;
    let start = match poll_fn(|cx| control.poll_next(cx)).await? {
        Some((Control::Start(start), _)) if start.protocol == PROTOCOL => Arc::new(start),
        Some((Control::Start(start), _)) => {
            return Err(Error::Protocol { ours: PROTOCOL, theirs: start.protocol });
        }
        Some(_) => return Err(Error::Order("the first record is not a start")),
        None => return Ok(()),
    };
    let mut process = Process { control, start, handler, drivers: Vec::new(), shut: false };
    poll_fn(|cx| process.poll(cx)).await
}

struct Process<H: Handler> {
    control: ControlSocket,
    start: Arc<Start>,
    handler: H,
    drivers: Vec<Driver<H>>,
    /// A connection was closed because the supervisor asked for it.
    shut: bool,
}

impl<H: Handler> Process<H> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while let Poll::Ready(record) = self.control.poll_next(cx)? {
            let Some((control, descriptors)) = record else { return Poll::Ready(Ok(())) };
            self.take(control, descriptors)?;
        }
        // There are as many connections as the supervisor has runtimes: few.
        let mut index = 0;
        while let Some(driver) = self.drivers.get_mut(index) {
            match driver.poll(cx)? {
                Poll::Ready(asked) => {
                    self.shut |= asked;
                    self.drivers.swap_remove(index);
                }
                Poll::Pending => index += 1,
            }
        }
        if self.shut && self.drivers.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn take(&mut self, control: Control, descriptors: Vec<OwnedFd>) -> Result<(), Error> {
        let mut descriptors = descriptors.into_iter();
        match (control, descriptors.next()) {
            (Control::Start(_), _) => Err(Error::Order("a second start")),
            (_, None) => Err(Error::Order("a record came without its descriptor")),
            (Control::Connection { id }, Some(descriptor)) => {
                if self.drivers.iter().any(|driver| driver.link.id == id) {
                    return Err(Error::Order("a connection number was used twice"));
                }
                let stream = Stream::new(descriptor).map_err(Error::io("watch a message stream"))?;
                let link = Arc::new(Link::new(id));
                self.drivers.push(Driver::new(link, self.start.clone(), self.handler.clone(), stream));
                Ok(())
            }
            (Control::Body { connection, body }, Some(descriptor)) => {
                // One whose connection is gone is closed with it.
                if let Some(driver) = self.drivers.iter().find(|driver| driver.link.id == connection) {
                    driver.link.deliver(body, descriptor);
                }
                Ok(())
            }
        }
    }
}
