//! Upgrades, on either side: what is asked, and how it is answered.

use std::time::Duration;

use tokio::time::timeout;

use crate::wire::Version;

use super::super::{
    octets::{self, ACCEPT, Http},
    script::{Acceptance, Answer, Ask, Beginning, SPOKEN, Upgrade},
};

use super::*;

impl Play<'_> {
    pub(super) async fn open(&mut self, upgrade: &Upgrade) -> Result<(), Stop> {
        let protocols = upgrade.protocols.clone().unwrap_or_else(|| vec![self.version.to_string()]);
        let agreed = match (&upgrade.agreed, &protocols[..]) {
            (Some(agreed), _) => agreed.clone(),
            (None, [only]) => only.trim().to_owned(),
            (None, _) => self.version.to_string(),
        };
        let mut lines: Vec<(String, String)> = protocols
            .into_iter()
            .map(|protocol| ("Sec-WebSocket-Protocol".into(), protocol))
            .collect();
        lines.extend(upgrade.headers.iter().cloned());
        let path = upgrade.path.as_deref().unwrap_or("/ws");
        let request = octets::upgrade_request(path, &lines);
        let agreed = self.in_this_run(&agreed);
        let answer = match upgrade.here {
            true => self.request(&request, self.patience).await?,
            false => self.exchange(&request, &[101], self.patience).await?,
        };
        let Some(http) = answer else {
            return Err(Stop::Failed("the connection ended instead of an HTTP answer".into()));
        };
        is_upgraded(&http, &agreed).map_err(Stop::Failed)?;
        self.wire()?.version = agreed.parse().ok();
        Ok(())
    }

    pub(super) async fn ask(&mut self, ask: &Ask, expected: &Answer) -> Result<(), Stop> {
        let within = expected.within.unwrap_or(self.patience);
        let http = self.exchange(&ask.head, &expected.statuses, within).await?;
        self.is_as_expected(http, expected)
    }

    /// The same text with the version of the run where it is meant.
    fn in_this_run(&self, text: &str) -> String {
        text.replace(SPOKEN, &self.version.to_string())
    }

    pub(super) fn is_as_expected(&self, http: Option<Http>, expected: &Answer) -> Result<(), Stop> {
        let Some(http) = http else {
            return match expected.statuses.is_empty() || expected.or_end {
                true => Ok(()),
                false => Err(Stop::Failed(format!("expected {expected}; the connection ended"))),
            };
        };
        let status = http.status().unwrap_or(0);
        if !expected.statuses.contains(&status) {
            return Err(Stop::Failed(format!("expected {expected}; the answer is HTTP {status}")));
        }
        if let Some(body) = expected.body
            && !http.body.contains(body)
        {
            return Err(Stop::Failed(format!(
                "expected {expected}; the body is {:?}",
                beginning(&http.body)
            )));
        }
        for (name, value) in &expected.headers {
            let found = http.header(name);
            let as_expected = match value {
                Some(value) => {
                    let value = self.in_this_run(value);
                    found.is_some_and(|found| found.eq_ignore_ascii_case(&value))
                }
                None => found.is_some(),
            };
            if !as_expected {
                return Err(Stop::Failed(format!("expected {expected}; {name} is {found:?}")));
            }
        }
        Ok(())
    }

    /// Sends a request on a new connection and reads the answer. A server that has no room says
    /// when to come back, and the suite does, unless that is the answer that is wanted.
    async fn exchange(
        &mut self,
        request: &str,
        wanted: &[u16],
        within: Duration,
    ) -> Result<Option<Http>, Stop> {
        let host = format!("\r\nHost: {}\r\n", self.host);
        let request = &request.replacen("\r\nHost: localhost\r\n", &host, 1);
        for _ in 0..MOST_DEFERRALS {
            self.connect().await?;
            let http = self.request(request, within).await?;
            let status = http.as_ref().and_then(Http::status);
            let later: Option<u64> = http
                .as_ref()
                .filter(|_| matches!(status, Some(429 | 503)))
                .filter(|_| !wanted.iter().any(|wanted| Some(*wanted) == status))
                .and_then(|http| http.header("retry-after")?.parse().ok());
            let Some(seconds) = later else { return Ok(http) };
            self.wires.pop();
            self.pass(Duration::from_secs(seconds.clamp(1, 10))).await;
        }
        Err(Stop::Failed("the server has no room, again and again".into()))
    }

    /// Sends a request on the connection at hand and reads the answer.
    pub(super) async fn request(
        &mut self,
        request: &str,
        within: Duration,
    ) -> Result<Option<Http>, Stop> {
        let patience = self.patience;
        let request = self.in_this_run(request);
        let (wire, record) = self.at_hand()?;
        wire.write_text(record, &request, patience).await;
        let http = timeout(within, wire.http(record)).await;
        http.map_err(|_| Stop::Failed(format!("no HTTP answer within {within:?}")))
    }

    // ---- As a server ----

    pub(super) async fn accept(&mut self, acceptance: &Acceptance) -> Result<(), Stop> {
        self.connect().await?;
        let patience = self.patience;
        let wire = self.wires.last_mut().ok_or(Stop::Failed("no connection".into()))?;
        let http = match timeout(patience, wire.http(&mut self.record)).await {
            Ok(Some(http)) => http,
            Ok(None) => return Err(Stop::Failed("no HTTP request before the end".into())),
            Err(_) => return Err(Stop::Failed(format!("no HTTP request within {patience:?}"))),
        };
        let offered: Vec<String> = offered(&http).map(str::to_owned).collect();
        let accept = accept_of(http.header("sec-websocket-key").unwrap_or_default());
        // What the client wants most, unless the run is about an older version.
        let spoken =
            |offer: &&String| offer.parse::<Version>().is_ok_and(|version| version <= self.version);
        let chosen =
            offered.iter().filter(spoken).max_by_key(|offer| offer.parse::<Version>().ok());
        let protocol = match acceptance {
            Acceptance::Silence => return Ok(()),
            Acceptance::Refusal(head, body) => {
                let length = body.len();
                let text = format!("{head}\r\nContent-Length: {length}\r\n\r\n{body}");
                wire.write_text(&mut self.record, &text, patience).await;
                return Ok(());
            }
            Acceptance::Text(text) => {
                let protocol = chosen.map_or("", String::as_str);
                let text = text.replace("{accept}", &accept).replace("{protocol}", protocol);
                wire.write_text(&mut self.record, &text, patience).await;
                return Ok(());
            }
            Acceptance::Protocol(protocol) => protocol.map(str::to_owned),
            Acceptance::Welcome | Acceptance::Such(_) => {
                is_upgrade_request(&http).map_err(Stop::Failed)?;
                if let Acceptance::Such(requested) = acceptance
                    && !requested.is_met_by(&http, &self.heads)
                {
                    return Err(Stop::Failed(format!("expected an upgrade with {requested}")));
                }
                Some(chosen.cloned().ok_or_else(|| {
                    Stop::Failed(format!("the client offers no version of this run: {offered:?}"))
                })?)
            }
        };
        self.heads.push(http);
        wire.version = protocol.as_ref().and_then(|protocol| protocol.parse().ok());
        if let Some(version) = wire.version
            && !self.versions.contains(&version)
        {
            return Err(Stop::Skipped(format!("it does not hold for {version}")));
        }
        let protocol = protocol
            .map_or(String::new(), |protocol| format!("Sec-WebSocket-Protocol: {protocol}\r\n"));
        let text = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n{protocol}\r\n"
        );
        wire.write_text(&mut self.record, &text, patience).await;
        Ok(())
    }
}

