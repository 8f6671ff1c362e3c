//! Replays the recorded replication sessions at a whole client: a `Client` connects to a server
//! that says what the original said, as far as the recorded client had come. It reads every
//! message, stores and acknowledges it, makes the calls of the recorded client, and comes back when
//! that one did.
//!
//! `cargo test --test conversations a_client_reads -- --nocapture` lists the sessions: what the
//! server's last words were, what the client does about them, and from where it goes on.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use electric_satellite::{
    client::{Advice, Client, Connectivity, Failure, Resume},
    session::{Cause, Token},
    transport::Limits,
    wire::{
        Message, Method, Reply, Request,
        proto::{SatInStartReplicationReq, SatOpLog, SatTransOp, sat_trans_op::Op},
    },
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

use crate::{
    lockstep::Lockstep,
    recorded::{self, Frame, Session, Side},
    recorded_server::RecordedServer,
    replication::Refused,
};

/// What a client does about the last words of its server.
const ADVICE: &[(&str, Advice)] = &[
    ("nothing", Advice::Retry),
    ("close 1000", Advice::Retry),
    ("INTERNAL, close 1011", Advice::Retry),
    ("INVALID_REQUEST, close 1007", Advice::GiveUp),
    ("not started: BEHIND_WINDOW", Advice::ResetState),
    ("not started: INVALID_POSITION", Advice::ResetState),
    ("not started: MALFORMED_LSN", Advice::ResetState),
    ("not started: SUBSCRIPTION_NOT_FOUND", Advice::ResetState),
    ("not started: UNKNOWN_SCHEMA_VSN", Advice::GiveUp),
];

/// Cases in which a recorded client came back with something else than ours would.
const CAME_BACK_OTHERWISE: &[(&str, &str)] = &[
    ("c0113_s0121_e_behind_window", BEHIND),
    ("c0113_s0121_e_behind_window_in_process", BEHIND),
    ("c0121_s0121_e_behind_window", BEHIND),
    ("c0121_s0121_e_behind_window_in_process", BEHIND),
    ("c0121_s0121_x_subscribe_race_natural", "it failed at the data of its subscription"),
    ("c064_s071_e_behind_window", BEHIND),
    ("c071_s071_e_behind_window", BEHIND),
    ("c071_s071_e_behind_window_in_process", BEHIND),
    ("raw_s0121_e_start_refusals", "made to be refused"),
    ("raw_s0121_f_additional_data_and_reconnect", "made to ask for what it has"),
    ("raw_s0121_f_gone_then_reconnect_with_subscription", "made to keep what it had given up"),
    ("raw_s0121_z_column_subset_poison", "made to begin anew"),
    ("raw_s071_e_start_refusals", "made to be refused"),
    ("raw_s071_z_column_subset_poison", "made to begin anew"),
];

const BEHIND: &str = "its position was set to 1";

/// Cases that ours cannot be in.
const LEFT_OUT: &[(&str, &str)] = &[
    ("raw_s0121_j_unauthenticated_idle", "made to present no token"),
    ("raw_s071_j_unauthenticated_idle", "made to present no token"),
];

