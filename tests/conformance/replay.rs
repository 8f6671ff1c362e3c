//! The recorded originals, judged under their own profiles: a server that says what Electric said
//! when a client did the same. What was never recorded it cannot answer, and says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use electric_satellite::{
    auth::{Algorithm, ClaimRules, JwtAuthenticator, Key},
    conformance::{Case, Outcome, Profile, server_cases},
    session::{Token, UnixTime},
    wire::{
        Message, Request,
        proto::{
            SatAuthReq, SatRpcRequest, SatRpcResponse,
            sat_rpc_response::Result::Message as Positive,
        },
    },
};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, split},
    time::timeout,
};

use super::{
    explained,
    mutants::proxy::{Frame, Reader, read_head},
    server::{SECRET, Setting},
    simulated,
};

/// The recordings of one server.
struct Recordings {
    original: &'static Original,
    exchanges: Vec<Exchange>,
    conversations: Vec<Conversation>,
}

/// An HTTP request that was not upgraded, and its answer.
struct Exchange {
    request: String,
    answer: String,
    /// Whether the server closed after it.
    closed: bool,
}

/// What was said on one connection, in the words that conversations are compared by.
struct Conversation {
    mode: String,
    presents_a_token: bool,
    lines: Vec<Said>,
    open: bool,
}

#[derive(Clone)]
enum Said {
    /// What a client said, in words, and the number of its call.
    Client(String, Option<u32>),
    Server(Frame),
}

/// A recorded server and the profile that describes it.
struct Original {
    folder: &'static str,
    profile: &'static str,
    subprotocol: &'static str,
    /// The claims that name the user, the first that is there.
    user: &'static [&'static str],
}

const ORIGINALS: [Original; 2] = [
    Original {
        folder: "",
        profile: "electric-0.12",
        subprotocol: "electric.0.12",
        user: &["sub", "user_id"],
    },
    Original {
        folder: "0.7.1/",
        profile: "electric-0.7",
        subprotocol: "electric.0.7",
        user: &["user_id"],
    },
];

/// How long a client may be silent before it asks for what was not recorded.
const LONGEST: Duration = Duration::from_secs(10);

/// How many cases were answered, and how many there were, by profile.
static ANSWERED: Mutex<BTreeMap<&str, (usize, usize)>> = Mutex::new(BTreeMap::new());

pub(super) fn trials() -> Vec<Trial> {
    let cases = server_cases();
    let mut trials = vec![];
    for original in &ORIGINALS {
        let recordings = Arc::new(Recordings::read(original));
        for setting in Setting::RECORDED {
            for case in &cases {
                trials.push(one(original, &recordings, setting, case.clone()));
            }
        }
    }
    trials
}

fn one(
    original: &'static Original,
    recordings: &Arc<Recordings>,
    setting: Setting,
    case: Case,
) -> Trial {
    let recordings = Arc::clone(recordings);
    let name = format!("replay::{}::{}::{}", original.profile, setting.name(), case.id);
    Trial::test(name, move || {
        let profile = Profile::named(original.profile).expect("a profile");
        let (outcome, known) = simulated(run(recordings, setting, profile, &case));
        let is_answered = known && !outcome.is_skipped();
        let mut counts = ANSWERED.lock().expect("no panic");
        let (answered, asked) = counts.entry(original.profile).or_default();
        *answered += usize::from(is_answered);
        *asked += 1;
        drop(counts);
        if !is_answered {
            return Ok(());
        }
        match outcome.failure() {
            None => Ok(()),
            Some(reason) => Err(Failed::from(explained(&outcome, reason))),
        }
    })
}

/// Prints how much the recordings answered; if all was asked, it must be enough to prove anything.
pub(super) fn print_counts() {
    for (profile, (answered, asked)) in ANSWERED.lock().expect("no panic").iter() {
        println!("recordings of {profile:<50} {answered} of {asked} cases answered");
        assert!(*asked < 2 * server_cases().len() || *answered > 150, "{answered} are too few");
    }
}

