//! Clients that are wrong.

use electric_satellite::{
    conformance::{Case, Outcome},
    wire::{
        Message, Version,
        proto::{SatAuthReq, SatRpcRequest, SatRpcResponse, sat_rpc_response::Result as Answer},
    },
};

use super::{
    super::client::run_through,
    Mutant, Tampering, answers, of_opcode, presenting,
    proxy::{Frame, Pass, Tamper, between},
};

/// Runs a case against a client that is tampered with.
pub(super) fn run(case: &Case, tamper: Tampering) -> Outcome {
    run_through(case, Version::V0_12, move |server| {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(between(server, far, tamper()));
        near
    })
}

/// Alters the request for the upgrade.
struct Upgrade(fn(String) -> String);

impl Tamper for Upgrade {
    fn request(&mut self, head: String) -> String {
        (self.0)(head)
    }
}

/// Alters frames of the client of one opcode.
struct Frames(u8, fn(Frame) -> Vec<Pass>);

impl Tamper for Frames {
    fn of_client(&mut self, frame: Frame) -> Vec<Pass> {
        of_opcode(frame, self.0, self.1)
    }
}

/// Alters the calls of the client.
struct Calls(fn(SatRpcRequest) -> Vec<SatRpcRequest>);

impl Tamper for Calls {
    fn of_client(&mut self, frame: Frame) -> Vec<Pass> {
        match frame.message() {
            Some(Message::Request(request)) => (self.0)(request)
                .into_iter()
                .map(|request| Pass::On(frame.with(&request.into())))
                .collect(),
            _ => vec![Pass::On(frame)],
        }
    }
}

/// Alters the client's answers.
struct Answers(fn(SatRpcResponse) -> Vec<SatRpcResponse>);

impl Tamper for Answers {
    fn of_client(&mut self, frame: Frame) -> Vec<Pass> {
        answers(frame, self.0)
    }
}

mutants! {
    "asks for another path" caught by ["SAT-C-AUTH-001"] =
        Upgrade(|head| head.replacen(" /ws ", " /socket ", 1));
    "offers no subprotocol" caught by ["SAT-C-AUTH-001"] = Upgrade(|head| {
        let lines = head.split("\r\n").filter(|line| !line.contains("electric."));
        lines.collect::<Vec<_>>().join("\r\n")
    });
    "does not mask its frames" caught by ["SAT-C-AUTH-001"] = Frames(2, |frame| {
        vec![Pass::On(Frame { masked: false, ..frame })]
    });
    "sends text" caught by ["SAT-C-AUTH-001"] = Frames(2, |frame| {
        vec![Pass::On(Frame { first: 0x81, ..frame })]
    });
    "presents no client id" caught by ["SAT-C-AUTH-001"] = Calls(|request| {
        vec![presenting(request, |auth| SatAuthReq { id: String::new(), ..auth })]
    });
    "presents no token" caught by ["SAT-C-AUTH-001"] = Calls(|request| {
        vec![presenting(request, |auth| SatAuthReq { token: String::new(), ..auth })]
    });
    "does not authenticate" caught by ["SAT-C-AUTH-001"] = Calls(|request| {
        let is = request.method == "authenticate";
        if is { vec![] } else { vec![request] }
    });
    "never starts" caught by ["SAT-C-START-001"] = Calls(|request| {
        let is = request.method == "startReplication";
        if is { vec![] } else { vec![request] }
    });
    "calls everything twice" caught by ["SAT-C-START-001"] = Calls(|request| {
        vec![request.clone(), request]
    });
    "does not answer pings" caught by ["SAT-C-START-001"] = Frames(10, |_| vec![]);
    "answers a call with another number" caught by ["SAT-C-START-011", "SAT-C-START-019"] =
        Answers(|response| {
            vec![SatRpcResponse { request_id: response.request_id.wrapping_add(1), ..response }]
        });
    "does not answer calls" caught by ["SAT-C-START-011", "SAT-C-START-014"] = Answers(|_| vec![]);
    "leaves the result of its answers out" caught by ["SAT-C-START-011"] =
        Answers(|response| vec![SatRpcResponse { result: None, ..response }]);
    "takes any method for its own" caught by ["SAT-C-START-016"] = Answers(|response| {
        match response.result {
            Some(Answer::Error(_)) => {
                let result = Some(Answer::Message(Default::default()));
                vec![SatRpcResponse { result, ..response }]
            }
            _ => vec![response],
        }
    });
    "is another client on every connection" caught by ["SAT-C-AUTH-003"] = Calls(|request| {
        vec![presenting(request, |auth| {
            SatAuthReq { id: uuid::Uuid::new_v4().to_string(), ..auth }
        })]
    });
    "presents another token than its own" caught by ["SAT-C-AUTH-002"] = Calls(|request| {
        vec![presenting(request, |auth| SatAuthReq { token: "a.b.c".into(), ..auth })]
    });
    "offers a version with a leading zero" caught by ["SAT-C-UPG-002"] =
        Upgrade(|head| head.replace("electric.0.12", "electric.0.012"));
    "uses the same key for every connection" caught by ["SAT-C-UPG-005"] = Upgrade(|head| {
        let key = |line: &str| match line.to_ascii_lowercase().starts_with("sec-websocket-key") {
            true => "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
            false => line.to_owned(),
        };
        head.split("\r\n").map(key).collect::<Vec<_>>().join("\r\n")
    });
    "answers pings with another payload" caught by ["SAT-C-FRM-004"] = Frames(10, |frame| {
        vec![Pass::On(Frame { payload: b"other".to_vec(), ..frame })]
    });
}
