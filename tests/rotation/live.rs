//! What connections notice of all this.

use std::{sync::Arc, time::Duration};

use electric_satellite::{
    auth::{Authenticator, InProcessReplayGuard, KeyRing, KeySet, RevocationList},
    client::{ConnectError, Connector},
    server::{Server, empty_database},
    session::{AuthenticatedServer, Cause, ClientId, End, Token},
    transport::Connection,
    wire::proto::{SatInStartReplicationReq, SatInStopReplicationReq},
};
use serde_json::json;
use tokio::{io::duplex, task::JoinSet, time::timeout};

use crate::support::{at, issuer, named_issuer, secure};

/// Longer than any test takes; none waits for it to be over.
const LONG: Duration = Duration::from_secs(600);

/// A server by the tests' clock, which stands still.
fn server<A: Authenticator>(authenticator: A) -> Server<A> {
    Server::new(authenticator).with_clock(|| at(0))
}

/// Connects to a server without a network.
async fn connect<A: Authenticator>(
    server: &Server<A>,
    token: Token,
) -> Result<Connection<AuthenticatedServer>, ConnectError> {
    let (ours, theirs) = duplex(64 * 1024);
    let server = server.clone();
    tokio::spawn(async move {
        if let Ok(connection) = server.accept(theirs).await {
            empty_database(connection).await;
        }
    });
    // The server's patience ends first.
    let client = Connector::new("ws://localhost").unwrap().with_timeout(LONG);
    client.upgrade(ours).await?.authenticate(&ClientId::random(), token).await
}

async fn works(connection: &Connection<AuthenticatedServer>) {
    connection.call(SatInStartReplicationReq::default(), LONG).await.expect("an answer");
    connection.call(SatInStopReplicationReq {}, LONG).await.expect("an answer");
}

/// What the server said to a client that was not let in.
fn end(refused: Result<Connection<AuthenticatedServer>, ConnectError>) -> End {
    match refused {
        Err(ConnectError::Ended(end)) => end,
        other => panic!("not let in, but {other:?}"),
    }
}

#[tokio::test]
async fn a_rotation_drops_no_live_connection() {
    let (old, new) = (named_issuer(1, "old"), named_issuer(2, "new"));
    let ring = KeyRing::new(old.key.clone());
    let server = server(secure(ring.clone()).with_cache(10));
    let before = connect(&server, old.token("u")).await.unwrap();
    works(&before).await;
    ring.replace("static", new.key.clone());
    works(&before).await;
    let refused = end(connect(&server, old.token("u")).await);
    assert!(matches!(refused.cause, Cause::RefusedByServer(_)), "{refused:?}");
    let after = connect(&server, new.token("u")).await.unwrap();
    ring.replace("static", KeySet::default());
    works(&before).await;
    works(&after).await;
    assert!(before.end().is_none() && after.end().is_none());
}

