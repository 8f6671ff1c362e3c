//! A service whose connections the test holds, for clients in processes of their own.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{env, fs, net::SocketAddr, path::PathBuf};

use electric_satellite::{
    auth::JwtAuthenticator,
    server::Server,
    session::{AuthenticatedClient, Cause},
    transport::{Connection, Event},
    wire::{Message, proto::*},
};
use sat_in_start_replication_resp::{ReplicationError, replication_error::Code};
use sat_trans_op::Op;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

use crate::raw::guarded;

/// It lets everybody in. It accepts connections until this is dropped.
pub(crate) struct Scripted {
    address: SocketAddr,
    connections: mpsc::UnboundedReceiver<Connection<AuthenticatedClient>>,
    task: JoinHandle<()>,
}

impl Scripted {
    pub(crate) async fn start() -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (accepted, connections) = mpsc::unbounded_channel();
        let server = Server::new(JwtAuthenticator::insecure(None));
        let task = tokio::spawn(async move {
            let hand_out = move |connection| {
                let _ = accepted.send(connection);
                async {}
            };
            server.serve(listener, hand_out).await;
        });
        Scripted { address, connections, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The next client that is let in.
    pub(crate) async fn next(&mut self) -> Peer {
        let connection = guarded("a client", self.connections.recv()).await;
        Peer(connection.expect("the service runs"))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The service's end of one connection.
pub(crate) struct Peer(pub(crate) Connection<AuthenticatedClient>);

impl Peer {
    pub(crate) async fn hears(&mut self) -> Event<AuthenticatedClient> {
        guarded("the client", self.0.recv()).await.expect("it is connected")
    }

    /// Answers the client's `startReplication`, which it returns.
    pub(crate) async fn starts(&mut self, err: Option<Code>) -> SatInStartReplicationReq {
        let Event::StartReplication(request, responder) = self.hears().await else {
            panic!("no start")
        };
        let err = err.map(|code| ReplicationError { code: code.into(), message: "so".into() });
        responder.reply(SatInStartReplicationResp { err, unacked_window_size: Some(30) });
        request
    }

    /// Grants the client's `subscribe`, which it returns.
    pub(crate) async fn subscribes(&mut self) -> SatSubsReq {
        let Event::Subscribe(request, responder) = self.hears().await else { panic!("none") };
        let subscription_id = request.subscription_id.clone();
        responder.reply(SatSubsResp { subscription_id, err: None });
        request
    }

    pub(crate) async fn acknowledges(&mut self) -> SatOpLogAck {
        let Event::Message(Message::OpLogAck(ack)) = self.hears().await else { panic!("no ack") };
        ack
    }

    pub(crate) async fn says(&self, message: impl Into<Message>) {
        self.0.send(message).await.expect("it can be sent");
    }

    /// The data of a subscription: of one shape, with these rows of [`items`].
    pub(crate) async fn delivers(
        &self,
        subscription_id: &str,
        lsn: &'static str,
        rows: impl IntoIterator<Item = Op>,
    ) {
        let subscription_id = subscription_id.to_owned();
        self.says(SatSubsDataBegin { subscription_id, lsn: lsn.into() }).await;
        self.says(SatShapeDataBegin { request_id: "0".into(), ..Default::default() }).await;
        self.says(log(rows)).await;
        self.says(SatShapeDataEnd {}).await;
        self.says(SatSubsDataEnd {}).await;
    }

    /// How the client ended the connection.
    pub(crate) async fn left(self) -> Cause {
        guarded("the end", self.0.closed()).await.cause.clone()
    }
}

pub(crate) fn log(ops: impl IntoIterator<Item = Op>) -> SatOpLog {
    SatOpLog { ops: ops.into_iter().map(|op| SatTransOp { op: Some(op) }).collect() }
}

/// The table `items`, with an `id` and a `title`.
pub(crate) fn items() -> SatRelation {
    let column = |name: &str, primary_key| SatRelationColumn {
        name: name.into(),
        r#type: "text".into(),
        primary_key,
        is_nullable: !primary_key,
    };
    SatRelation {
        schema_name: "public".into(),
        table_name: "items".into(),
        relation_id: 7,
        columns: vec![column("id", true), column("title", false)],
        ..Default::default()
    }
}

/// A row of [`items`].
pub(crate) fn row(values: [Option<&'static [u8]>; 2]) -> Option<SatOpRow> {
    Some(values.into_iter().collect())
}

pub(crate) fn insert(values: [Option<&'static [u8]>; 2]) -> Op {
    Op::Insert(SatOpInsert { relation_id: 7, row_data: row(values), tags: vec![] })
}

/// A path to a file that is not there, and is not there in the end.
pub(crate) struct Kept(pub(crate) PathBuf);

impl Kept {
    pub(crate) fn new(name: &str) -> Kept {
        let kept = Kept(env::temp_dir().join(format!("{}-{name}", std::process::id())));
        let _ = fs::remove_file(&kept.0);
        kept
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a text")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
