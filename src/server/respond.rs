//! The handshake inside an application that has an HTTP server already.

use std::net::IpAddr;

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use crate::{
    auth::Authenticator,
    registry::{InProcessRegistry, Registry},
    session::AuthenticatedClient,
    transport::Connection,
    wire::Version,
};

use super::{
    AcceptError, Entrance, Server, Upgraded,
    admission::Place,
    metrics::Handshake,
    upgrade::{self, Gate},
};

impl<A: Authenticator, R: Registry> Server<A, R> {
    /// Answers a request that came to an HTTP server of your own, built on hyper, such as axum's.
    /// If it is an upgrade that is granted, what is returned beside the answer becomes the
    /// connection once the answer is sent: accept it on a task of its own.
    ///
    /// All limits and policies hold, but those on the size and the time of the request, which is
    /// here already. `examples/axum.rs` shows it.
    pub fn respond<B>(
        &self,
        mut request: Request<B>,
        peer: impl Into<Option<IpAddr>>,
    ) -> (Response<Full<Bytes>>, Option<Upgrading<A, R>>) {
        let (gate, peer) = (Gate { options: &self.options, state: &self.state }, peer.into());
        let Entrance { mut place, overload, mut handshake, .. } = match self.enter(peer) {
            Ok(entrance) => entrance,
            Err(overload) => return (gate.turn_away(overload), None),
        };
        let judged = match overload {
            Some(overload) => Err(Box::new(gate.turn_away(overload))),
            None => gate.judge(&request, peer, &mut place),
        };
        let (version, answer) = match judged {
            Ok(granted) => (granted.version, granted.answer()),
            Err(answer) => {
                handshake.refused(&AcceptError::NotUpgraded);
                return (*answer, None);
            }
        };
        let on_upgrade = hyper::upgrade::on(&mut request);
        let server = self.clone();
        (answer, Some(Upgrading { server, on_upgrade, version, place, handshake }))
    }
}

/// A request that is about to become a connection; see [`Server::respond`].
pub struct Upgrading<A, R = InProcessRegistry> {
    server: Server<A, R>,
    on_upgrade: OnUpgrade,
    version: Version,
    place: Place,
    handshake: Handshake,
}

impl<A: Authenticator, R: Registry> Upgrading<A, R> {
    /// Takes the connection through the authentication, as [`Server::accept`] does.
    ///
    /// # Errors
    ///
    /// The connection did not come so far; see [`AcceptError`]. It has been answered and closed.
    pub async fn accept(self) -> Result<Connection<AuthenticatedClient>, AcceptError> {
        let Upgrading { server, on_upgrade, version, place, mut handshake } = self;
        let limits = &server.options.limits;
        let stream = timeout(limits.upgrade_timeout, on_upgrade).await;
        let stream = handshake.judged(match stream {
            Ok(upgraded) => upgraded.map_err(upgrade::http_error),
            Err(_) => Err(AcceptError::TimedOut),
        })?;
        let socket = upgrade::websocket(TokioIo::new(stream), vec![], limits);
        let since = Instant::now();
        let (connection, driver) =
            server.authenticate(Upgraded { socket, version, place, handshake, since }).await?;
        tokio::spawn(driver);
        Ok(connection)
    }
}
