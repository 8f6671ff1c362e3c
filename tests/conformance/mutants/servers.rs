//! Servers that are wrong.

use electric_satellite::{
    auth::Minter,
    conformance::{Case, Outcome},
    wire::{
        Message, Method, Reply, Request,
        proto::{
            SatAuthReq, SatAuthResp, SatErrorResp, SatInStartReplicationReq,
            SatInStartReplicationResp, SatRpcRequest, SatRpcResponse, sat_error_resp::ErrorCode,
            sat_rpc_response::Result as Answer,
        },
    },
};
use serde_json::json;

use super::{
    super::{server::Setting, simulated},
    Mutant, Tampering, answers, of_opcode, presenting,
    proxy::{Frame, Pass, Tamper, between},
};

/// Runs a case against a server that is tampered with.
pub(super) fn run(case: &Case, tamper: Tampering) -> Outcome {
    let setting = Setting::for_case(case);
    simulated(async {
        let target = setting.target_through(move |client| {
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(between(far, client, tamper()));
            near
        });
        target.run_case(case).await
    })
}

/// Alters the answers to calls.
struct Answers(fn(SatRpcResponse) -> Vec<SatRpcResponse>);

impl Tamper for Answers {
    fn of_server(&mut self, frame: Frame) -> Vec<Pass> {
        answers(frame, self.0)
    }
}

/// Alters frames of the server of one opcode.
struct Frames(u8, fn(Frame) -> Vec<Pass>);

impl Tamper for Frames {
    fn of_server(&mut self, frame: Frame) -> Vec<Pass> {
        of_opcode(frame, self.0, self.1)
    }
}

/// Alters the answer to the upgrade.
struct Upgrade(fn(String) -> String);

impl Tamper for Upgrade {
    fn answer(&mut self, head: String) -> String {
        (self.0)(head)
    }
}

/// Alters the calls of the client before the server sees them.
struct Calls(fn(SatRpcRequest, &Frame) -> Vec<Pass>);

impl Tamper for Calls {
    fn of_client(&mut self, frame: Frame) -> Vec<Pass> {
        match frame.message() {
            Some(Message::Request(request)) => (self.0)(request, &frame),
            _ => vec![Pass::On(frame)],
        }
    }
}

/// Does not pass on closes, nor the end.
struct NeverCloses;

impl Tamper for NeverCloses {
    fn of_server(&mut self, frame: Frame) -> Vec<Pass> {
        if frame.is(8) { vec![] } else { vec![Pass::On(frame)] }
    }

    fn ends_with_server(&self) -> bool {
        false
    }
}

/// Passes on closes, and keeps the connection.
struct NeverEnds;

impl Tamper for NeverEnds {
    fn ends_with_server(&self) -> bool {
        false
    }
}

/// Answers pings of the server itself, so that a dead client is not found.
struct AnswersForTheDead;

impl Tamper for AnswersForTheDead {
    fn of_server(&mut self, frame: Frame) -> Vec<Pass> {
        match frame.is(9) {
            true => vec![
                Pass::On(frame.clone()),
                Pass::Back(Frame { first: 0x8a, masked: true, ..frame }),
            ],
            false => vec![Pass::On(frame)],
        }
    }
}

/// Welcomes whoever authenticates again.
#[derive(Default)]
struct WelcomesAgain(bool);

impl Tamper for WelcomesAgain {
    fn of_client(&mut self, frame: Frame) -> Vec<Pass> {
        match authenticates(&frame) {
            Some(request_id) if self.0 => vec![back(&frame, request_id, welcome())],
            Some(_) => {
                self.0 = true;
                vec![Pass::On(frame)]
            }
            None => vec![Pass::On(frame)],
        }
    }
}

/// Swaps two answers that follow each other.
#[derive(Default)]
struct SwapsAnswers(Option<Frame>);

impl Tamper for SwapsAnswers {
    fn of_server(&mut self, frame: Frame) -> Vec<Pass> {
        match (frame.message(), self.0.take()) {
            (Some(Message::Response(response)), None) if response.method == "subscribe" => {
                self.0 = Some(frame);
                vec![]
            }
            (_, Some(before)) => vec![Pass::On(frame), Pass::On(before)],
            (_, None) => vec![Pass::On(frame)],
        }
    }
}

