//! How connections come about: upgrades that are asked for, and how they are answered.

use std::{borrow::Cow, fmt, ops::RangeInclusive, time::Duration};

use super::super::octets::{self, Http};

use super::*;

/// An upgrade that a server must accept.
#[derive(Clone, Debug, Default)]
pub struct Upgrade {
    /// What is offered instead of the version of the run.
    pub(in crate::conformance) protocols: Option<Vec<String>>,
    /// What must be agreed to, if it is not the only one that is offered.
    pub(in crate::conformance) agreed: Option<String>,
    pub(in crate::conformance) path: Option<String>,
    pub(in crate::conformance) headers: Vec<(String, String)>,
    /// On the connection at hand instead of a new one.
    pub(in crate::conformance) here: bool,
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.here {
            f.write_str(" by an upgrade of the one at hand")?;
        }
        if let Some(path) = &self.path {
            write!(f, " to {path}")?;
        }
        if let Some(protocols) = &self.protocols {
            write!(f, ", offering {protocols:?}")?;
        }
        if let Some(agreed) = &self.agreed {
            write!(f, "; the server must agree to {agreed:?}")?;
        }
        for (name, value) in &self.headers {
            write!(f, ", with {name}: {value}")?;
        }
        Ok(())
    }
}

impl Upgrade {
    /// Offers these subprotocols instead, one header line each.
    pub fn offering<P: Into<String>>(self, lines: impl IntoIterator<Item = P>) -> Upgrade {
        Upgrade { protocols: Some(lines.into_iter().map(Into::into).collect()), ..self }
    }

    /// The server must choose this one.
    pub fn agreeing_to(self, protocol: &str) -> Upgrade {
        Upgrade { agreed: Some(protocol.into()), ..self }
    }

    /// Asks for another path than `/ws`.
    pub fn at(self, path: &str) -> Upgrade {
        Upgrade { path: Some(path.into()), ..self }
    }

    /// On the connection at hand, on which requests have been refused, instead of a new one.
    pub fn here(self) -> Upgrade {
        Upgrade { here: true, ..self }
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: &str) -> Upgrade {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// As a step.
    pub fn step(self) -> Step {
        Step::Open(self)
    }
}

/// Opens a connection, which the steps after it are about.
pub fn open() -> Step {
    upgrade().step()
}

/// An upgrade, to be changed.
pub fn upgrade() -> Upgrade {
    Upgrade::default()
}

/// Stands, in a subprotocol that is offered or agreed to, for the version of the run, which every
/// peer speaks.
pub const SPOKEN: &str = "electric.{the version of the run}";

/// An HTTP request, by the byte.
#[derive(Clone)]
pub struct Ask {
    pub(in crate::conformance) head: String,
    words: String,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl Ask {
    /// The upgrade of a good client, with one subprotocol line for each of these.
    pub fn upgrade<P: AsRef<str>>(protocols: impl IntoIterator<Item = P>) -> Ask {
        let lines: Vec<(String, String)> = protocols
            .into_iter()
            .map(|protocol| ("Sec-WebSocket-Protocol".into(), protocol.as_ref().into()))
            .collect();
        let words = lines.iter().map(|(_, protocol)| format!("{protocol:?}"));
        let words = words.collect::<Vec<_>>().join(" and ");
        let head = octets::upgrade_request("/ws", &lines);
        Ask { head, words: format!("for an upgrade, offering {words}") }
    }

    /// A request that is written out, without the empty line at its end.
    pub fn text(lines: &[&str]) -> Ask {
        Ask { head: format!("{}\r\n\r\n", lines.join("\r\n")), words: format!("{lines:?}") }
    }

    /// A request that does not end: these bytes and no more.
    pub fn unfinished(words: &str, text: String) -> Ask {
        Ask { head: text, words: words.into() }
    }

    /// The same request without a header.
    pub fn without(mut self, name: &str) -> Ask {
        let named = |line: &&str| {
            line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
        };
        let kept: Vec<&str> = self.head.split("\r\n").filter(|line| !named(line)).collect();
        self.head = kept.join("\r\n");
        self.words += &format!(", without {name}");
        self
    }

    /// The same request with another value of a header.
    pub fn with(self, name: &str, value: &str) -> Ask {
        let words = format!("{}, with {name}: {}", self.words, shortened(value));
        let mut ask = self.without(name);
        let at = ask.head.len() - 2;
        ask.head.insert_str(at, &format!("{name}: {value}\r\n"));
        Ask { words, ..ask }
    }

    /// The same request with another first line.
    pub fn line(mut self, line: &str) -> Ask {
        let at = self.head.find("\r\n").unwrap_or(0);
        self.head.replace_range(..at, line);
        self.words = format!("{} as {:?}", self.words, shortened(line));
        self
    }

    /// The answer must be so.
    pub fn answered(self, answer: Answer) -> Step {
        Step::Ask(self, answer)
    }

    /// On the connection at hand, and the answer must be so.
    pub fn answered_here(self, answer: Answer) -> Step {
        Step::AskHere(self, answer)
    }
}

pub(in crate::conformance) fn shortened(text: &str) -> Cow<'_, str> {
    match text.len() {
        ..80 => text.into(),
        length => format!("[{length} bytes]").into(),
    }
}

/// How an HTTP answer must be.
#[derive(Clone, Debug)]
pub struct Answer {
    /// One of these; none for no answer, but the end of the connection.
    pub(in crate::conformance) statuses: Vec<u16>,
    pub(in crate::conformance) body: Option<&'static str>,
    pub(in crate::conformance) headers: Vec<(&'static str, Option<&'static str>)>,
    /// The end of the connection will do, too.
    pub(in crate::conformance) or_end: bool,
    pub(in crate::conformance) within: Option<Duration>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
        write!(f, "HTTP {}", statuses.join(" or "))?;
        if let Some(body) = self.body {
            write!(f, " with {body:?} in its body")?;
        }
        for (name, value) in &self.headers {
            match value {
                Some(value) => write!(f, ", with {name}: {value}")?,
                None => write!(f, ", with {name}")?,
            }
        }
        if self.or_end {
            f.write_str(", or the end of the connection")?;
        }
        self.within.map_or(Ok(()), |within| write!(f, ", within {within:?}"))
    }
}

