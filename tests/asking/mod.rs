//! What an authenticator is asked, by the only one that can ask: a session.

use std::time::{Duration, Instant};

use electric_satellite::{
    session::{AuthRequest, Input, Output, ServerSession, Session, Token},
    wire::{Request, Version, proto::SatAuthReq},
};

/// What a session asks its authenticator when a client presents this token.
pub(crate) fn request(token: &Token) -> AuthRequest {
    let now = Instant::now();
    let mut session = ServerSession::new(now, Duration::from_secs(10), Version::V0_12, "server");
    let call = SatAuthReq { id: "client".into(), token: token.expose().into(), headers: vec![] };
    let frame = Request::from(call).encode(1).encode();
    session.handle_input(now, Input::Binary(frame.into())).unwrap();
    match session.poll_output() {
        Some(Output::Authenticate(request)) => request,
        other => panic!("the session asks, it does not say {other:?}"),
    }
}