fn authenticates(frame: &Frame) -> Option<u32> {
    match frame.message()? {
        Message::Request(request) if request.method == "authenticate" => Some(request.request_id),
        _ => None,
    }
}

fn welcome() -> Reply {
    SatAuthResp { id: "mutant".into(), ..Default::default() }.into()
}

/// Holds back what it says until the client has said more.
#[derive(Default)]
struct Delays(Vec<Frame>);

impl Tamper for Delays {
    fn of_client(&mut self, frame: Frame) -> Vec<Pass> {
        let held = self.0.drain(..).map(Pass::Back);
        [Pass::On(frame)].into_iter().chain(held).collect()
    }

    fn of_server(&mut self, frame: Frame) -> Vec<Pass> {
        match frame.is(2) {
            true => {
                self.0.push(frame);
                vec![]
            }
            false => vec![Pass::On(frame)],
        }
    }
}

/// Alters frames of the client before the server sees them.
struct Heard(fn(Frame) -> Vec<Pass>);

impl Tamper for Heard {
    fn of_client(&mut self, frame: Frame) -> Vec<Pass> {
        (self.0)(frame)
    }
}

/// An answer to the client in the server's place.
fn back(frame: &Frame, request_id: u32, reply: Reply) -> Pass {
    Pass::Back(Frame { masked: false, ..frame.with(&reply.encode(request_id)) })
}

/// Passes on what the client presents, changed.
fn presents(
    request: SatRpcRequest,
    frame: &Frame,
    change: fn(SatAuthReq) -> SatAuthReq,
) -> Vec<Pass> {
    vec![Pass::On(frame.with(&presenting(request, change).into()))]
}

/// The answer to `startReplication` with another window.
fn with_window(response: SatRpcResponse, window: Option<u32>) -> SatRpcResponse {
    let reply = Reply::decode(Method::StartReplication, response.clone());
    let Ok(Reply::StartReplication(started)) = reply else { return response };
    if response.method != Method::StartReplication.as_str() || started.err.is_some() {
        return response;
    }
    let started = SatInStartReplicationResp { unacked_window_size: window, ..started };
    match Reply::from(started).encode(response.request_id) {
        Message::Response(response) => response,
        _ => response,
    }
}

/// A token that the server accepts in its setting, whatever was presented.
fn good_token() -> String {
    let now = electric_satellite::session::UnixTime::now().as_secs();
    let claims = json!({ "sub": "mutant", "iat": now, "exp": now + 300 });
    let minter = Setting::HS256.minter().unwrap_or_else(Minter::unsigned);
    minter.mint(&claims).expect("an object").expose().to_owned()
}

fn error_type(mut response: SatRpcResponse, from: ErrorCode, to: ErrorCode) -> SatRpcResponse {
    if let Some(Answer::Error(error)) = &mut response.result
        && error.error_type() == from
    {
        *error = SatErrorResp { error_type: to.into(), ..error.clone() };
    }
    response
}

fn close_code(frame: Frame, from: u16, to: u16) -> Vec<Pass> {
    let mut frame = frame;
    if frame.payload.starts_with(&from.to_be_bytes()) {
        frame.payload[..2].copy_from_slice(&to.to_be_bytes());
    }
    vec![Pass::On(frame)]
}