/// One of these statuses.
pub fn status(statuses: impl IntoIterator<Item = u16>) -> Answer {
    let statuses = statuses.into_iter().collect();
    Answer { statuses, body: None, headers: vec![], or_end: false, within: None }
}

impl Answer {
    /// With this in its body.
    pub fn saying(self, body: &'static str) -> Answer {
        Answer { body: Some(body), ..self }
    }

    /// With this header.
    pub fn header(mut self, name: &'static str, value: Option<&'static str>) -> Answer {
        self.headers.push((name, value));
        self
    }

    /// Or the connection ends without an answer.
    pub fn or_end(self) -> Answer {
        Answer { or_end: true, ..self }
    }

    /// Within so long.
    pub fn within(self, time: Duration) -> Answer {
        Answer { within: Some(time), ..self }
    }
}

/// How a client's upgrade is answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Acceptance {
    /// As it wants; the request must be in order.
    Welcome,
    /// With another subprotocol, or none.
    Protocol(Option<&'static str>),
    /// With this answer instead: status line and headers, without the empty line, and a body.
    Refusal(&'static str, &'static str),
    /// Not at all.
    Silence,
    /// As it wants, if its request is such.
    Such(Requested),
    /// By this text, in which `{accept}` and `{protocol}` stand for what the client wants.
    Text(&'static str),
}

impl fmt::Display for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Acceptance::Welcome => f.write_str(", and is let in"),
            Acceptance::Protocol(None) => f.write_str(", and no subprotocol is agreed to"),
            Acceptance::Protocol(Some(protocol)) => write!(f, ", and {protocol:?} is agreed to"),
            Acceptance::Refusal(head, body) => write!(f, ", and is answered {head:?} {body:?}"),
            Acceptance::Silence => f.write_str(", and has no answer"),
            Acceptance::Such(requested) => write!(f, " with {}, and is let in", requested.words),
            Acceptance::Text(text) => write!(f, ", and is answered {text:?}"),
        }
    }
}

/// How the upgrade request of a client must be, beyond being in order.
#[derive(Clone)]
pub struct Requested {
    words: &'static str,
    test: fn(&Http, &[Http]) -> bool,
}

impl Requested {
    /// Whether this request is such, after those of the connections before.
    pub(in crate::conformance) fn is_met_by(&self, request: &Http, before: &[Http]) -> bool {
        (self.test)(request, before)
    }
}

impl fmt::Display for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)
    }
}

impl fmt::Debug for Requested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)
    }
}

/// The client connects, its upgrade request is in order, and it is let in.
pub fn accept() -> Step {
    Step::Accept(Acceptance::Welcome)
}

/// The same, and its request passes this test, which has the requests of the connections before.
pub(in crate::conformance) fn accept_such(
    words: &'static str,
    test: fn(&Http, &[Http]) -> bool,
) -> Step {
    Step::Accept(Acceptance::Such(Requested { words, test }))
}

/// The client connects, and is answered with this status line and headers, and this body.
pub fn turn_away(head: &'static str, body: &'static str) -> Step {
    Step::Accept(Acceptance::Refusal(head, body))
}

/// The client connects, and is answered with this text; see [`Acceptance::Text`].
pub fn answer_upgrade(text: &'static str) -> Step {
    Step::Accept(Acceptance::Text(text))
}

/// For so long, each connection of the client goes by these steps, and so many must come.
pub fn repeatedly(
    time: Duration,
    count: RangeInclusive<usize>,
    steps: impl IntoIterator<Item = Step>,
) -> Step {
    Step::Repeatedly(steps.into_iter().collect(), time, count)
}
