//! What a run of the conformance suite finds, as those who embed it have it.
#![cfg(feature = "conformance")]

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use electric_satellite::{
    auth::{JwtAuthenticator, Minter},
    conformance::{
        Case, Outcome, Report, Server, SigningKey, Standing, Tokens, must, script::*, server_cases,
    },
    server::{self, empty_database},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

fn tokens() -> Tokens {
    Tokens::made_with(SigningKey::new(Minter::unsigned()))
}

/// This crate's server, of which only some connections can be had.
fn ours(can_be_had: impl Fn(usize) -> bool + Send + Sync + 'static) -> Server {
    let insecure = |name: &str| (name == "AUTH_MODE").then(|| "insecure".to_owned());
    let server =
        server::Server::new(JwtAuthenticator::from_vars(insecure).expect("a configuration"));
    let dialled = AtomicUsize::new(0);
    Server::new("ours", tokens(), move || {
        let is_there = can_be_had(dialled.fetch_add(1, Ordering::Relaxed));
        let server = server.clone();
        async move {
            let (near, far) = duplex(64 * 1024);
            tokio::spawn(async move {
                if let Ok(connection) = server.accept(far).await {
                    empty_database(connection).await;
                }
            });
            if is_there { Ok(near) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        }
    })
}

/// The case that every server passes that is there.
fn first() -> [Case; 1] {
    [server_cases().swap_remove(0)]
}

async fn run(server: Server) -> Report {
    server.run(&first(), |_| {}).await
}

fn standing(report: &Report) -> Standing {
    report.outcomes[0].standing()
}

#[tokio::test(start_paused = true)]
async fn runs_that_differ_are_flaky() {
    let report = run(ours(|nth| nth != 1).with_repeats(3)).await;
    assert_eq!(standing(&report), Standing::Flaky);
    assert!(!report.is_as_expected());
    // What is shown is the run that failed.
    let reason = report.outcomes[0].reason().expect("a reason");
    assert!(reason.starts_with("of 3 runs 2 passed, 1 failed; cannot connect: "), "{reason}");
    for (there, expected) in [(true, Standing::Passed), (false, Standing::Failed)] {
        let report = run(ours(move |_| there).with_repeats(3)).await;
        assert_eq!(standing(&report), expected);
        assert_eq!(report.is_as_expected(), there);
    }
}

#[tokio::test(start_paused = true)]
async fn known_failures_count_only_when_they_pass() {
    let id = first()[0].id;
    let known = |there: bool| ours(move |_| there).with_known_failures([id]);
    let report = run(known(false)).await;
    assert_eq!(standing(&report), Standing::KnownFailure);
    assert!(report.is_as_expected() && report.failures().count() == 1);
    let report = run(known(true)).await;
    assert_eq!(standing(&report), Standing::PassesNow);
    assert!(!report.is_as_expected());
    // Flaky is one way to fail.
    let report = run(ours(|nth| nth == 0).with_known_failures([id]).with_repeats(2)).await;
    assert_eq!(standing(&report), Standing::KnownFailure);
}

#[tokio::test(start_paused = true)]
async fn behaviour_and_close_are_graded_apart() {
    let case = |end| {
        let script = [open(), send(authenticate(1)), expect(welcome(1)), ends(end)];
        must("SAT-X-001", "A server MUST <x>.").script(script)
    };
    let report = ours(|_| true).run(&[case(closed(1000))], |_| {}).await;
    let outcome = &report.outcomes[0];
    assert!(!outcome.behaviour.is_fail() && outcome.close.as_ref().expect("judged").is_fail());
    assert_eq!(outcome.departed, Some(3));
    let json = report.json();
    assert_eq!(json["cases"][0]["behaviour"]["verdict"], "pass");
    assert_eq!(json["cases"][0]["close"]["verdict"], "fail");
    assert_eq!(json["totals"]["failed"], 1);
    let text = report.text().to_string();
    assert!(text.contains("behaviour  pass\n  close      fail: must be closed"), "{text}");
    assert!(text.contains("  >  4. the connection must be closed with 1000"), "{text}");
    let junit = report.junit();
    assert!(junit.contains("<failure type=\"close\""), "{junit}");
    assert!(junit.contains("behaviour: pass&#10;close: fail: "), "{junit}");
    let html = report.html();
    assert!(html.contains("<b>Behaviour</b> as it must be"), "{html}");
    assert!(html.contains("<b>Close</b> must be closed with 1000"), "{html}");
    assert!(html.contains("A server MUST &lt;x&gt;."), "{html}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_in_time_has_failed_for_that_reason() {
    let cases = [first(), first()].concat();
    let mut told = 0;
    let silent = Server::new("silent", tokens(), || async {
        let (near, far) = duplex(1024);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            drop(far);
        });
        Ok(near)
    });
    let silent = silent.with_cases_at_once(1).with_deadline(Duration::from_secs(7));
    let report = silent.run(&cases, |_| told += 1).await;
    assert_eq!(told, 2);
    assert_eq!(report.outcomes[0].failure(), Some("no HTTP answer within 5s"));
    let undone = report.outcomes[1].failure().expect("a failure");
    assert_eq!(undone, "it was not done when the run was over, after 7s");
    assert_eq!(report.took, Duration::from_secs(7));
}

/// Plays the first case against a peer that agrees to the upgrade and then does this for ever. No
/// time passes as long as it does something.
async fn outcome_of(chunk: Vec<u8>) -> Outcome {
    let chunk = Arc::new(chunk);
    let server = Server::new("endless", tokens(), move || {
        let (near, far) = duplex(64 * 1024);
        tokio::spawn(endless(far, Arc::clone(&chunk)));
        async { Ok(near) }
    });
    let mut report = server.run(&first(), |_| {}).await;
    report.outcomes.swap_remove(0)
}

async fn endless(mut stream: DuplexStream, chunk: Arc<Vec<u8>>) -> io::Result<()> {
    let _request = stream.read(&mut [0; 4096]).await?;
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                Sec-WebSocket-Protocol: electric.0.12\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    loop {
        stream.write_all(&chunk).await?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_end_fails_also_in_simulated_time() {
    // Pongs that nobody asked for.
    let outcome = outcome_of([0x8a, 0].repeat(1000)).await;
    assert_eq!(outcome.failure(), Some("more than 100000 messages came"));
    // The record has the beginning and the end.
    assert!(outcome.record.len() <= 401, "{} lines", outcome.record.len());
    assert_eq!(outcome.record[0].what, "GET /ws HTTP/1.1");
    let left_out = outcome.record.iter().find(|line| line.what.contains("left out"));
    assert_eq!(left_out.expect("a remark").from, "");
    // A message that goes on and on, of empty fragments, and of long ones.
    let mut empty = vec![0x02, 0];
    empty.extend([0x00, 0].repeat(200_000));
    let failure = outcome_of(empty).await;
    assert!(failure.failure().expect("one").ends_with("a message without end"), "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_message_is_shown_by_its_beginning() {
    use electric_satellite::wire::{Message, proto::SatErrorResp};
    let error = SatErrorResp { message: Some("x".repeat(1_000_000).into()), ..Default::default() };
    let payload = Message::from(error).encode();
    let mut frame = vec![0x82, 127];
    frame.extend((payload.len() as u64).to_be_bytes());
    frame.extend(&payload[..]);
    let outcome = outcome_of(frame).await;
    let reason = outcome.failure().expect("a failure");
    assert!(reason.len() < 2000 && reason.ends_with('…'), "{reason}");
    let last = outcome.record.last().expect("a line");
    assert!(last.what.chars().count() <= 1001, "{}", last.what);
    assert!(last.bytes.ends_with("… (1000005 bytes)"), "{}", last.bytes);
}
