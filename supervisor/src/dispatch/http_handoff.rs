//! Tail dispatch without the SDK: the response header `cloister-dispatch`.
//!
//! `cloister-dispatch: NAME`, or `BINDING/NAME` when the Worker has several `dispatch_namespace`
//! bindings; `cloister-dispatch-limits: cpu_ms=50, wall_ms=1000, subrequests=10`. The request's
//! body was sent to the Worker already, so it is kept meanwhile, up to [`KEPT_BYTES`].

use std::sync::Arc;

use bytes::Bytes;
use cloister_ipc::worker::{DispatchOptions, Target};
use http::Response;
use http_body::Body as _;

use super::gather::{Budget, Missing, Share, gather};
use crate::body::Body;
use crate::registry::{Binding, Contract, Deployed};

/// Longest body kept to be sent again, in bytes.
const KEPT_BYTES: u64 = 1 << 20;

const DISPATCH: &str = "cloister-dispatch";
const LIMITS: &str = "cloister-dispatch-limits";

/// A request's body, in case it has to be sent again.
pub(super) enum Replay {
    Never,
    Kept {
        bytes: Bytes,
        /// Of what may be kept in all.
        _share: Option<Share>,
    },
    TooLong,
}

impl Replay {
    /// The body once more.
    pub(super) fn body(self) -> Result<Body, String> {
        match self {
            Self::Kept { bytes, .. } => Ok(Body::full(bytes)),
            Self::Never | Self::TooLong => Err(format!(
                "answers with {DISPATCH}, but the request's body is longer than {KEPT_BYTES} bytes or of \
                 unknown length, and can't be sent again"
            )),
        }
    }
}

/// True for a Worker that may hand requests on by a header.
pub(super) fn may_hand_on(deployed: &Deployed) -> bool {
    deployed.contract == Contract::Http && bindings(deployed).next().is_some()
}

/// Keeps a copy of the body of a request to a Worker that [`may_hand_on`], within the `budget`.
pub(super) async fn keep(
    mut body: Body,
    client: &str,
    budget: &Arc<Budget>,
) -> Result<(Body, Replay), Missing> {
    if let Some(bytes) = body.take_full() {
        let whole = Body::full(bytes.clone());
        let fits = bytes.len() as u64 <= KEPT_BYTES;
        return Ok((whole, if fits { Replay::Kept { bytes, _share: None } } else { Replay::TooLong }));
    }
    if body.size_hint().upper().is_none_or(|upper| upper > KEPT_BYTES) {
        return Ok((body, Replay::TooLong));
    }
    let (bytes, share) = gather(body, KEPT_BYTES, client, budget).await?;
    Ok((Body::full(bytes.clone()), Replay::Kept { bytes, _share: Some(share) }))
}

/// Whom the response hands the request on to; an error when it says so in a wrong way.
pub(super) fn target(deployed: &Deployed, response: &Response<Body>) -> Result<Option<Target>, String> {
    if !may_hand_on(deployed) {
        return Ok(None);
    }
    let Some(value) = response.headers().get(DISPATCH) else { return Ok(None) };
    let text = value.to_str().map_err(|_| format!("{DISPATCH} is not text"))?;
    let (binding, worker) = match text.split_once('/') {
        Some((binding, worker)) => (binding, worker),
        None => {
            let mut bindings = bindings(deployed);
            match (bindings.next(), bindings.next()) {
                (Some(binding), None) => (binding, text),
                _ => return Err(format!("{DISPATCH}: {text} must say BINDING/NAME: there are several")),
            }
        }
    };
    let options = match response.headers().get(LIMITS) {
        Some(value) => limits(value.to_str().map_err(|_| format!("{LIMITS} is not text"))?)?,
        None => DispatchOptions::default(),
    };
    Ok(Some(Target::Dispatch { binding: binding.to_owned(), worker: worker.to_owned(), options }))
}

fn bindings(deployed: &Deployed) -> impl Iterator<Item = &str> {
    let dispatch =
        |(name, binding): (_, &Binding)| matches!(binding, Binding::DispatchNamespace { .. }).then_some(name);
    deployed.bindings.iter().filter_map(move |(name, binding)| dispatch((name.as_str(), binding)))
}

fn limits(text: &str) -> Result<DispatchOptions, String> {
    let mut options = DispatchOptions::default();
    for part in text.split(',') {
        let wrong = || format!("{LIMITS}: {part:?} is not cpu_ms=, wall_ms= or subrequests= and a number");
        let (name, number) = part.trim().split_once('=').ok_or_else(wrong)?;
        let number = Some(number.trim().parse().map_err(|_| wrong())?);
        match name.trim() {
            "cpu_ms" => options.cpu_ms = number,
            "wall_ms" => options.wall_ms = number,
            "subrequests" => options.subrequests = number,
            _ => return Err(wrong()),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_too_long_to_be_kept_is_passed_on_whole() {
        for length in [0, 10, KEPT_BYTES, KEPT_BYTES + 1] {
            let length = usize::try_from(length).unwrap();
            let (body, replay) =
                keep(Body::full(vec![b'x'; length]), "192.0.2.1", &Budget::new()).await.unwrap();
            assert_eq!(body.collect().await.unwrap().to_bytes().len(), length);
            assert_eq!(matches!(replay, Replay::TooLong), length as u64 > KEPT_BYTES);
        }
    }

    #[test]
    fn limits_are_read_or_refused() {
        let options = limits("cpu_ms=50, wall_ms = 1000,subrequests=3").unwrap();
        assert_eq!((options.cpu_ms, options.wall_ms, options.subrequests), (Some(50), Some(1000), Some(3)));
        for wrong in ["cpu=1", "cpu_ms", "cpu_ms=-1", "", "cpu_ms=1,,"] {
            assert!(limits(wrong).is_err(), "{wrong}");
        }
    }
}
