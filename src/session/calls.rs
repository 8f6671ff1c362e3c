//! Our calls that wait for an answer.

use crate::wire::Method;

/// Names one call of ours: the method and the request id, which together are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    /// The method called.
    pub method: Method,
    /// The number of the call.
    pub request_id: u32,
}

/// The calls that wait, and the next number. Few wait at a time, so a list serves.
#[derive(Debug)]
pub(super) struct Calls {
    next: u32,
    waiting: Vec<CallId>,
}

impl Calls {
    /// No call yet; the first will have this number. Servers count from 0, clients from 1.
    pub(super) fn counting_from(first: u32) -> Calls {
        Calls { next: first, waiting: Vec::new() }
    }

    /// The next call, which waits from now on.
    pub(super) fn begin(&mut self, method: Method) -> CallId {
        let call = CallId { method, request_id: self.next };
        self.next = self.next.wrapping_add(1);
        self.waiting.push(call);
        call
    }

    /// The waiting call that this reply answers. It waits no more.
    pub(super) fn answered(&mut self, method: &str, request_id: u32) -> Option<CallId> {
        let index = self
            .waiting
            .iter()
            .position(|call| call.request_id == request_id && call.method.as_str() == method)?;
        Some(self.waiting.swap_remove(index))
    }

    /// The call waits no more.
    pub(super) fn forget(&mut self, call: CallId) {
        self.waiting.retain(|waiting| *waiting != call);
    }

    /// All that wait, which wait no more.
    pub(super) fn take_all(&mut self) -> Vec<CallId> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_and_number_together_name_a_call() {
        let mut calls = Calls::counting_from(0);
        let start = calls.begin(Method::StartReplication);
        let stop = calls.begin(Method::StopReplication);
        assert_eq!((start.request_id, stop.request_id), (0, 1));
        assert_eq!(calls.answered("stopReplication", 0), None);
        assert_eq!(calls.answered("startReplication", 0), Some(start));
        assert_eq!(calls.answered("startReplication", 0), None);
        assert_eq!(calls.take_all(), [stop]);
    }

    #[test]
    fn numbers_start_over_after_the_last() {
        let mut calls = Calls::counting_from(u32::MAX);
        assert_eq!(calls.begin(Method::Subscribe).request_id, u32::MAX);
        assert_eq!(calls.begin(Method::Subscribe).request_id, 0);
    }
}