#[tokio::test(start_paused = true)]
async fn a_client_reads_every_frame_of_the_recorded_servers_and_acts_as_the_table_says() {
    let mut wrong = vec![];
    let (mut left_out, mut otherwise, mut words) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for server in recorded::SERVERS {
        let mut lives: BTreeMap<_, Vec<Session>> = BTreeMap::new();
        for session in recorded::sessions(server) {
            match session.client_id() {
                None => _ = left_out.insert(session.case),
                Some(id) => lives.entry((session.case.clone(), id)).or_default().push(session),
            }
        }
        for sessions in lives.into_values() {
            let mut life = Life::begin(&sessions[0]);
            for session in &sessions {
                let Session { case, connection, .. } = session;
                let name = format!("{case} with {server}, connection {connection}");
                words.extend(session.last_words());
                match super::guarded(&name, life.go_on(session)).await {
                    Ok(said) => println!("{name}: {said}"),
                    Err(error) => {
                        wrong.push(format!("{name}: {error}"));
                        break;
                    }
                }
            }
            otherwise.extend(life.otherwise);
        }
    }
    for (case, why) in LEFT_OUT {
        println!("{case}: left out: {why}");
    }
    for (case, why) in CAME_BACK_OTHERWISE {
        println!("{case}: came back otherwise: {why}");
    }
    super::report(wrong);
    fn listed<T>(table: &[(&str, T)]) -> BTreeSet<String> {
        table.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
    assert_eq!(left_out, listed(LEFT_OUT));
    assert_eq!(otherwise, listed(CAME_BACK_OTHERWISE));
    assert_eq!(words, listed(ADVICE));
}

impl Session {
    /// The id that the client presented.
    fn client_id(&self) -> Option<String> {
        self.frames.iter().find_map(|frame| match frame.call()? {
            Request::Authenticate(request) => Some(request.id),
            _ => None,
        })
    }

    /// The first stream that the client asked for.
    fn start(&self) -> Option<SatInStartReplicationReq> {
        self.frames.iter().find_map(|frame| match frame.call()? {
            Request::StartReplication(request) if frame.from == Side::Client => Some(request),
            _ => None,
        })
    }

    /// What the server said last, unless the client closed before.
    fn last_words(&self) -> Option<String> {
        let mut last = String::new();
        for frame in &self.frames {
            match (frame.from, frame.message()) {
                (Side::Client, None) => return None,
                (Side::Client, Some(_)) => {}
                (Side::Server, Some(message)) => match last_word(message) {
                    // The session ends there.
                    Some(not_started) if not_started.starts_with("not started") => {
                        return Some(not_started);
                    }
                    word => last = word.unwrap_or_default(),
                },
                (Side::Server, None) => {
                    let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
                    return Some(format!("{last}close {code}"));
                }
            }
        }
        Some("nothing".to_owned())
    }
}

fn last_word(message: Message) -> Option<String> {
    match message {
        Message::Error(error) => Some(format!("{}, ", error.error_type().as_str_name())),
        Message::Response(response) if response.method == Method::StartReplication.as_str() => {
            match Reply::decode(Method::StartReplication, response) {
                Ok(Reply::StartReplication(reply)) => {
                    reply.err.map(|err| format!("not started: {}", err.code().as_str_name()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

impl Frame {
    fn call(&self) -> Option<Request> {
        match self.message()? {
            Message::Request(envelope) => Request::decode(envelope).ok(),
            _ => None,
        }
    }
}

/// A client, over all its connections.
struct Life {
    client: Client,
    dialed: mpsc::UnboundedReceiver<DuplexStream>,
    resume: Resume,
    /// Where the last of what the server has sent came.
    position: Bytes,
    /// The case, if it came back otherwise.
    otherwise: Option<String>,
}

impl Life {
    fn begin(session: &Session) -> Life {
        let (dial, dialed) = mpsc::unbounded_channel();
        let client = Client::builder("http://localhost", Token::new("token").expect("a token"))
            .expect("a URL")
            .versions([session.subprotocol.parse().expect("a version")])
            .limits(Limits { ping_interval: None, ..Limits::client() })
            .random_seed(1)
            .dialer(move |_, _| {
                let (near, far) = duplex(1 << 20);
                dial.send(far).expect("the test goes on");
                async { Ok(near) }
            })
            .build();
        // Some applications bring migrations with them.
        let schema_version = session.start().and_then(|start| start.schema_version);
        let mut resume = Resume::default();
        resume.schema_version = schema_version;
        Life { client, dialed, resume, position: Bytes::new(), otherwise: None }
    }

    /// The next connection, to its end; what became of it.
    async fn go_on(&mut self, session: &Session) -> Result<String, String> {
        // It has been told to leave, or has given up.
        self.client.connect();
        let stream = self.dialed.recv().await.expect("the client lives");
        let server = RecordedServer::accept(stream, &session.subprotocol).await;
        let resume = self.resume_for(session);
        let mut ends = Lockstep::new(&self.client, server, resume);
        for frame in &session.frames {
            ends.follow(frame).await?;
        }
        let refused = Refused::of(&session.case).map_or(&[][..], |refused| refused.errors);
        if ends.refused != refused {
            return Err(format!("refuses to send {:?}", ends.refused));
        }
        let (end, resume) = ends.end().await?;
        self.resume = resume;
        self.position = position_after(session).unwrap_or_else(|| self.position.clone());
        if self.resume.position != self.position {
            return Err(format!("at {:?} instead of {:?}", self.resume.position, self.position));
        }
        match session.last_words() {
            None if matches!(end.cause, Cause::Local) => Ok(format!("left at {:?}", self.position)),
            None => Err(format!("{} instead of leaving", end.cause)),
            Some(words) => {
                let at = self.position.clone();
                let advice = self.acts(&words, Failure::Ended(end)).await?;
                Ok(format!("{words} at {at:?}: {advice:?}"))
            }
        }
    }

    /// What it comes back with, which is checked on the wire; something else in the cases listed.
    fn resume_for(&mut self, session: &Session) -> Resume {
        let mut resume = self.resume.clone();
        let is_listed = CAME_BACK_OTHERWISE.iter().any(|(case, _)| *case == session.case);
        if let Some(start) = session.start().filter(|_| is_listed) {
            resume.position = start.lsn;
            resume.subscriptions = start.subscription_ids;
            resume.observed_transaction_data = start.observed_transaction_data;
            resume.observed_gone_batch = start.observed_gone_batch;
            if resume.position.is_empty() {
                resume.schema_version = start.schema_version;
            }
            if resume != self.resume {
                self.otherwise = Some(session.case.clone());
                self.position.clone_from(&resume.position);
            }
        }
        resume
    }

    /// Does what the table says, and nothing else.
    async fn acts(&mut self, words: &str, failure: Failure) -> Result<Advice, String> {
        let expected = ADVICE.iter().find(|(known, _)| *known == words).map(|(_, advice)| *advice);
        let advice = failure.advice();
        if expected != Some(advice) {
            return Err(format!("{words}: {advice:?} instead of {expected:?}"));
        }
        let mut connectivity = self.client.connectivity();
        let lost = |now: &Connectivity| matches!(now, Connectivity::Disconnected { .. });
        let now = connectivity.wait_for(lost).await.expect("the client lives").clone();
        let Connectivity::Disconnected { reason: Some(reason), next_attempt } = now else {
            return Err(format!("{now:?}"));
        };
        if reason.advice() != advice || next_attempt.is_some() != (advice != Advice::GiveUp) {
            return Err(format!("{reason}: next attempt {next_attempt:?}"));
        }
        if advice == Advice::ResetState {
            self.resume.reset();
            self.position.clear();
        }
        Ok(advice)
    }
}

/// Where the last of what the server sent came, if it sent anything. Migrations alone are nowhere.
fn position_after(session: &Session) -> Option<Bytes> {
    let is_only_migrations = session.start().is_none_or(|start| start.lsn.is_empty());
    let (mut position, mut data) = (None, None);
    let said = session.frames.iter().filter(|frame| frame.from == Side::Server);
    for message in said.filter_map(Frame::message) {
        match message {
            Message::OpLog(SatOpLog { ops }) => {
                for op in ops.into_iter().filter_map(|SatTransOp { op }| op) {
                    match op {
                        Op::Begin(begin)
                            if begin.is_migration && is_only_migrations && position.is_none() => {}
                        Op::Begin(begin) => data = Some(begin.lsn),
                        Op::Commit(_) => position = data.take().or(position),
                        _ => {}
                    }
                }
            }
            Message::SubsDataBegin(begin) => data = Some(begin.lsn),
            Message::UnsubsDataBegin(begin) => data = Some(begin.lsn),
            Message::SubsDataEnd(_) | Message::UnsubsDataEnd(_) => position = data.take(),
            _ => {}
        }
    }
    position
}
