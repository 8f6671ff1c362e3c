//! A service with nothing to sync: what a handler looks like, and what `satellite serve` runs.

use std::collections::HashSet;

use crate::{
    session::AuthenticatedClient,
    transport::{Connection, Event},
    wire::{
        Message, ServerLsn,
        proto::{
            SatErrorResp, SatInStartReplicationReq, SatInStartReplicationResp,
            SatInStopReplicationResp, SatShapeReq, SatSubsReq, SatSubsResp, SatUnsubsResp,
            sat_error_resp::ErrorCode,
            sat_in_start_replication_resp::{ReplicationError, replication_error::Code},
            sat_subs_resp::{
                SatSubsError,
                sat_subs_error::{ShapeReqError, shape_req_error},
            },
        },
    },
};

/// How many transactions may be unacknowledged, as the original announces it.
const UNACKED_WINDOW: u32 = 30;

/// The longest subscription id, in bytes.
const MAX_SUBSCRIPTION_ID: usize = 128;

/// Answers one client as Electric answers for a database without tables, until it goes.
///
/// Replication starts from the beginning and nothing follows; a subscription to any table is told
/// that the table is unknown; nothing that a client writes is asked for, so it keeps it. A client
/// that has a position, from another service, is refused in a way that makes it stop and not
/// drop its data.
pub async fn empty_database(mut connection: Connection<AuthenticatedClient>) {
    while let Some(event) = connection.recv().await {
        match event {
            Event::StartReplication(request, responder) => match start(&request) {
                Ok(reply) => responder.reply(reply),
                Err(error) => responder.refuse(error),
            },
            Event::StopReplication(_, responder) => responder.reply(SatInStopReplicationResp {}),
            Event::Subscribe(request, responder) => responder.reply(subscribe(request)),
            Event::Unsubscribe(_, responder) => responder.reply(SatUnsubsResp {}),
            // Nothing was sent, so 0 is all that can be acknowledged.
            Event::Message(Message::OpLogAck(ack)) if ack.transaction_id != 0 => connection.fail(
                SatErrorResp::of(ErrorCode::InvalidRequest)
                    .with_message("Acknowledged unknown txn"),
            ),
            Event::Message(message) => {
                let client_id = connection.client_id();
                tracing::debug!(%client_id, message = message.name(), "ignored: not asked for");
            }
        }
    }
}

fn start(request: &SatInStartReplicationReq) -> Result<SatInStartReplicationResp, SatErrorResp> {
    if request.lsn.is_empty() {
        return Ok(match request.subscription_ids.is_empty() {
            true => {
                SatInStartReplicationResp { err: None, unacked_window_size: Some(UNACKED_WINDOW) }
            }
            false => start_error(
                Code::InvalidPosition,
                "Cannot resume subscriptions for a first-time client",
            ),
        });
    }
    match ServerLsn::parse(request.lsn.clone()) {
        Err(_) => {
            Ok(start_error(Code::MalformedLsn, "Could not validate start replication request"))
        }
        // BEHIND_WINDOW would make clients wipe their tables.
        Ok(_) => Err(SatErrorResp::of(ErrorCode::ReplicationFailed).with_message(
            "This service has no data and did not give out this position; \
             it comes from another service",
        )),
    }
}

fn start_error(code: Code, message: &str) -> SatInStartReplicationResp {
    let error = ReplicationError { code: code.into(), message: message.into() };
    SatInStartReplicationResp { err: Some(error), unacked_window_size: None }
}

/// Every subscription is refused, the connection goes on.
fn subscribe(request: SatSubsReq) -> SatSubsResp {
    let SatSubsReq { subscription_id, shape_requests } = request;
    let error = match malformed(&subscription_id, &shape_requests) {
        Some(message) => SatSubsError { message: message.into(), ..Default::default() },
        None => SatSubsError {
            message: "Could not establish a subscription due to errors on requests".into(),
            shape_request_error: shape_requests.iter().flat_map(unknown_tables).collect(),
            ..Default::default()
        },
    };
    SatSubsResp { subscription_id, err: Some(error) }
}

/// What is wrong with the form of a subscription, in the original's order and words.
fn malformed(subscription_id: &str, requests: &[SatShapeReq]) -> Option<&'static str> {
    let canonical = uuid::Uuid::try_parse(subscription_id)
        .is_ok_and(|uuid| uuid.hyphenated().to_string() == subscription_id);
    let mut ids = HashSet::new();
    if subscription_id.len() > MAX_SUBSCRIPTION_ID {
        Some("ID too long")
    } else if requests.is_empty() {
        Some("Subscription must include at least one shape request")
    } else if !canonical {
        Some("Subscription ID should be a valid UUID")
    } else if !requests.iter().all(|request| ids.insert(&request.request_id)) {
        Some("Duplicated request ids are not allowed")
    } else {
        None
    }
}

/// An error for each table that the request names, or for naming none.
fn unknown_tables(request: &SatShapeReq) -> Vec<ShapeReqError> {
    let error = |code: shape_req_error::Code, message: String| ShapeReqError {
        code: code.into(),
        message,
        request_id: request.request_id.clone(),
    };
    let selects = request.shape_definition.as_ref().map_or(&[][..], |shape| &shape.selects);
    if selects.is_empty() {
        let code = shape_req_error::Code::EmptyShapeDefinition;
        return vec![error(code, "Empty shape requests are not allowed".into())];
    }
    let unknown = |name: &String| {
        error(shape_req_error::Code::TableNotFound, format!("Unknown table {name}"))
    };
    selects.iter().map(|select| unknown(&select.tablename)).collect()
}