#[tokio::test]
async fn a_client_whose_key_is_looked_up_waits_and_is_let_in() {
    let (old, new) = (named_issuer(1, "old"), named_issuer(2, "new"));
    let ring = KeyRing::new(old.key);
    let mut lookups = ring.lookups();
    let server = server(secure(ring.clone()));
    let source = async {
        let _lookup = lookups.recv().await.expect("the source is asked");
        ring.replace("source", new.key.clone());
    };
    let (connection, ()) = tokio::join!(connect(&server, new.token("u")), source);
    works(&connection.unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_key_is_looked_up_for_ever_is_refused_at_its_deadline() {
    let ring = KeyRing::new(named_issuer(1, "old").key);
    let mut lookups = ring.lookups();
    let server = server(secure(ring));
    let token = named_issuer(2, "new").token("u");
    let refused = timeout(2 * LONG, connect(&server, token)).await.expect("a deadline");
    let Cause::Peer(Some(close)) = end(refused).cause else { panic!("the server closes") };
    assert_eq!(close.code, 4408);
    assert!(lookups.recv().await.is_some(), "the source was asked");
}

#[tokio::test]
async fn a_token_lets_one_client_in_and_the_next_is_told_why_not() {
    let guard = InProcessReplayGuard::new(10);
    let server = server(secure(issuer(1).key).with_replay_guard(guard));
    let token = issuer(1).one_off("a");
    let connection = connect(&server, token.clone()).await.unwrap();
    let refused = end(connect(&server, token.clone()).await);
    let Cause::RefusedByServer(error) = refused.cause else { panic!("an answer, not {refused:?}") };
    assert_eq!(error.message.as_deref(), Some(&b"token was used before"[..]));
    works(&connection).await;
    // Nor does it work again when the first connection is gone.
    drop(connection);
    assert!(matches!(end(connect(&server, token).await).cause, Cause::RefusedByServer(_)));
}

#[tokio::test]
async fn a_full_guard_closes_without_an_answer_so_that_clients_come_again() {
    let server = server(secure(issuer(1).key).with_replay_guard(InProcessReplayGuard::new(1)));
    let first = connect(&server, issuer(1).one_off("a")).await.unwrap();
    let refused = end(connect(&server, issuer(1).one_off("b")).await);
    // An answer would be another cause.
    let Cause::Peer(Some(close)) = refused.cause else { panic!("a close, not {refused:?}") };
    assert_eq!(close.code, 1011);
    works(&first).await;
}

/// Explored: clients that present one token at the same time, on several threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_clients_with_one_token_exactly_one_is_let_in() {
    let guard = InProcessReplayGuard::new(10_000);
    let server = Arc::new(server(secure(issuer(1).key).with_replay_guard(guard)));
    for round in 0..5 {
        let token = issuer(1).token_with("u", json!({ "jti": round.to_string() }));
        let mut clients = JoinSet::new();
        for _ in 0..20 {
            let (server, token) = (Arc::clone(&server), token.clone());
            clients.spawn(async move { connect(&server, token).await });
        }
        let mut let_in = vec![];
        for outcome in clients.join_all().await {
            match outcome {
                Ok(connection) => let_in.push(connection),
                refused => {
                    assert!(matches!(end(refused).cause, Cause::RefusedByServer(_)));
                }
            }
        }
        assert_eq!(let_in.len(), 1, "round {round}");
        works(&let_in[0]).await;
    }
}

/// How the server closed a connection.
async fn close_code(connection: &Connection<AuthenticatedServer>) -> u16 {
    let end = timeout(LONG, connection.closed()).await.expect("closed");
    let Cause::Peer(Some(close)) = &end.cause else { panic!("a close, not {end:?}") };
    close.code
}

#[tokio::test]
async fn a_revocation_closes_the_connections_that_it_concerns_and_no_others() {
    let list = RevocationList::default();
    let server = server(secure(issuer(1).key).with_revocations(list.clone()).with_cache(10));
    let maintaining = tokio::spawn({
        let server = server.clone();
        async move { server.maintain().await }
    });
    let token = |user, jti| issuer(1).token_with(user, json!({ "jti": jti }));
    let [a1, a2, b] = [token("a", "1"), token("a", "2"), token("b", "3")];
    let connections = [
        connect(&server, a1).await.unwrap(),
        connect(&server, a2.clone()).await.unwrap(),
        connect(&server, b).await.unwrap(),
    ];
    list.revoke_token("1");
    assert_eq!(close_code(&connections[0]).await, 4000);
    works(&connections[1]).await;
    list.revoke_user("a");
    assert_eq!(close_code(&connections[1]).await, 4000);
    works(&connections[2]).await;
    assert!(matches!(end(connect(&server, a2).await).cause, Cause::RefusedByServer(_)));
    maintaining.abort();
}

/// Explored: a user who is revoked while clients of theirs are let in. Whether a client is refused
/// or let in and closed, none is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_connection_survives_a_revocation_that_came_while_it_was_let_in() {
    for round in 0..50 {
        let list = RevocationList::default();
        let server = server(secure(issuer(1).key).with_revocations(list.clone()));
        let maintaining = tokio::spawn({
            let server = server.clone();
            async move { server.maintain().await }
        });
        let mut clients = JoinSet::new();
        for _ in 0..8 {
            let (server, token) = (server.clone(), issuer(1).token("u"));
            clients.spawn(async move { connect(&server, token).await });
        }
        // At another moment in every round.
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        list.revoke_user("u");
        for outcome in clients.join_all().await {
            match outcome {
                Ok(connection) => assert_eq!(close_code(&connection).await, 4000),
                refused => {
                    let cause = end(refused).cause;
                    let closed = matches!(&cause, Cause::Peer(Some(close)) if close.code == 4000);
                    assert!(closed || matches!(cause, Cause::RefusedByServer(_)), "{cause:?}");
                }
            }
        }
        maintaining.abort();
    }
}
