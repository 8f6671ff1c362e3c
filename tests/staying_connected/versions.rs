//! Which versions are offered, and how, to services that take lists and services that do not.

use std::sync::{Arc, Mutex};

use electric_satellite::{
    client::{Advice, ConnectError, Connectivity, Failure, TokenReason},
    server::Server,
    wire::{Version, proto::SatAuthResp},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::{
    common::{net::Raw, reply},
    world::{Tokens, World, connected, given_up, waiting},
};

const V0_7: Version = Version { major: 0, minor: 7 };
const V0_11: Version = Version { major: 0, minor: 11 };

/// Not in order, and one of them twice.
const SOME: [Version; 6] =
    [Version::V0_9, Version::V0_12, V0_7, Version::V0_10, V0_11, Version::V0_9];

fn between(first: Version, last: Version) -> Server<Tokens> {
    Server::new(Tokens).with_versions(first..=last)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_takes_lists_chooses_the_newest_that_both_speak() {
    for (first, last, chosen) in [
        (Version::V0_6, Version::V0_12, Version::V0_12),
        (Version::V0_6, Version::V0_9, Version::V0_9),
        (V0_7, V0_7, V0_7),
    ] {
        let world = World::around(between(first, last), &["good user"]);
        let client = world.builder().versions(SOME).build();
        client.connect();
        let connection = client.connection().await.unwrap();
        assert_eq!(connection.version(), chosen);
        let now = client.connectivity().borrow().clone();
        assert!(matches!(now, Connectivity::Connected { version, .. } if version == chosen));
        assert_eq!(world.dials().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn one_version_is_offered_unless_told_otherwise() {
    let world = World::around(between(Version::V0_6, V0_11), &["good user"]);
    let client = world.builder().build();
    client.connect();
    let failure = given_up(&client).await;
    assert!(failure.to_string().contains("Cannot connect satellite version 0.12.0"), "{failure}");
    assert_eq!(world.dials().len(), 1);
}

/// What a service was offered, connection by connection.
type Offers = Arc<Mutex<Vec<String>>>;

/// Like Electric, takes one of these versions and no list; and lets the client in.
async fn electric(mut stream: DuplexStream, speaks: &'static [&'static str], offers: Offers) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).unwrap().1
    };
    let offer = header("Sec-WebSocket-Protocol");
    offers.lock().unwrap().push(offer.to_owned());
    if !speaks.contains(&offer) {
        let refusal = "HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nno: ";
        stream.write_all(refusal.as_bytes()).await.unwrap();
        stream.write_all(&offer.as_bytes()[offer.len() - 1..]).await.unwrap();
        return;
    }
    let accept = derive_accept_key(header("Sec-WebSocket-Key").as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Protocol: {offer}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let mut raw =
        Raw { socket: WebSocketStream::from_raw_socket(stream, Role::Server, None).await };
    raw.hears().await;
    raw.says(reply(1, SatAuthResp { id: String::new(), headers: vec![] })).await;
    raw.last_words().await;
}

/// A world in which so many connections are to this service.
fn world_of_electric(speaks: &'static [&'static str], connections: usize) -> (Arc<World>, Offers) {
    let (world, offers) = (World::new(&["good user"]), Offers::default());
    for _ in 0..connections {
        let offers = Arc::clone(&offers);
        world.scene(move |stream| electric(stream, speaks, offers));
    }
    (world, offers)
}

#[tokio::test(start_paused = true)]
async fn a_service_that_takes_no_lists_is_offered_one_after_the_other_newest_first() {
    let (world, offers) = world_of_electric(&["electric.0.10", "electric.0.9"], 4);
    let versions = [Version::V0_9, Version::V0_10, V0_11, Version::V0_12];
    let client = world.builder().versions(versions).build();
    client.connect();
    assert_eq!(client.connection().await.unwrap().version(), Version::V0_10);
    assert_eq!(
        *offers.lock().unwrap(),
        [
            "electric.0.12, electric.0.11, electric.0.10, electric.0.9",
            "electric.0.12",
            "electric.0.11",
            "electric.0.10",
        ]
    );
    // It was one attempt, and the token was presented once.
    assert_eq!(world.asked(), [TokenReason::Connect]);
    assert_eq!(world.most_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_speaks_none_of_them_is_given_up_with_what_it_said_first() {
    let (world, offers) = world_of_electric(&["electric.0.6"], 3);
    let client = world.builder().versions([V0_11, Version::V0_12]).build();
    client.connect();
    let failure = given_up(&client).await;
    let Failure::Connect(ConnectError::UpgradeRefused { status: 400, body, .. }) = &*failure else {
        panic!("{failure:?}")
    };
    assert_eq!((&body[..], failure.advice()), ("no: 1", Advice::GiveUp));
    let expected = ["electric.0.12, electric.0.11", "electric.0.12", "electric.0.11"];
    assert_eq!(*offers.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn trouble_between_two_offers_is_no_verdict_on_the_versions() {
    let (world, offers) = world_of_electric(&["electric.0.11"], 2);
    world.scene(|stream| async { drop(stream) });
    for _ in 0..3 {
        let offers = Arc::clone(&offers);
        world.scene(move |stream| electric(stream, &["electric.0.11"], offers));
    }
    let client = world.builder().versions([V0_11, Version::V0_12]).build();
    client.connect();
    assert_eq!(waiting(&client).await.failure.advice(), Advice::Retry);
    connected(&client).await;
    assert_eq!(offers.lock().unwrap().len(), 2 + 3);
    assert_eq!(world.asked(), [TokenReason::Connect, TokenReason::Reconnect]);
}
