//! How connections end.

use std::{fmt, time::Duration};

use super::*;

/// How a connection must end.
#[derive(Clone, Debug)]
pub struct Ending {
    pub(in crate::conformance) kind: EndKind,
    pub(in crate::conformance) within: Option<Duration>,
}

/// The ways to end.
#[derive(Clone, Debug)]
pub(in crate::conformance) enum EndKind {
    /// It stays open, which a ping proves.
    Open,
    /// By a close frame with one of these codes, and this reason if one is given, and then the end
    /// of the stream. None of them stands for a frame without a code.
    Closed(Vec<Option<u16>>, Option<&'static str>),
    /// By a close frame of any code, or by the end of the stream.
    Gone,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            EndKind::Open => f.write_str("stay open"),
            EndKind::Gone => f.write_str("be closed"),
            EndKind::Closed(codes, reason) => {
                let codes: Vec<String> = codes
                    .iter()
                    .map(|code| code.map_or("no code".into(), |code| code.to_string()))
                    .collect();
                write!(f, "be closed with {}", codes.join(" or "))?;
                reason.map_or(Ok(()), |reason| write!(f, " and the reason {reason:?}"))
            }
        }?;
        self.within.map_or(Ok(()), |within| write!(f, " within {within:?}"))
    }
}

impl Ending {
    /// And with this reason.
    pub fn saying(mut self, reason: &'static str) -> Ending {
        if let EndKind::Closed(_, expected) = &mut self.kind {
            *expected = Some(reason);
        }
        self
    }

    /// Or by a close frame without a code.
    pub fn or_without_code(mut self) -> Ending {
        if let EndKind::Closed(codes, _) = &mut self.kind {
            codes.push(None);
        }
        self
    }

    /// And within so long.
    pub fn within(self, time: Duration) -> Ending {
        Ending { within: Some(time), ..self }
    }
}

/// The connection must end so, or stay.
pub fn ends(ending: Ending) -> Step {
    Step::Ends(ending)
}

/// It stays open.
pub fn open_still() -> Ending {
    Ending { kind: EndKind::Open, within: None }
}

/// It is closed with this code.
pub fn closed(code: u16) -> Ending {
    closed_with([code])
}

/// It is closed with one of these codes.
pub fn closed_with(codes: impl IntoIterator<Item = u16>) -> Ending {
    let codes = codes.into_iter().map(Some).collect();
    Ending { kind: EndKind::Closed(codes, None), within: None }
}

/// It is closed with one of these codes, or without a code.
pub fn closed_with_or_without(codes: impl IntoIterator<Item = u16>) -> Ending {
    let codes = codes.into_iter().map(Some).chain([None]).collect();
    Ending { kind: EndKind::Closed(codes, None), within: None }
}

/// It is closed somehow: with any code, or none, or by the end of the stream.
pub fn gone() -> Ending {
    Ending { kind: EndKind::Gone, within: None }
}
