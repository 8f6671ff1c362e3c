//! Any bytes instead of a request for an upgrade: the server answers in HTTP or waits for more, in
//! the same words however the bytes are cut, and it ends in time.

use std::time::Duration;

use crate::served::{Heard, TOKEN, hear};

/// The input is what a client sends on a new connection.
pub fn check(data: &[u8]) {
    if data.windows(TOKEN.len()).any(|bytes| bytes == TOKEN.as_bytes()) {
        return;
    }
    let waiting = hear(&[data], false);
    is_proper(&waiting);
    assert!(waiting.took <= Duration::from_secs(10 + 10 + 2), "{:?}", waiting.took);
    let pieces: Vec<&[u8]> = data.chunks((data.len() / 5).max(1)).collect();
    let hanging_up = hear(&pieces, true);
    is_proper(&hanging_up);
    // Who hangs up has no time to be told that it was slow.
    let both = waiting.answers.len().min(hanging_up.answers.len());
    for (one, other) in waiting.answers.iter().zip(&hanging_up.answers) {
        assert_eq!((one.status, &one.body), (other.status, &other.body));
    }
    assert!(waiting.answers.len() - both <= 1 && hanging_up.answers.len() == both);
}

fn is_proper(heard: &Heard) {
    assert!(!heard.was_let_in, "without a token");
    for answer in &heard.answers {
        assert!(matches!(answer.status, 101 | 200 | 400 | 404 | 408 | 414 | 431), "{answer:?}");
        if answer.status == 101 {
            let version = answer.header("sec-websocket-protocol").expect("a version");
            assert!(version.starts_with("electric.0."));
            assert!(answer.header("sec-websocket-accept").is_some());
        }
    }
}
