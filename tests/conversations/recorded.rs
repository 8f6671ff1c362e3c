//! The recordings, as their README describes them, and in words.

use std::fs;

use bytes::Bytes;
use electric_satellite::{
    auth::{Algorithm, ClaimRules, JwtAuthenticator, Key},
    session::UnixTime,
    wire::{Message, Request, proto::SatInStartReplicationReq},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error};

use crate::{http, words};

/// One connection after its upgrade.
#[derive(Deserialize)]
pub(crate) struct Conversation {
    pub(crate) case: String,
    mode: String,
    namespace: Option<String>,
    iss: Option<String>,
    aud: Option<String>,
    now: i64,
    pub(crate) subprotocol: String,
    pub(crate) frames: Vec<Frame>,
    open: bool,
}

/// One WebSocket frame.
#[derive(Clone, Deserialize)]
pub(crate) struct Frame {
    pub(crate) from: Side,
    pub(crate) opcode: u8,
    #[serde(rename = "hex", deserialize_with = "bytes_of_hex")]
    pub(crate) payload: Bytes,
    #[serde(default = "yes")]
    pub(crate) fin: bool,
    #[serde(default = "yes")]
    pub(crate) masked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    Client,
    Server,
}

/// One connection of a replication session, from its first message on.
#[derive(Deserialize)]
pub(crate) struct Session {
    pub(crate) case: String,
    pub(crate) connection: u32,
    pub(crate) subprotocol: String,
    pub(crate) frames: Vec<Frame>,
}

/// One HTTP request and its answer.
#[derive(Deserialize)]
pub(crate) struct Exchange {
    pub(crate) case: String,
    request: Option<String>,
    #[serde(default, deserialize_with = "bytes_of_hex")]
    request_hex: Bytes,
    #[serde(flatten)]
    answer: http::Answer,
    closed: Option<bool>,
}

pub(crate) fn conversations(file: &str) -> Vec<Conversation> {
    lines(file)
}

/// The servers of the replication sessions.
pub(crate) const SERVERS: [&str; 2] = ["0.7.1", "0.12.1"];

pub(crate) fn sessions(server: &str) -> Vec<Session> {
    lines(&format!("replication/{server}"))
}

pub(crate) fn exchanges() -> Vec<Exchange> {
    lines("http")
}

impl Conversation {
    /// What the server said, without the call that it made unasked.
    pub(crate) fn in_words(&self) -> String {
        let said = self.frames.iter().filter(|frame| frame.from == Side::Server);
        let said = said.filter(|frame| !frame.is_unasked_start());
        words::conversation(said.map(|frame| (frame.opcode, frame.payload.clone())), self.open)
    }

    /// Whether the server called `startReplication` unasked.
    pub(crate) fn has_unasked_start(&self) -> bool {
        self.frames.iter().any(Frame::is_unasked_start)
    }

    /// Configured as the recorded server was.
    pub(crate) fn authenticator(&self) -> JwtAuthenticator {
        let namespace = self.namespace.clone();
        let rules = ClaimRules {
            namespace: namespace.clone(),
            issuers: self.iss.iter().cloned().collect(),
            audiences: self.aud.iter().cloned().collect(),
            ..Default::default()
        };
        let key = match self.mode.as_str() {
            "insecure" => return JwtAuthenticator::insecure(namespace),
            "hs256" => Key::from_secret(Algorithm::HS256, &read("keys/hs256.txt")),
            "es256" => Key::from_pem(Algorithm::ES256, &read("keys/es256.pub")),
            "rs256" => Key::from_pem(Algorithm::RS256, &read("keys/rs256.pub")),
            mode => panic!("{}: unknown mode {mode}", self.case),
        };
        JwtAuthenticator::secure(key.expect("a recorded key"), rules)
    }

    /// The time that the token was judged by.
    pub(crate) fn now(&self) -> UnixTime {
        UnixTime::from_secs(self.now)
    }
}

impl Frame {
    /// A whole frame of a client, masked as it must be.
    pub(crate) fn of_client(opcode: u8, payload: Bytes) -> Frame {
        Frame { from: Side::Client, opcode, payload, fin: true, masked: true }
    }

    /// The message in it; nothing if it closes.
    pub(crate) fn message(&self) -> Option<Message> {
        (self.opcode != 8).then(|| Message::decode(self.payload.clone()).expect("a message"))
    }

    /// Electric's own `startReplication`, which follows every welcome.
    fn is_unasked_start(&self) -> bool {
        let start = Request::from(SatInStartReplicationReq::default()).encode(0);
        self.from == Side::Server
            && self.opcode == 2
            && Message::decode(self.payload.clone()) == Ok(start)
    }
}

impl Exchange {
    pub(crate) fn request(&self) -> &[u8] {
        self.request.as_ref().map_or(&self.request_hex, |text| text.as_bytes())
    }

    /// What the server answered.
    pub(crate) fn in_words(&self) -> String {
        // After a 101 the recording ended, with the connection open.
        http::in_words(self.request(), &self.answer, self.closed == Some(true))
    }
}

/// The paths are relative to the package, where its tests are run.
fn read(file: &str) -> Vec<u8> {
    let path = format!("tests/vectors/{file}");
    fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn lines<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let text = String::from_utf8(read(&format!("{file}.jsonl"))).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a recorded case")).collect()
}

fn yes() -> bool {
    true
}

fn bytes_of_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let hex = String::deserialize(deserializer)?;
    let byte = |at| u8::from_str_radix(hex.get(at..at + 2).unwrap_or("odd"), 16);
    (0..hex.len()).step_by(2).map(byte).collect::<Result<_, _>>().map_err(D::Error::custom)
}
