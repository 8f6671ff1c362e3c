//! What conforms: cases that any Satellite server or client can be held to.
//!
//! A [`Case`] is a rule and a script that shows whether a peer keeps it, made of the words in
//! [`script`]. [`server_cases`] play the client's part, [`client_cases`] the server's. They run
//! against anything that can be dialled ([`Server`]) or that comes when it is told to
//! ([`Client`]), and a [`Report`] tells which rules are kept. A [`Profile`] says what is expected
//! of a certain implementation, where that is not what a new one should do.
//!
//! Nothing a peer does ends a run or makes it hang: every step has a deadline, and every case.

mod cases;
mod client;
mod octets;
mod play;
mod profiles;
mod report;
mod run;
pub mod script;
mod server;
mod token;
mod wire;

use std::{fmt, ops::RangeInclusive};

use crate::wire::Version;

pub use cases::{client_cases, server_cases};
pub use client::{Client, Connections, Invitation, Launch, Launched};
pub use play::Exit;
pub use profiles::{Change, Difference, Profile};
pub use report::{Outcome, Report, Runs, Standing, Text, Totals, Verdict};
pub use server::Server;
pub use token::{SigningKey, TokenSpec, Tokens, token};
pub use wire::Line;

use script::Step;

/// A rule, and how it is shown to be kept.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name for ever, such as `SAT-AUTH-004`.
    pub id: &'static str,
    /// What must be, in one sentence, in the words of
    /// [RFC 2119](https://www.rfc-editor.org/rfc/rfc2119).
    pub rule: &'static str,
    /// How much it is asked for.
    pub level: Level,
    /// Where the rule comes from: a standard; a recorded conversation, by its name in
    /// `tests/vectors`; what the original's own tests assert, by letter and number (H for the
    /// handshake, S for starting, R for replication, SH for shapes, A for tokens, X for what its
    /// code does and no test asserts); or what was reported against it (G, D).
    pub source: &'static str,
    /// The versions of the protocol that it holds for.
    pub versions: RangeInclusive<Version>,
    /// What the peer must be set up with.
    pub needs: Vec<Need>,
    /// What breaks in practice where the rule is not kept.
    pub otherwise: &'static str,
    /// What a client is asked to do; nothing for a server.
    pub task: Task,
    /// What happens.
    pub script: Vec<Step>,
}

/// How much a rule is asked for, as RFC 2119 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Without it, peers do not get on.
    Must,
    /// There may be reasons not to.
    Should,
    /// Peers must be prepared for either.
    May,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::May => "MAY",
        })
    }
}

/// What a peer must be set up with for a case to apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It verifies signatures.
    SecureMode,
    /// It accepts unsigned tokens.
    InsecureMode,
    /// Its tokens are signed with a secret that the suite has.
    SharedSecret,
    /// Its tokens are signed with a private key, and the suite has the public one.
    PublicKey,
    /// It looks for the user in a namespace.
    Namespace,
    /// It looks for the user at the top level.
    NoNamespace,
    /// It wants a certain issuer.
    Issuer,
    /// It wants a certain audience.
    Audience,
    /// The run has time for what takes longer than some seconds.
    Time,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Need::SecureMode => "a server in secure mode",
            Need::InsecureMode => "a server in insecure mode",
            Need::SharedSecret => "the secret that the server verifies with",
            Need::PublicKey => "a server that verifies with a public key",
            Need::Namespace => "a server that looks for the user in a namespace",
            Need::NoNamespace => "a server that looks for the user at the top level",
            Need::Issuer => "a server that wants an issuer",
            Need::Audience => "a server that wants an audience",
            Need::Time => "time",
        })
    }
}

/// What a client under test is asked to do, by the variable `SATELLITE_TASK`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// To connect, start replication and stay, connecting again if it would.
    #[default]
    Start,
    /// The same, then to stop replication.
    Stop,
    /// The same as `Start`, then to subscribe to the table `items`.
    Subscribe,
    /// The same as `Subscribe`, and once the data is there to unsubscribe.
    Unsubscribe,
    /// The same as `Start`, then to write a row into `items`.
    Write,
}

impl Task {
    /// As the variable has it.
    pub fn name(self) -> &'static str {
        match self {
            Task::Start => "start",
            Task::Stop => "stop",
            Task::Subscribe => "subscribe",
            Task::Unsubscribe => "unsubscribe",
            Task::Write => "write",
        }
    }
}

/// A rule that must be kept.
pub fn must(id: &'static str, rule: &'static str) -> Case {
    case(id, rule, Level::Must)
}

/// A rule that should be kept.
pub fn should(id: &'static str, rule: &'static str) -> Case {
    case(id, rule, Level::Should)
}

/// What may be done, and must be borne.
pub fn may(id: &'static str, rule: &'static str) -> Case {
    case(id, rule, Level::May)
}

fn case(id: &'static str, rule: &'static str, level: Level) -> Case {
    Case {
        id,
        rule,
        level,
        source: "",
        versions: Version::V0_6..=Version::V0_12,
        needs: vec![],
        otherwise: "",
        task: Task::Start,
        script: vec![],
    }
}

impl Case {
    /// Where the rule comes from.
    pub fn from(self, source: &'static str) -> Case {
        Case { source, ..self }
    }

    /// What breaks without it.
    pub fn otherwise(self, otherwise: &'static str) -> Case {
        Case { otherwise, ..self }
    }

    /// What the peer must be set up with.
    pub fn needs(mut self, need: Need) -> Case {
        self.needs.push(need);
        self
    }

    /// It holds from this version on.
    pub fn since(self, version: Version) -> Case {
        Case { versions: version..=*self.versions.end(), ..self }
    }

    /// It holds up to this version.
    pub fn until(self, version: Version) -> Case {
        Case { versions: *self.versions.start()..=version, ..self }
    }

    /// What a client is asked to do.
    pub fn task(self, task: Task) -> Case {
        Case { task, ..self }
    }

    /// What happens.
    pub fn script(self, steps: impl IntoIterator<Item = Step>) -> Case {
        Case { script: steps.into_iter().collect(), ..self }
    }

    /// The group it belongs to: its id without the number.
    pub fn group(&self) -> &'static str {
        self.id.rsplit_once('-').map_or(self.id, |(group, _)| group)
    }
}
