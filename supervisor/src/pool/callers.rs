//! For whom a process asks through its proxy port: for one of its calls, or for what is left of the last one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::egress::{Budget, Caller as EgressCaller, OutboundCall};
use crate::worker::Caller;

/// The ray of what a process asks for between its calls, and of all that follows from that.
pub const BACKGROUND: &str = "background";

/// What holds for requests between calls.
struct Afterwards {
    /// The outbound Worker of the last call that carried one.
    outbound: Option<OutboundCall>,
    /// What is left of the last call that was not background work itself. Background work gives no new budget, or
    /// two Workers could keep each other busy.
    budget: Option<Arc<Budget>>,
    /// How many Workers deep the last call was.
    depth: u8,
}

/// The calls of one process that are not over.
pub(super) struct Callers {
    open: Mutex<Vec<Weak<dyn Caller>>>,
    afterwards: Mutex<Afterwards>,
}

impl Callers {
    /// None yet. Before its first call a process asks in the name of the `cause`, the call it was started for: one
    /// that asks before it listens, and ends, would begin anew each time otherwise.
    pub(super) fn new(cause: Option<EgressCaller>) -> Self {
        let afterwards = match cause {
            Some(EgressCaller { outbound, subrequests, depth, .. }) => {
                Afterwards { outbound, budget: Some(subrequests), depth }
            }
            None => Afterwards { outbound: None, budget: None, depth: 0 },
        };
        Self { open: Mutex::default(), afterwards: Mutex::new(afterwards) }
    }

    fn open(&self) -> MutexGuard<'_, Vec<Weak<dyn Caller>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins.
    pub(super) fn add(&self, caller: &Arc<dyn Caller>) {
        self.open().push(Arc::downgrade(caller));
        let caller = caller.egress();
        let mut afterwards = self.afterwards.lock().unwrap_or_else(PoisonError::into_inner);
        if &*caller.ray != BACKGROUND || afterwards.budget.is_none() {
            afterwards.budget = Some(caller.subrequests);
        }
        afterwards.depth = caller.depth;
        if caller.outbound.is_some() {
            afterwards.outbound = caller.outbound;
        }
    }

    /// The call at this address is over, its answer's body too.
    pub(super) fn remove(&self, caller: *const ()) {
        let mut open = self.open();
        if let Some(at) = open.iter().rposition(|other| std::ptr::addr_eq(other.as_ptr(), caller)) {
            open.remove(at);
        }
    }

    /// For whom a request most likely is: for the latest call that is not over. One that carries an outbound Worker
    /// comes first, so that another call is no way around it.
    pub(super) fn current(&self) -> Option<EgressCaller> {
        // Upgraded without the lock: the last of an invocation asks for it.
        let open = self.open().clone();
        let mut latest = None;
        for caller in open.iter().rev().filter_map(Weak::upgrade) {
            let caller = caller.egress();
            if caller.outbound.is_some() {
                return Some(caller);
            }
            latest.get_or_insert(caller);
        }
        latest
    }

    /// What holds between calls; a process that was started for no call has a `fresh` budget before its first.
    pub(super) fn afterwards(
        &self,
        fresh: impl FnOnce() -> Budget,
    ) -> (Option<OutboundCall>, Arc<Budget>, u8) {
        let mut afterwards = self.afterwards.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = Arc::clone(afterwards.budget.get_or_insert_with(|| Arc::new(fresh())));
        (afterwards.outbound.clone(), budget, afterwards.depth)
    }
}

#[cfg(test)]
mod tests {
    use cloister_ipc::borrowed::Context;
    use cloister_ipc::worker::{FetchError, Target};
    use futures_util::future::BoxFuture;
    use http::{Request, Response};

    use super::*;
    use crate::body::Body;
    use crate::registry::WorkerId;

    struct Call(EgressCaller);

    impl Caller for Call {
        fn fetch(
            self: Arc<Self>,
            _: Target,
            _: Request<Body>,
        ) -> BoxFuture<'static, Result<Response<Body>, FetchError>> {
            Box::pin(async { Err(FetchError::NotFound) })
        }

        fn refuse(self: Arc<Self>, reason: String) -> BoxFuture<'static, FetchError> {
            Box::pin(async { FetchError::Invalid(reason) })
        }

        fn context(&self) -> Context<'_> {
            Context { ray: &self.0.ray, client: "", args: "", outbound: None }
        }

        fn egress(&self) -> EgressCaller {
            self.0.clone()
        }
    }

    fn call(ray: &str, depth: u8, subrequests: u32) -> EgressCaller {
        EgressCaller {
            worker: WorkerId { namespace: None, name: "a".into() },
            version: "1".into(),
            ray: ray.into(),
            depth,
            subrequests: Arc::new(Budget::new(Some(subrequests))),
            outbound: None,
            on_behalf_of: None,
        }
    }

    fn begin(callers: &Callers, call: EgressCaller) -> Arc<dyn Caller> {
        let caller: Arc<dyn Caller> = Arc::new(Call(call));
        callers.add(&caller);
        caller
    }

    fn end(callers: &Callers, call: &Arc<dyn Caller>) {
        callers.remove(Arc::as_ptr(call).cast());
    }

    /// A budget that no call gave.
    fn fresh() -> Budget {
        Budget::new(Some(1000))
    }

    fn left(callers: &Callers) -> u32 {
        let (_, budget, _) = callers.afterwards(fresh);
        (0..1000).take_while(|_| budget.take().is_ok()).count().try_into().unwrap()
    }

    #[test]
    fn what_comes_after_a_call_takes_from_what_it_left() {
        let callers = Callers::new(None);
        let one = begin(&callers, call("one", 2, 3));
        let two = begin(&callers, call("two", 0, 5));
        assert_eq!(&*callers.current().unwrap().ray, "two");
        end(&callers, &two);
        assert_eq!(&*callers.current().unwrap().ray, "one", "until its answer is over");
        end(&callers, &one);
        assert!(callers.current().is_none());
        callers.afterwards(fresh).1.take().unwrap();
        assert_eq!(left(&callers), 4);
        assert_eq!(callers.afterwards(fresh).2, 0, "as deep as the last that began");
    }

    #[test]
    fn background_work_gives_no_new_budget() {
        let callers = Callers::new(None);
        begin(&callers, call("one", 0, 3));
        assert_eq!(left(&callers), 3);
        begin(&callers, call(BACKGROUND, 7, 3));
        assert_eq!((left(&callers), callers.afterwards(fresh).2), (0, 7));
        begin(&callers, call("two", 0, 3));
        assert_eq!((left(&callers), callers.afterwards(fresh).2), (3, 0));
    }

    #[test]
    fn a_process_begins_with_what_it_was_started_for() {
        let cause = call(BACKGROUND, 7, 2);
        let callers = Callers::new(Some(cause.clone()));
        cause.subrequests.take().unwrap();
        assert_eq!((left(&callers), callers.afterwards(fresh).2), (1, 7));
        begin(&callers, call(BACKGROUND, 7, 2));
        assert_eq!(left(&callers), 0);
        assert_eq!(left(&Callers::new(None)), 1000);
    }
}