/// Runs a case against the recordings. Whether they answered all that was said, too.
async fn run(
    recordings: Arc<Recordings>,
    setting: Setting,
    profile: Profile,
    case: &Case,
) -> (Outcome, bool) {
    let known = Arc::new(AtomicBool::new(true));
    let tell = Arc::clone(&known);
    let ids = Arc::new(Mutex::new(BTreeSet::new()));
    let target = setting.suite(move || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (recordings, tell) = (Arc::clone(&recordings), Arc::clone(&tell));
        let ids = Arc::clone(&ids);
        tokio::spawn(async move {
            if answer(&recordings, setting, far, &ids).await.is_none() {
                tell.store(false, Ordering::Relaxed);
            }
        });
        near
    });
    let outcome = target.with_profile(profile).run_case(case).await;
    (outcome, known.load(Ordering::Relaxed))
}

/// Answers one connection from the recordings; nothing once it is asked what was not recorded.
async fn answer(
    recordings: &Recordings,
    setting: Setting,
    stream: DuplexStream,
    ids: &Mutex<BTreeSet<String>>,
) -> Option<()> {
    let (mut reading, mut writing) = split(stream);
    let subprotocol = recordings.original.subprotocol;
    loop {
        let mut reached = false;
        let head = async {
            let first = reading.read_u8().await.ok()?;
            reached = true;
            Some(char::from(first).to_string() + &read_head(&mut reading).await?)
        };
        let head = match timeout(LONGEST, head).await {
            Ok(Some(head)) => head,
            // What comes of half a request was not recorded, nor when a silent client is dropped.
            Ok(None) if !reached => return Some(()),
            _ => return None,
        };
        if is_upgrade(&head, subprotocol) {
            break;
        }
        let same = |exchange: &&Exchange| comparable(&exchange.request) == comparable(&head);
        let exchange = recordings.exchanges.iter().find(same)?;
        let _ = writing.write_all(exchange.answer.as_bytes()).await;
        if exchange.closed {
            let _ = writing.shutdown().await;
            rest(&mut reading).await;
            return Some(());
        }
    }
    let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    let upgraded = format!(
        "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: {subprotocol}\r\nupgrade: \
         websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    let _ = writing.write_all(upgraded.as_bytes()).await;
    let judge = setting.judge();
    let mut candidates: Vec<(&Conversation, usize)> = recordings
        .conversations
        .iter()
        // Without a token the mode makes no difference.
        .filter(|conversation| {
            conversation.mode == setting.recorded_as() || !conversation.presents_a_token
        })
        .map(|conversation| (conversation, 0))
        .collect();
    let mut reader = Reader::default();
    // Whether the server has called the client, which may then answer at any time.
    let mut called = false;
    loop {
        let frame = match timeout(LONGEST, reader.next(&mut reading)).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Some(()),
            // What the server does of its own accord after a while is not in the recordings.
            Err(_) => return None,
        };
        if let Some(id) = presented(&frame)
            && !ids.lock().expect("no panic").insert(id)
        {
            // What becomes of the second depends on the first.
            return None;
        }
        let (words, number) = in_words(&frame, &judge, UnixTime::now(), recordings.original.user);
        let next = |(conversation, at): &(&Conversation, usize)| match conversation.lines.get(*at) {
            Some(Said::Client(recorded, was)) if *recorded == words => Some(*was),
            _ => None,
        };
        let found: Vec<_> =
            candidates.iter().filter(|found| next(found).is_some()).copied().collect();
        if found.is_empty() {
            match incidental(&frame, called) {
                Some(answer) => {
                    for frame in answer {
                        let _ = writing.write_all(&frame.bytes()).await;
                    }
                    if frame.is(8) {
                        let _ = writing.shutdown().await;
                        rest(&mut reading).await;
                        return Some(());
                    }
                    continue;
                }
                None => return None,
            }
        }
        let was = next(&found[0]).flatten();
        let mut ends = false;
        let (conversation, at) = found[0];
        for said in &conversation.lines[at + 1..] {
            let Said::Server(frame) = said else { break };
            let frame = renumbered(frame, was, number);
            let _ = writing.write_all(&frame.bytes()).await;
            ends |= frame.is(8);
            called |= matches!(frame.message(), Some(Message::Request(_)));
        }
        candidates = found
            .into_iter()
            .map(|(conversation, at)| {
                let said = |line: &Said| matches!(line, Said::Server(_));
                let answered = conversation.lines[at + 1..].iter().take_while(|line| said(line));
                (conversation, at + 1 + answered.count())
            })
            .collect();
        if ends || (!conversation.open && candidates[0].1 == conversation.lines.len()) {
            let _ = writing.shutdown().await;
            rest(&mut reading).await;
            return Some(());
        }
    }
}

