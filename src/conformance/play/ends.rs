//! How connections end, and whether they may.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::session::Close;

use super::super::{
    octets,
    script::{EndKind, Ending, Incoming},
};

use super::*;

impl Play<'_> {
    pub(super) async fn ends(&mut self, ending: &Ending) -> Result<(), Stop> {
        let within = ending.within.unwrap_or(self.patience);
        match &ending.kind {
            EndKind::Open => self.is_open(within).await,
            EndKind::Closed(codes, reason) => {
                let close = self.closes(ending, within).await?;
                let Some(close) = close else {
                    return Err(Stop::Close(format!(
                        "must {ending}; the connection ended without a close frame"
                    )));
                };
                let code = close.as_ref().map(|close| close.code);
                let found = close.as_ref().map_or("no code".into(), Close::to_string);
                let said = close.as_ref().map_or("", |close| &close.reason);
                if !codes.contains(&code) || reason.is_some_and(|reason| reason != said) {
                    return Err(Stop::Close(format!("must {ending}; it was with {found}")));
                }
                self.ends_after_close(code, within).await
            }
            EndKind::Gone => match self.closes(ending, within).await? {
                None => Ok(()),
                Some(close) => self.ends_after_close(close.map(|close| close.code), within).await,
            },
        }
    }

    /// It answers a ping, and nothing else comes.
    async fn is_open(&mut self, within: Duration) -> Result<(), Stop> {
        const PAYLOAD: &[u8] = b"still open";
        self.send_now("a ping", PAYLOAD, octets::PING).await?;
        let deadline = Instant::now() + within;
        loop {
            let Some(incoming) = self.receive_until(deadline).await? else {
                return Err(Stop::Close(format!(
                    "must stay open; it does not answer a ping within {within:?}"
                )));
            };
            match incoming {
                Incoming::Pong(payload) if payload == PAYLOAD => return Ok(()),
                incoming if self.is_incidental(&incoming).await? => {}
                incoming => {
                    return Err(Stop::Close(format!("must stay open; there came {incoming}")));
                }
            }
        }
    }

    /// The close frame of the peer; nothing if the connection ends without one.
    async fn closes(
        &mut self,
        ending: &Ending,
        within: Duration,
    ) -> Result<Option<Option<Close>>, Stop> {
        let deadline = Instant::now() + within;
        loop {
            let Some(incoming) = self.receive_until(deadline).await? else {
                return Err(Stop::Close(format!(
                    "must {ending}; it is still open after {within:?}"
                )));
            };
            match incoming {
                Incoming::Close(close) => return Ok(Some(close)),
                Incoming::End => return Ok(None),
                incoming if self.is_incidental(&incoming).await? => {}
                incoming => {
                    return Err(Stop::Close(format!("must {ending}; there came {incoming}")));
                }
            }
        }
    }

    /// After the close frames the server ends the connection, as RFC 6455 §7.1.1 wants it.
    async fn ends_after_close(&mut self, code: Option<u16>, within: Duration) -> Result<(), Stop> {
        let payload = code.map_or(vec![], |code| code.to_be_bytes().to_vec());
        if !self.wire()?.has_closed {
            self.send_now("the close frame in return", &payload, octets::CLOSE).await?;
        }
        if !self.stage.is_client() {
            self.replace_by_nothing();
            return Ok(());
        }
        match timeout(within, self.receive()).await {
            Ok(Ok(Incoming::End)) => Ok(()),
            Ok(incoming) => {
                Err(Stop::Close(format!("after its close frame there came {}", incoming?)))
            }
            Err(_) => Err(Stop::Close(format!(
                "the connection is still there {within:?} after the close frames"
            ))),
        }
    }
}