/// As much of a body as a reason has room for.
fn beginning(body: &str) -> String {
    Beginning(body, 200).to_string()
}

fn offered(http: &Http) -> impl Iterator<Item = &str> {
    http.headers("sec-websocket-protocol").flat_map(|line| line.split(',')).map(str::trim)
}

/// An answer that opens a WebSocket (RFC 6455 §4.2.2) with this subprotocol.
fn is_upgraded(http: &Http, protocol: &str) -> Result<(), String> {
    if http.status() != Some(101) {
        return Err(format!(
            "expected HTTP 101; the answer is {:?} {:?}",
            http.line(),
            beginning(&http.body)
        ));
    }
    let header = |name| http.header(name).unwrap_or_default();
    if !header("upgrade").eq_ignore_ascii_case("websocket") {
        return Err(format!("the answer has Upgrade: {:?}", header("upgrade")));
    }
    if !header("connection").to_ascii_lowercase().contains("upgrade") {
        return Err(format!("the answer has Connection: {:?}", header("connection")));
    }
    if header("sec-websocket-accept") != ACCEPT {
        return Err("Sec-WebSocket-Accept does not match the key".into());
    }
    let agreed: Vec<&str> = http.headers("sec-websocket-protocol").collect();
    if agreed != [protocol] {
        return Err(format!("the server must agree to {protocol:?}; it agrees to {agreed:?}"));
    }
    if !header("sec-websocket-extensions").is_empty() {
        return Err("an extension that was not offered".into());
    }
    Ok(())
}

/// A request that opens a WebSocket (RFC 6455 §4.1), at the path and with the subprotocol of
/// Satellite.
fn is_upgrade_request(http: &Http) -> Result<(), String> {
    let mut line = http.line().split(' ');
    if line.next() != Some("GET") {
        return Err(format!("the request is {:?}", http.line()));
    }
    let path = line.next().unwrap_or_default();
    if path.split('?').next() != Some("/ws") {
        return Err(format!("the request is for {path:?}, not for /ws"));
    }
    let header = |name| http.header(name).unwrap_or_default().to_ascii_lowercase();
    if header("upgrade") != "websocket" || !header("connection").contains("upgrade") {
        return Err("the request is no upgrade to a WebSocket".into());
    }
    if header("sec-websocket-version") != "13" {
        return Err(format!("Sec-WebSocket-Version is {:?}", header("sec-websocket-version")));
    }
    Ok(())
}

/// `Sec-WebSocket-Accept` for this key.
fn accept_of(key: &str) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes())
}