/// The client id of a call of `authenticate`.
fn presented(frame: &Frame) -> Option<String> {
    let Message::Request(envelope) = frame.message()? else { return None };
    match Request::decode(envelope).ok()? {
        Request::Authenticate(auth) => Some(auth.id),
        _ => None,
    }
}

/// Reads to the end.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) {
    let mut nothing = vec![0; 4096];
    while stream.read(&mut nothing).await.is_ok_and(|length| length > 0) {}
}

/// What Electric says to what may come at any time, as other recordings show: pings are answered,
/// answers to its own `startReplication` are taken, closes are answered with 1000.
fn incidental(frame: &Frame, called: bool) -> Option<Vec<Frame>> {
    let answer = |first, payload| vec![Frame { first, payload, masked: false }];
    if frame.first == 0x89 && frame.masked && frame.payload.len() < 126 {
        return Some(answer(0x8a, frame.payload.clone()));
    }
    if frame.first == 0x88 && frame.payload == 1000u16.to_be_bytes() {
        return Some(answer(0x88, 1000u16.to_be_bytes().to_vec()));
    }
    match frame.message()? {
        Message::Response(SatRpcResponse { method, request_id: 0, result: Some(Positive(_)) })
            if called && method == "startReplication" =>
        {
            Some(vec![])
        }
        _ => None,
    }
}

/// Whether this is a plain good request for an upgrade to what was recorded.
fn is_upgrade(head: &str, subprotocol: &str) -> bool {
    let plain = ["host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"];
    let plain = plain.into_iter().chain(["sec-websocket-protocol"]);
    let mut lines = head.lines().filter(|line| !line.is_empty());
    let is_for_ws = lines.next() == Some("GET /ws HTTP/1.1");
    let names: Vec<String> =
        lines.map(|line| line.split(':').next().unwrap_or_default().to_ascii_lowercase()).collect();
    let offer = format!("Sec-WebSocket-Protocol: {subprotocol}\r\n");
    is_for_ws && names.iter().map(String::as_str).eq(plain) && head.contains(&offer)
}

/// A request without what differs from run to run.
fn comparable(request: &str) -> Vec<String> {
    let mut lines: Vec<String> = request
        .lines()
        .map(str::to_owned)
        .map(|line| match line.split_once(':') {
            Some((name, _)) if name.eq_ignore_ascii_case("host") => "host".into(),
            Some((name, value)) if name.eq_ignore_ascii_case("sec-websocket-key") => {
                format!("key {}", value.trim().len())
            }
            // The original looks at white space behind a value.
            Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
            None => line,
        })
        .collect();
    // The order of headers means nothing, but that of lines with one name does.
    if let Some((_, headers)) = lines.split_first_mut() {
        headers.sort_by_key(|line| line.split(':').next().map(str::to_owned));
    }
    lines
}

/// The answer with the number of the call that is made instead of the recorded one.
fn renumbered(frame: &Frame, was: Option<u32>, number: Option<u32>) -> Frame {
    match (frame.message(), was, number) {
        (Some(Message::Response(response)), Some(was), Some(number))
            if response.request_id == was =>
        {
            frame.with(&SatRpcResponse { request_id: number, ..response }.into())
        }
        _ => frame.clone(),
    }
}

