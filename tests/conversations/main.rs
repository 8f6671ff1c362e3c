//! Replays the conversations recorded from Electric (`tests/vectors`): the client's frames are
//! sent again, and what comes back is compared with what Electric said.
//!
//! They are replayed twice: through a `ServerSession` alone, where the session decides, and
//! through a live server over TCP. Both must say what Electric said, except where the table in
//! `deviations.rs` says what they say instead, and which row of the README's table of differences
//! is the reason.
//!
//! What a server says is put into words, such as
//! `authenticate 1: welcome; startReplication 2: started, window 30; open`, and the words are
//! compared. They come from decoded messages and keep every field but the instance id.
//!
//! Whole replication sessions are replayed in `replication.rs`, at the two sessions, and in
//! `client.rs`, at a whole client. Each has a table of its own.

mod client;
mod deviations;
mod http;
mod live;
mod lockstep;
mod recorded;
mod recorded_server;
mod replication;
mod session;
mod websocket;
mod words;

use std::{collections::BTreeMap, future::Future, time::Duration};

use deviations::Expected;
use recorded::Conversation;

/// Files with frames, after the upgrade.
const CONVERSATIONS: [&str; 3] = ["auth", "preauth", "authed"];

#[test]
fn the_table_lists_the_deviations_and_nothing_else() {
    let expectations = expectations();
    let conversations = CONVERSATIONS.into_iter().flat_map(recorded::conversations);
    let unasked_starts = conversations.filter(Conversation::has_unasked_start).count();
    deviations::print(&expectations, unasked_starts);
    deviations::check(&expectations);
}

#[test]
fn the_readme_tells_every_difference_that_the_table_names() {
    deviations::check_readme();
}

#[test]
fn a_session_alone_says_what_is_expected() {
    let mut left_out = BTreeMap::new();
    let mut wrong = vec![];
    for file in CONVERSATIONS {
        for conversation in recorded::conversations(file) {
            let expected = Expected::of(&conversation.case, conversation.in_words());
            match session::replay(&conversation) {
                Ok(said) => wrong.extend(expected.unless_met_by(&said)),
                Err(why) => *left_out.entry(why).or_insert(0) += 1,
            }
        }
    }
    report(wrong);
    assert_eq!(left_out, session::left_out(), "conversations that a session cannot decide alone");
}

#[tokio::test]
async fn a_live_server_says_what_is_expected() {
    let mut wrong = vec![];
    for file in CONVERSATIONS {
        for conversation in recorded::conversations(file) {
            let expected = Expected::of(&conversation.case, conversation.in_words());
            let said = guarded(&conversation.case, live::replay(&conversation)).await;
            wrong.extend(expected.unless_met_by(&said));
        }
    }
    report(wrong);
}

#[tokio::test]
async fn a_live_server_answers_http_as_expected() {
    let mut wrong = vec![];
    for exchange in recorded::exchanges() {
        let expected = Expected::of(&exchange.case, exchange.in_words());
        let said = guarded(&exchange.case, http::replay(&exchange)).await;
        wrong.extend(expected.unless_met_by(&said));
    }
    report(wrong);
}

/// What is expected in every case of every file.
fn expectations() -> Vec<Expected> {
    let conversations = CONVERSATIONS.into_iter().flat_map(recorded::conversations);
    let conversations = conversations.map(|it| Expected::of(&it.case, it.in_words()));
    let exchanges = recorded::exchanges().into_iter();
    conversations.chain(exchanges.map(|it| Expected::of(&it.case, it.in_words()))).collect()
}

/// Nothing here waits for time to pass: this is only so that a server that falls silent fails the
/// test instead of hanging it.
async fn guarded<F: Future>(case: &str, replay: F) -> F::Output {
    let patience = Duration::from_secs(120);
    tokio::time::timeout(patience, replay).await.unwrap_or_else(|_| panic!("{case}: hangs"))
}

fn report(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} not as expected:\n\n{}", wrong.len(), wrong.join("\n\n"));
}
