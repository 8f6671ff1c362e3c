//! A small HTTP server that says what it is told to say.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

use crate::in_time;

/// The path of the JWK Set.
pub(crate) const PATH: &str = "/keys/jwks.json";

/// A server on this machine, until it is dropped. Each request has a connection of its own.
pub(crate) struct Jwks {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    answer: Mutex<Answer>,
    /// The lines of every request so far.
    requests: watch::Sender<Vec<Vec<String>>>,
    /// Whether requests wait for their answer.
    held: watch::Sender<bool>,
}

/// What is sent, and what comes after.
#[derive(Clone)]
pub(crate) struct Answer {
    head: String,
    body: Vec<u8>,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Close,
    /// Nothing more, and the connection stays open.
    Hang,
    /// The body again and again, as fast as it is read.
    Repeat,
    /// The body again and again, slowly.
    Drip,
}

impl Answer {
    /// A JWK Set with these keys.
    pub(crate) fn keys(keys: &[Value]) -> Answer {
        Answer::ok(serde_json::json!({ "keys": keys }).to_string())
    }

    /// This body, with 200.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len());
        Answer { head, body, then: Then::Close }
    }

    /// The same answer with another status.
    pub(crate) fn with_status(self, status: u16) -> Answer {
        Answer { head: self.head.replacen("200 OK", &format!("{status} x"), 1), ..self }
    }

    pub(crate) fn with_header(self, line: &str) -> Answer {
        Answer { head: format!("{}{line}\r\n", self.head), ..self }
    }

    /// A body without an announced end.
    fn unbounded(body: &[u8], then: Then) -> Answer {
        Answer { head: "HTTP/1.1 200 OK\r\n".into(), body: body.into(), then }
    }

    pub(crate) fn endless() -> Answer {
        Answer::unbounded(&[b' '; 4096], Then::Repeat)
    }

    pub(crate) fn dripping() -> Answer {
        Answer::unbounded(b" ", Then::Drip)
    }

    /// Only the head, and never the body.
    pub(crate) fn stalled() -> Answer {
        Answer::unbounded(b"", Then::Hang)
    }

    /// Not even a head.
    pub(crate) fn silence() -> Answer {
        Answer { head: String::new(), body: vec![], then: Then::Hang }
    }

    /// The connection is closed instead.
    pub(crate) fn nothing() -> Answer {
        Answer { head: String::new(), body: vec![], then: Then::Close }
    }

    /// Half of the announced body, and then the end.
    pub(crate) fn cut_short(body: &str) -> Answer {
        let mut answer = Answer::ok(body);
        answer.body.truncate(body.len() / 2);
        answer
    }
}

impl Jwks {
    /// A server that gives this answer until it is told another.
    pub(crate) async fn new(answer: Answer) -> Jwks {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            requests: watch::Sender::default(),
            held: watch::Sender::new(false),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Jwks { address, shared, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    #[cfg(feature = "cli")]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next answer on, this one.
    pub(crate) fn say(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Requests wait for their answer from now on.
    pub(crate) fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// And now they get it.
    pub(crate) fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// The lines of every request so far.
    pub(crate) fn requests(&self) -> Vec<Vec<String>> {
        self.shared.requests.borrow().clone()
    }

    /// Waits until there have been so many requests.
    pub(crate) async fn asked(&self, times: usize) {
        let mut requests = self.shared.requests.subscribe();
        let enough = requests.wait_for(|requests| requests.len() >= times);
        in_time(&format!("{times} requests"), enough).await.expect("the server runs");
    }

    /// Waits for so many more requests: what was said before has been heard then.
    pub(crate) async fn asked_again(&self, times: usize) {
        self.asked(self.requests().len() + times).await;
    }
}

impl Drop for Jwks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let shared = Arc::clone(&shared);
        // A client that has gone meanwhile does not matter.
        tokio::spawn(async move { shared.respond(stream).await.ok() });
    }
}

impl Shared {
    async fn respond(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut request = vec![];
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => request.push(line.to_owned()),
            }
        }
        self.requests.send_modify(|requests| requests.push(request));
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        let Answer { head, body, then } = self.answer.lock().unwrap().clone();
        if !head.is_empty() {
            let head = format!("{head}connection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        stream.write_all(&body).await?;
        stream.flush().await?;
        match then {
            Then::Close => Ok(()),
            Then::Hang => std::future::pending().await,
            Then::Repeat => loop {
                stream.write_all(&body).await?;
            },
            Then::Drip => loop {
                sleep(Duration::from_millis(1)).await;
                stream.write_all(&body).await?;
                stream.flush().await?;
            },
        }
    }
}