/// What a client says, in words that are the same where Electric does not tell the difference, and
/// the number of its call.
fn in_words(
    frame: &Frame,
    judge: &JwtAuthenticator,
    now: UnixTime,
    user: &[&str],
) -> (String, Option<u32>) {
    let shape = format!("{:#04x} {}", frame.first, if frame.masked { "" } else { "unmasked " });
    let Some(Message::Request(envelope)) = frame.message() else {
        let hex: String = frame.payload.iter().map(|byte| format!("{byte:02x}")).collect();
        return (shape + &hex, None);
    };
    let number = envelope.request_id;
    let words = match Request::decode(envelope.clone()) {
        Ok(Request::Authenticate(auth)) => authenticate_in_words(&auth, judge, now, user),
        _ => {
            format!("{:?}", SatRpcRequest { request_id: 0, ..envelope.clone() }) + &body(&envelope)
        }
    };
    (shape + &words, Some(number))
}

fn body(envelope: &SatRpcRequest) -> String {
    envelope.message.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn authenticate_in_words(
    auth: &SatAuthReq,
    judge: &JwtAuthenticator,
    now: UnixTime,
    user: &[&str],
) -> String {
    let id = match auth.id.as_str() {
        "" => "no id",
        id if id.trim().is_empty() => "a blank id",
        id if id.contains('\0') => "an id with NUL",
        id if !id.is_ascii() => "an id that is not ASCII",
        _ => "an id",
    };
    format!("authenticate with {id} and {}", token_in_words(&auth.token, judge, now, user))
}

/// A token by what its rules look at.
fn token_in_words(token: &str, judge: &JwtAuthenticator, now: UnixTime, user: &[&str]) -> String {
    let segments: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = segments[..] else {
        return format!("{} segments {token:?}", segments.len());
    };
    let json = |text: &str| -> Option<Value> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        // Of a name that is there twice, one would be lost.
        let twice = |name: &String| text.matches(&format!("{name:?}")).count() > 1;
        let lossy = value.as_object().is_some_and(|members| members.keys().any(twice));
        (!lossy).then_some(value)
    };
    let (Some(Value::Object(header)), Some(Value::Object(claims))) = (json(header), json(payload))
    else {
        return format!("{token:?}");
    };
    let header: BTreeMap<&String, &Value> =
        header.iter().filter(|(name, _)| *name != "typ" && *name != "kid").collect();
    let user = user.iter().find_map(|name| claims.get(*name));
    let user = match user {
        Some(Value::String(user)) if !user.trim().is_empty() => "somebody".into(),
        user => format!("{user:?}"),
    };
    let claims: BTreeMap<&str, String> = claims
        .iter()
        .filter(|(name, _)| !["jti", "sub", "user_id"].contains(&name.as_str()))
        .map(|(name, value)| claim_in_words(name, value, now))
        .collect();
    let signature = match signature {
        "" => "unsigned",
        _ if judge.is_insecure() => "signed",
        _ if is_signed(token, judge) => "well signed",
        _ => "badly signed",
    };
    format!("{signature} {header:?} {user} {claims:?}")
}

/// Whether the signature is good, whatever the claims are.
fn is_signed(token: &str, judge: &JwtAuthenticator) -> bool {
    let token = Token::new(token).expect("a token");
    let findings = judge.explain(&token, UnixTime::now());
    findings.iter().any(|finding| finding.subject == "signature" && finding.good == Some(true))
}

fn claim_in_words<'a>(name: &'a str, value: &Value, now: UnixTime) -> (&'a str, String) {
    match (name, value) {
        ("iat" | "nbf", Value::Number(time)) if time.is_i64() => {
            let offset = time.as_i64().unwrap_or(0) - now.as_secs();
            (name, if offset < -1 { "past".into() } else { offset.max(0).to_string() })
        }
        ("exp", Value::Number(time)) if time.is_i64() => {
            let offset = time.as_i64().unwrap_or(0) - now.as_secs();
            let words = match offset {
                10.. => "future".into(),
                ..-10 => "past".into(),
                offset => offset.to_string(),
            };
            (name, words)
        }
        (name, value) => (name, value.to_string()),
    }
}

