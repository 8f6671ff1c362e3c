//! Replays a conversation through a session, without a socket.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes};
use electric_satellite::{
    session::{Close, Fault, Frame, Input, Output, Refusal, ServerSession, Session},
    wire::Version,
};

use crate::{
    recorded::{self, Conversation, Side},
    words,
};

/// Why a session does not decide a conversation alone. All of these are replayed live.
pub(crate) type WhyNot = &'static str;

const PING: WhyNot = "pings and pongs stay below the session";
const CLOSE: WhyNot = "a client's close is echoed below the session";
const CALL: WhyNot = "after authentication, the handler answers calls";

/// How many conversations are left out, and why.
pub(crate) fn left_out() -> BTreeMap<WhyNot, usize> {
    BTreeMap::from([(PING, 3), (CLOSE, 3), (CALL, 18)])
}

/// What the session says to the client's frames, in words.
pub(crate) fn replay(conversation: &Conversation) -> Result<String, WhyNot> {
    let version: Version = conversation.subprotocol.parse().expect("a version");
    let (now, patience) = (Instant::now(), Duration::from_secs(3600));
    let mut session = ServerSession::new(now, patience, version, "a server");
    let mut said = vec![];
    let mut is_open = true;
    for input in inputs(conversation)? {
        if is_open {
            session.handle_input(now, input).expect("the session takes input");
            is_open = drain(&mut session, conversation, &mut said)?;
        }
    }
    Ok(words::conversation(said, is_open))
}

/// What the client's frames are to a session, once the WebSocket layer has had them.
fn inputs(conversation: &Conversation) -> Result<Vec<Input>, WhyNot> {
    let mut inputs = vec![];
    let mut message = vec![];
    for frame in conversation.frames.iter().filter(|frame| frame.from == Side::Client) {
        let recorded::Frame { opcode, payload, fin, masked, .. } = frame;
        inputs.push(match opcode {
            _ if !masked => Input::Fault(Fault::Protocol),
            0 | 2 => {
                message.extend(payload);
                if !fin {
                    continue;
                }
                Input::Binary(Bytes::from(std::mem::take(&mut message)).into())
            }
            1 if std::str::from_utf8(payload).is_ok() => Input::Fault(Fault::Text),
            1 => Input::Fault(Fault::NotUtf8),
            8 => return Err(CLOSE),
            9 | 10 if payload.len() <= 125 => return Err(PING),
            _ => Input::Fault(Fault::Protocol),
        });
    }
    Ok(inputs)
}

/// Does what the session wants done. Tells whether it goes on.
fn drain(
    session: &mut ServerSession,
    conversation: &Conversation,
    said: &mut Vec<(u8, Bytes)>,
) -> Result<bool, WhyNot> {
    while let Some(output) = session.poll_output() {
        match output {
            Output::Send(Frame(frame)) => said.push((2, frame)),
            Output::Authenticate(request) => {
                let authenticator = conversation.authenticator();
                let verdict = authenticator.verify(request.token(), conversation.now());
                session.resolve(request, verdict.map_err(|error| Refusal::from(&error)));
            }
            Output::End(end) => {
                said.extend(end.close.map(|close| (8, payload_of(&close))));
                return Ok(false);
            }
            Output::Call(..) => return Err(CALL),
            Output::Reply(..) => unreachable!("nothing is called"),
            // For the handler, which has nothing to say, and for the log.
            Output::Authenticated(_) | Output::Message(_) | Output::Stray { .. } => {}
        }
    }
    Ok(true)
}

fn payload_of(Close { code, reason }: &Close) -> Bytes {
    let mut payload = vec![];
    payload.put_u16(*code);
    payload.extend(reason.as_bytes());
    payload.into()
}
