//! The tokens of `examples/token_endpoint.rs`, asked for over HTTP and presented to a service that
//! accepts each once.

#[path = "../examples/token_endpoint.rs"]
#[expect(dead_code, reason = "it is a program, of which only the endpoint is run here")]
mod token_endpoint;

use std::{net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use electric_satellite::{
    auth::{JwtAuthenticator, Minter},
    client::{ConnectError, Connector},
    server::{Server, empty_database},
    session::{Cause, ClientId, Token, UnixTime},
    wire::proto::SatInStartReplicationReq,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The variables that both sides are run with.
fn variable(name: &str) -> Option<String> {
    match name {
        "AUTH_JWT_ALG" => Some("HS256".into()),
        "AUTH_JWT_KEY" => Some("0123456789abcdef0123456789abcdef".into()),
        _ => None,
    }
}

/// And those of the service.
fn variable_of_the_service(name: &str) -> Option<String> {
    match name {
        "AUTH_JWT_ONE_OFF" => Some("100000".into()),
        name => variable(name),
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

/// The endpoint, at an address of its own.
async fn endpoint() -> SocketAddr {
    let (listener, address) = listen().await;
    let app = token_endpoint::app(Minter::from_vars(variable).unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The head of the answer, in lower case, and its body.
async fn ask(endpoint: SocketAddr, method: &str, header: &str) -> (String, String) {
    let mut stream = TcpStream::connect(endpoint).await.unwrap();
    let request =
        format!("{method} /token HTTP/1.1\r\nhost: backend\r\nconnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (head.to_lowercase(), body.to_owned())
}

async fn token(endpoint: SocketAddr) -> Token {
    let (head, body) = ask(endpoint, "POST", "cookie: theme=dark; session=demo\r\n").await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    Token::new(body["token"].as_str().expect("a token")).unwrap()
}

#[tokio::test]
async fn a_token_is_accepted_exactly_once() {
    let endpoint = endpoint().await;
    let authenticator = JwtAuthenticator::from_vars(variable_of_the_service).unwrap();
    let (listener, service) = listen().await;
    tokio::spawn(async move { Server::new(authenticator).serve(listener, empty_database).await });
    let client = Connector::new(&format!("ws://{service}")).unwrap();
    let connect = async |token| client.connect(&ClientId::random(), token).await;

    let first = token(endpoint).await;
    let connection = connect(first.clone()).await.expect("a good token");
    for _ in 0..2 {
        let Err(ConnectError::Ended(end)) = connect(first.clone()).await else {
            panic!("accepted once more")
        };
        let Cause::RefusedByServer(error) = end.cause else { panic!("{}", end.cause) };
        assert_eq!(error.message.as_deref(), Some(&b"token was used before"[..]));
    }
    // The next one is another, for the same user.
    let next = connect(token(endpoint).await).await.expect("a good token");
    for connection in [connection, next] {
        let start = SatInStartReplicationReq::default();
        connection.call(start, Duration::from_secs(60)).await.expect("an answer");
    }
}

#[tokio::test]
async fn a_token_says_who_asked_and_is_good_for_a_minute() {
    let endpoint = endpoint().await;
    let before = UnixTime::now().as_secs();
    let [first, second] = [token(endpoint).await, token(endpoint).await];
    let after = UnixTime::now().as_secs();
    let claims = |token: &Token| -> Value {
        let payload = token.expose().split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    };
    for claims in [claims(&first), claims(&second)] {
        let times = [&claims["iat"], &claims["exp"]].map(|time| time.as_i64().unwrap());
        assert!((before..=after).contains(&times[0]));
        assert_eq!(times[1], times[0] + 60);
        assert_eq!(claims["sub"], "user-1");
        assert_eq!(claims.as_object().unwrap().len(), 4, "{claims}");
    }
    assert_ne!(claims(&first)["jti"], claims(&second)["jti"]);
}

#[tokio::test]
async fn the_answer_is_for_nobody_else() {
    let endpoint = endpoint().await;
    let (head, body) = ask(endpoint, "POST", "cookie: session=demo\r\n").await;
    assert!(head.lines().any(|line| line == "cache-control: no-store"), "{head}");
    assert!(head.lines().any(|line| line == "content-type: application/json"), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["expires_in"], 60);
    assert_eq!(body.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn whoever_is_not_signed_in_gets_no_token() {
    let endpoint = endpoint().await;
    for header in ["", "cookie: session=\r\n", "cookie: session=demo2\r\n", "session: demo\r\n"] {
        let (head, body) = ask(endpoint, "POST", header).await;
        assert!(head.starts_with("http/1.1 401 "), "{header}: {head}");
        assert_eq!(body, "");
    }
    let (head, _) = ask(endpoint, "GET", "cookie: session=demo\r\n").await;
    assert!(head.starts_with("http/1.1 405 "), "{head}");
}