impl Setting {
    /// The settings that the originals were recorded in.
    const RECORDED: [Setting; 2] = [Setting::INSECURE, Setting::HS256];

    /// The mode in the recordings.
    fn recorded_as(&self) -> &'static str {
        if self.name() == Setting::HS256.name() { "hs256" } else { "insecure" }
    }

    /// Judges signatures of the suite's tokens.
    fn judge(&self) -> JwtAuthenticator {
        judge(self.recorded_as(), SECRET.as_bytes())
    }
}

fn judge(mode: &str, secret: &[u8]) -> JwtAuthenticator {
    match mode {
        "hs256" => {
            let key = Key::from_secret(Algorithm::HS256, secret).expect("a long secret");
            JwtAuthenticator::secure(key, ClaimRules::default())
        }
        _ => JwtAuthenticator::insecure(None),
    }
}

impl Recordings {
    fn read(original: &'static Original) -> Recordings {
        let folder = original.folder;
        let secret = fs::read("tests/vectors/keys/hs256.txt").expect("the recorded secret");
        let conversations =
            ["auth", "preauth", "authed"].into_iter().flat_map(|file| lines(folder, file));
        let plain =
            |line: &Value| ["namespace", "iss", "aud"].iter().all(|name| line.get(name).is_none());
        Recordings {
            original,
            exchanges: lines(folder, "http").iter().filter_map(exchange).collect(),
            conversations: conversations
                .filter(plain)
                .map(|line| conversation(&line, &secret, original))
                .collect(),
        }
    }
}

fn lines(folder: &str, file: &str) -> Vec<Value> {
    let path = format!("tests/vectors/{folder}{file}.jsonl");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines().map(|line| serde_json::from_str(line).expect("a recording")).collect()
}

fn exchange(line: &Value) -> Option<Exchange> {
    let (request, status) = (line["request"].as_str()?, line["status"].as_u64()?);
    if status == 101 {
        return None;
    }
    let body = line["body"].as_str().unwrap_or_default();
    let mut answer = format!("HTTP/1.1 {status} Recorded\r\n");
    for (name, value) in line["headers"].as_object()? {
        if !name.eq_ignore_ascii_case("content-length") {
            answer += &format!("{name}: {}\r\n", value.as_str()?);
        }
    }
    answer += &format!("content-length: {}\r\n\r\n{body}", body.len());
    let closed = line["closed"] == true;
    Some(Exchange { request: request.to_owned(), answer, closed })
}

fn conversation(line: &Value, secret: &[u8], original: &Original) -> Conversation {
    let mode = line["mode"].as_str().expect("a mode").to_owned();
    let judge = judge(&mode, secret);
    let now = UnixTime::from_secs(line["now"].as_i64().expect("a time"));
    let said = |recorded: &Value| {
        let opcode = recorded["opcode"].as_u64().expect("an opcode") as u8;
        let fin = recorded["fin"].as_bool().unwrap_or(true);
        let is_client = recorded["from"] == "client";
        let frame = Frame {
            first: if fin { 0x80 | opcode } else { opcode },
            payload: bytes(recorded["hex"].as_str().expect("bytes")),
            masked: is_client && recorded["masked"].as_bool().unwrap_or(true),
        };
        match is_client {
            true => {
                let (words, number) = in_words(&frame, &judge, now, original.user);
                Said::Client(words, number)
            }
            false => Said::Server(frame),
        }
    };
    let lines: Vec<Said> = line["frames"].as_array().expect("frames").iter().map(said).collect();
    let presents =
        |said: &Said| matches!(said, Said::Client(words, _) if words.contains("authenticate with"));
    Conversation {
        mode,
        presents_a_token: lines.iter().any(presents),
        lines,
        open: line["open"].as_bool().expect("a bool"),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(byte).collect()
}
