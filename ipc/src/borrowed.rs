//! [`ToWorker`](crate::worker::ToWorker) as read by the SDK and written by the supervisor: the same
//! encoding, with the texts left where they are.

use serde::{Deserialize, Serialize};

use crate::worker::{BodyEnd, BodyRef, FetchError, FetchId, HostBody, OutboundContext, RequestId};

/// As [`worker::RequestHead`](crate::worker::RequestHead).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RequestHead<'a> {
    /// Method token.
    pub method: &'a str,
    /// Absolute URI.
    pub uri: &'a str,
    /// Header block.
    #[serde(with = "serde_bytes")]
    pub headers: &'a [u8],
}

/// As [`worker::ResponseHead`](crate::worker::ResponseHead).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ResponseHead<'a> {
    /// Status code.
    pub status: u16,
    /// Header block.
    #[serde(with = "serde_bytes")]
    pub headers: &'a [u8],
}

/// As [`worker::Context`](crate::worker::Context).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Context<'a> {
    /// The supervisor's id of the whole request.
    pub ray: &'a str,
    /// Client's IP address as text, or empty.
    pub client: &'a str,
    /// JSON text of the arguments, or empty.
    pub args: &'a str,
    /// Set for an outbound Worker.
    pub outbound: Option<OutboundContext>,
}

/// As [`worker::ToWorker`](crate::worker::ToWorker), variant by variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)] // said there
pub enum ToWorker<'a> {
    Request {
        id: RequestId,
        #[serde(borrow)]
        head: RequestHead<'a>,
        context: Context<'a>,
        body: HostBody,
    },
    Cancel {
        id: RequestId,
    },
    Response {
        fetch: FetchId,
        head: ResponseHead<'a>,
        body: HostBody,
    },
    FetchFailed {
        fetch: FetchId,
        error: FetchError,
    },
    BodyEnd {
        body: BodyRef,
        end: BodyEnd,
    },
    Shutdown,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::MESSAGE_BYTES;
    use crate::{codec, worker};

    fn owned(message: ToWorker<'_>) -> worker::ToWorker {
        match message {
            ToWorker::Request { id, head, context, body } => worker::ToWorker::Request {
                id,
                head: worker::RequestHead {
                    method: head.method.into(),
                    uri: head.uri.into(),
                    headers: head.headers.into(),
                },
                context: worker::Context {
                    ray: context.ray.into(),
                    client: context.client.into(),
                    args: context.args.into(),
                    outbound: context.outbound,
                },
                body,
            },
            ToWorker::Cancel { id } => worker::ToWorker::Cancel { id },
            ToWorker::Response { fetch, head, body } => worker::ToWorker::Response {
                fetch,
                head: worker::ResponseHead { status: head.status, headers: head.headers.into() },
                body,
            },
            ToWorker::FetchFailed { fetch, error } => worker::ToWorker::FetchFailed { fetch, error },
            ToWorker::BodyEnd { body, end } => worker::ToWorker::BodyEnd { body, end },
            ToWorker::Shutdown => worker::ToWorker::Shutdown,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn it_reads_what_the_other_writes(message: worker::ToWorker) {
            let bytes = codec::encode(&message, MESSAGE_BYTES).unwrap();
            let borrowed = codec::decode_borrowed::<ToWorker<'_>>(&bytes, MESSAGE_BYTES).unwrap();
            prop_assert_eq!(&codec::encode(&borrowed, MESSAGE_BYTES).unwrap(), &bytes);
            prop_assert_eq!(owned(borrowed), message);
        }

        #[test]
        fn it_refuses_what_the_other_refuses(message: worker::ToWorker, at: prop::sample::Index, to: u8) {
            let mut bytes = codec::encode(&message, MESSAGE_BYTES).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let borrowed = codec::decode_borrowed::<ToWorker<'_>>(&bytes, MESSAGE_BYTES).ok().map(owned);
            prop_assert_eq!(borrowed, codec::decode::<worker::ToWorker>(&bytes, MESSAGE_BYTES).ok());
        }
    }
}
