//! The subscriptions of a client, as far as its server's stream depends on them.

use std::collections::{HashMap, VecDeque};

use crate::wire::proto::SatSubsReq;

use super::StreamError;

/// How many answered `unsubscribe` calls are remembered. Rows follow such a call at once if they
/// do, and an error instead of data soon.
const UNSUBSCRIBES: usize = 256;

/// The subscriptions that the client has, and those that it gave up lately. Nothing but the
/// client's own calls adds to them.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    held: HashMap<String, Data>,
    /// What the latest `unsubscribe` calls named, oldest first.
    left: VecDeque<Vec<String>>,
}

/// What is known of a subscription's data.
#[derive(Debug)]
enum Data {
    /// It has not come. These are the shapes that were asked for, if that was on this connection.
    Awaited(Option<Vec<String>>),
    /// It has come.
    Delivered,
}

/// The data of a subscription that is coming.
#[derive(Debug)]
pub(super) struct Delivery {
    subscription_id: String,
    /// The shapes that have not begun. Nothing is known of those that were asked for on an
    /// earlier connection.
    missing: Option<Vec<String>>,
}

impl Subscriptions {
    /// The server has accepted a subscription.
    pub(super) fn subscribed(&mut self, request: SatSubsReq) {
        let shapes = request.shape_requests.into_iter().map(|shape| shape.request_id).collect();
        self.held.insert(request.subscription_id, Data::Awaited(Some(shapes)));
    }

    /// The server goes on with these, of an earlier connection or of this one.
    pub(super) fn resumed(&mut self, subscription_ids: Vec<String>) {
        for id in subscription_ids {
            self.held.entry(id).or_insert(Data::Awaited(None));
        }
    }

    /// The server has ended these, if it had them.
    pub(super) fn unsubscribed(&mut self, subscription_ids: Vec<String>) {
        for id in &subscription_ids {
            self.held.remove(id);
        }
        if self.left.len() == UNSUBSCRIBES {
            self.left.pop_front();
        }
        self.left.push_back(subscription_ids);
    }

    /// The data of a subscription begins.
    pub(super) fn begin(&self, subscription_id: &str) -> Result<Delivery, StreamError> {
        match self.held.get(subscription_id) {
            Some(Data::Awaited(shapes)) => Ok(Delivery {
                subscription_id: subscription_id.to_owned(),
                missing: shapes.clone(),
            }),
            Some(Data::Delivered) => Err(StreamError::RepeatedSubscription),
            None => Err(StreamError::UnknownSubscription { what: "SatSubsDataBegin" }),
        }
    }

    /// The data of a subscription has come.
    pub(super) fn end(&mut self, delivery: &Delivery) -> Result<(), StreamError> {
        match delivery.missing.as_ref().map_or(0, Vec::len) {
            0 => {}
            missing => return Err(StreamError::MissingShapes { missing }),
        }
        // Unless it was given up meanwhile.
        if let Some(data) = self.held.get_mut(&delivery.subscription_id) {
            *data = Data::Delivered;
        }
        Ok(())
    }

    /// The data of a subscription cannot be delivered. That ends it.
    pub(super) fn failed(&mut self, subscription_id: &str) -> Result<(), StreamError> {
        let left = || self.left.iter().flatten().any(|id| id == subscription_id);
        match self.held.remove(subscription_id).is_some() || left() {
            true => Ok(()),
            false => Err(StreamError::UnknownSubscription { what: "SatSubsDataError" }),
        }
    }

    /// The rows of these leave. What an earlier connection gave up counts where `resumed`.
    pub(super) fn leave(
        &mut self,
        subscription_ids: &[String],
        resumed: bool,
    ) -> Result<(), StreamError> {
        // The server names what the call named, and no more.
        let named = |left: &Vec<String>| {
            subscription_ids.len() <= left.len()
                && subscription_ids.iter().all(|id| left.contains(id))
        };
        let held = || subscription_ids.iter().any(|id| self.held.contains_key(id));
        match self.left.iter().position(named) {
            _ if subscription_ids.is_empty() => Err(StreamError::NotUnsubscribed),
            Some(call) => {
                self.left.remove(call);
                Ok(())
            }
            None if resumed && !held() => Ok(()),
            None => Err(StreamError::NotUnsubscribed),
        }
    }
}

impl Delivery {
    /// Whether this is the data of a subscription.
    pub(super) fn is_of(&self, subscription_id: &str) -> bool {
        self.subscription_id == subscription_id
    }

    /// The data of a shape begins.
    pub(super) fn shape(&mut self, request_id: &str) -> Result<(), StreamError> {
        let Some(missing) = &mut self.missing else { return Ok(()) };
        let index = missing.iter().position(|shape| shape == request_id);
        missing.swap_remove(index.ok_or(StreamError::UnknownShape)?);
        Ok(())
    }
}
