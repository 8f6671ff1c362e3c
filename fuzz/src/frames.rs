//! WebSocket frames through the whole server, before authentication and after it: it answers in
//! whole frames, of messages that decode, ends with one close, and lets nobody in without a token.

use std::time::Duration;

use crate::served::{TOKEN, UPGRADE, authenticate, hear};

/// The lowest bits of the first byte choose whether the client authenticates, whether it hangs up,
/// and whether its bytes come in pieces; the rest is what it sends on its WebSocket.
pub fn check(data: &[u8]) {
    let Some((choice, frames)) = data.split_first() else { return };
    let (authenticates, hangs_up, cut) = (choice & 1 != 0, choice & 2 != 0, choice & 4 != 0);
    let first = if authenticates { authenticate() } else { vec![] };
    let mut pieces = vec![UPGRADE, &first[..]];
    match cut {
        true => pieces.extend(frames.chunks((frames.len() / 7).max(1))),
        false => pieces.push(frames),
    }
    let heard = hear(&pieces, hangs_up);
    assert_eq!(heard.answers.len(), 1);
    assert_eq!(heard.answers[0].status, 101);
    if authenticates {
        assert!(heard.was_let_in);
        assert_eq!(heard.frames.first().map(|(opcode, _)| *opcode), Some(2), "the welcome");
    } else if heard.was_let_in {
        // Masked, fragmented, whatever: the token has as many bytes, and a call more.
        assert!(frames.len() > TOKEN.len());
    }
    // Authentication, a ping and its answer, the last words.
    assert!(heard.took <= Duration::from_secs(10 + 20 + 20 + 30 + 2), "{:?}", heard.took);
    if !hangs_up {
        assert_eq!(heard.frames.last().map(|(opcode, _)| *opcode), Some(8), "a close");
    }
}