mutants! {
    "does not tell its id" caught by ["SAT-AUTH-001"] = Answers(|response| {
        let method: Result<Method, _> = response.method.parse();
        match method {
            Ok(Method::Authenticate) if matches!(response.result, Some(Answer::Message(_))) => {
                let result = Some(Answer::Message(Default::default()));
                vec![SatRpcResponse { result, ..response }]
            }
            _ => vec![response],
        }
    });
    "answers with another request id" caught by ["SAT-AUTH-001"] = Answers(|response| {
        vec![SatRpcResponse { request_id: response.request_id + 1, ..response }]
    });
    "answers with another method" caught by ["SAT-AUTH-001"] = Answers(|response| {
        vec![SatRpcResponse { method: response.method.to_uppercase(), ..response }]
    });
    "answers twice" caught by ["SAT-AUTH-001"] = Answers(|response| {
        vec![response.clone(), response]
    });
    "does not answer" caught by ["SAT-AUTH-001"] = Answers(|_| vec![]);
    "leaves the result out" caught by ["SAT-AUTH-001"] = Answers(|response| {
        vec![SatRpcResponse { result: None, ..response }]
    });
    "says AUTH_FAILED" caught by ["SAT-AUTH-002"] = Answers(|response| {
        vec![error_type(response, ErrorCode::AuthRequired, ErrorCode::AuthFailed)]
    });
    "closes with 1000 after an error" caught by ["SAT-AUTH-002"] =
        Frames(8, |frame| close_code(frame, 1007, 1000));
    "drops the connection without a close frame" caught by ["SAT-AUTH-002"] =
        Frames(8, |_| vec![]);
    "does not close" caught by ["SAT-AUTH-002"] = NeverCloses;
    "keeps the connection after the close frames" caught by ["SAT-AUTH-002"] = NeverEnds;
    "masks its frames" caught by ["SAT-AUTH-001"] = Frames(2, |frame| {
        vec![Pass::On(Frame { masked: true, ..frame })]
    });
    "sends text" caught by ["SAT-AUTH-001"] = Frames(2, |frame| {
        vec![Pass::On(Frame { first: 0x81, ..frame })]
    });
    "sets a reserved bit" caught by ["SAT-AUTH-001"] = Frames(2, |frame| {
        vec![Pass::On(Frame { first: 0xc2, ..frame })]
    });
    "sends every frame twice" caught by ["SAT-AUTH-001"] = Frames(2, |frame| {
        vec![Pass::On(frame.clone()), Pass::On(frame)]
    });
    "does not answer pings" caught by ["SAT-AUTH-001"] = Frames(10, |_| vec![]);
    "agrees to another subprotocol" caught by ["SAT-AUTH-001"] =
        Upgrade(|head| head.replace("electric.0.12", "electric.0.11"));
    "agrees to no subprotocol" caught by ["SAT-AUTH-001"] = Upgrade(|head| {
        let lines = head.split("\r\n").filter(|line| !line.contains("electric."));
        lines.collect::<Vec<_>>().join("\r\n")
    });
    "mistakes the key of the upgrade" caught by ["SAT-AUTH-001"] = Upgrade(|head| {
        head.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "s3pPLMBiTxaQ9kYGzzhZRbK+xOp=")
    });
    "agrees to an extension that was not offered" caught by ["SAT-AUTH-001"] = Upgrade(|head| {
        head.replacen("\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n", 1)
    });
    "accepts every token" caught by ["SAT-AUTH-002"] = Calls(|request, frame| {
        presents(request, frame, |auth| SatAuthReq { token: good_token(), ..auth })
    });
    "starts replication for anybody" caught by ["SAT-AUTH-003"] = Calls(|request, frame| {
        match request.method.as_str() {
            "startReplication" => {
                let reply = SatInStartReplicationResp::default().into();
                vec![back(frame, request.request_id, reply)]
            }
            _ => vec![Pass::On(frame.clone())],
        }
    });
    "answers late" caught by ["SAT-AUTH-001"] = Delays::default();
    "swaps answers" caught by ["SAT-RPC-031"] = SwapsAnswers::default();
    "takes a client without an id" caught by ["SAT-AUTH-027"] = Calls(|request, frame| {
        presents(request, frame, |auth| match auth.id.is_empty() {
            true => SatAuthReq { id: "nobody".into(), ..auth },
            false => auth,
        })
    });
    "takes the second connection of a client for another client" caught by
        ["SAT-DUP-001", "SAT-DUP-005"] = Calls(|request, frame| {
        presents(request, frame, |auth| {
            SatAuthReq { id: auth.id + &uuid::Uuid::new_v4().to_string(), ..auth }
        })
    });
    "forgets the case of client ids" caught by ["SAT-AUTH-018"] = Calls(|request, frame| {
        presents(request, frame, |auth| SatAuthReq { id: auth.id.to_lowercase(), ..auth })
    });
    "welcomes whoever authenticates again" caught by
        ["SAT-REAUTH-001", "SAT-REAUTH-002", "SAT-REAUTH-003", "SAT-REAUTH-012"] =
        WelcomesAgain::default();
    "forgets the case of methods" caught by ["SAT-RPC-002"] = Calls(|request, frame| {
        let method = match request.method.to_lowercase().as_str() {
            "authenticate" => "authenticate".into(),
            _ => request.method.clone(),
        };
        vec![Pass::On(frame.with(&SatRpcRequest { method, ..request }.into()))]
    });
    "does not repeat the number of a call that it refuses" caught by ["SAT-RPC-001"] =
        Answers(|response| match response.result {
            Some(Answer::Error(_)) => vec![SatRpcResponse { request_id: 0, ..response }],
            _ => vec![response],
        });
    "gives no reason for its closes" caught by ["SAT-RPC-013"] = Frames(8, |frame| {
        let payload = frame.payload.iter().take(2).copied().collect();
        vec![Pass::On(Frame { payload, ..frame })]
    });
    "announces no window" caught by ["SAT-START-005", "SAT-START-006"] = Answers(|response| {
        vec![with_window(response, None)]
    });
    "announces a window to clients that have none" caught by ["SAT-START-007", "SAT-START-008"] =
        Answers(|response| vec![with_window(response, Some(30))]);
    "calls startReplication on its own before it is asked" caught by ["SAT-START-004"] =
        Frames(2, |frame| match frame.message() {
            Some(Message::Response(response)) if response.method == "authenticate" => {
                let call = Request::from(SatInStartReplicationReq::default()).encode(0);
                vec![Pass::On(frame.clone()), Pass::On(frame.with(&call))]
            }
            _ => vec![Pass::On(frame)],
        });
    "adds an error to the answer to stopReplication" caught by ["SAT-STOP-001"] =
        Frames(2, |frame| match frame.message() {
            Some(Message::Response(response)) if response.method == "stopReplication" => {
                let stray = frame.with(&SatErrorResp::default().into());
                vec![Pass::On(frame), Pass::On(stray)]
            }
            _ => vec![Pass::On(frame)],
        });
    "closes after a subscription that it refuses" caught by ["SAT-SUB-001"] =
        Frames(2, |frame| match frame.message() {
            Some(Message::Response(response)) if response.method == "subscribe" => {
                let payload = 1007u16.to_be_bytes().to_vec();
                let close = Frame { first: 0x88, payload, masked: false };
                vec![Pass::On(frame), Pass::On(close)]
            }
            _ => vec![Pass::On(frame)],
        });
    "never pings" caught by ["SAT-LIVE-010"] = Frames(9, |_| vec![]);
    "takes the dead for alive" caught by ["SAT-LIVE-011", "SAT-DUP-020"] = AnswersForTheDead;
    "does not hear the answers to its pings" caught by ["SAT-LIVE-012"] = Heard(|frame| {
        if frame.is(10) { vec![] } else { vec![Pass::On(frame)] }
    });
    "takes text for a binary message" caught by ["SAT-FRM-040", "SAT-FRM-042"] = Heard(|frame| {
        let first = if frame.is(1) { frame.first + 1 } else { frame.first };
        vec![Pass::On(Frame { first, ..frame })]
    });
    "takes frames without a mask" caught by ["SAT-FRM-030"] =
        Heard(|frame| vec![Pass::On(Frame { masked: true, ..frame })]);
    "overlooks reserved bits" caught by ["SAT-FRM-020", "SAT-FRM-021", "SAT-FRM-022"] =
        Heard(|frame| vec![Pass::On(Frame { first: frame.first & 0x8f, ..frame })]);
    "takes every fragment for a message" caught by ["SAT-FRM-001"] = Heard(|frame| {
        let opcode = if frame.is(0) { 2 } else { frame.first & 0x0f };
        vec![Pass::On(Frame { first: 0x80 | opcode, ..frame })]
    });
}
