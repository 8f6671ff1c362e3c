//! Works without a service: what is written goes into SQLite and an outbox beside it, and is sent
//! when there is a connection and the service asks for it.
//!
//! ```sh
//! cargo run --example offline                             # type: add milk, list, connect, quit
//! AUTH_MODE=insecure cargo run --features cli -- serve    # meanwhile, or later, or never
//! ```
//!
//! This service has no data and asks for none, so the outbox stays full; one with a database asks
//! right after the start. `SATELLITE_URL` and `SATELLITE_TOKEN` name another service, and `DATABASE`
//! the file, `offline.db` unless set. It ends with `quit`, the end of its input, or SIGINT.

use std::{
    env,
    error::Error,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use electric_satellite::{
    auth::Minter,
    client::{Advice, Client, Connectivity, Resume},
    session::{AuthenticatedServer, ClientId, Token, UnixTime},
    transport::{Connection, Event},
    wire::{Message, proto::*},
};
use rusqlite::{OptionalExtension, params};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = Arc::new(Store::open(&setting("DATABASE", "offline.db"))?);
    let token = match env::var("SATELLITE_TOKEN") {
        Ok(token) => Token::new(token)?,
        Err(_) => Minter::unsigned().mint(&serde_json::json!({ "sub": "me" }))?,
    };
    let client = Client::builder(&setting("SATELLITE_URL", "http://localhost:5133"), token)?
        .client_id(store.client_id()?)
        .build();
    let client = Arc::new(client);
    tokio::spawn(show(client.connectivity()));
    tokio::spawn(replicate(Arc::clone(&client), Arc::clone(&store)));

    let mut lines = lines();
    // One for all lines: it also counts while a line is dealt with.
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    loop {
        let line = tokio::select! {
            line = lines.recv() => line.unwrap_or_else(|| "quit".into()),
            _ = &mut interrupt => "quit".into(),
        };
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("add", title) => store.add(title)?,
            ("list", _) => store.list()?,
            ("connect", _) => client.connect(),
            ("disconnect", _) => client.disconnect(),
            ("retry", _) => client.retry_now(),
            ("quit", _) => break,
            _ => println!("add TITLE, list, connect, disconnect, retry or quit"),
        }
    }
    client.disconnect();
    client.closed().await;
    Ok(())
}

/// The lines of the input. They are read by a thread that nobody waits for at the end.
fn lines() -> mpsc::UnboundedReceiver<String> {
    let (line, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        std::io::stdin().lines().map_while(Result::ok).try_for_each(|text| line.send(text))
    });
    lines
}

/// Shows whether there is a connection, and what is done about it.
async fn show(mut connectivity: watch::Receiver<Connectivity>) {
    while connectivity.changed().await.is_ok() {
        match &*connectivity.borrow_and_update() {
            Connectivity::Connecting => println!("connecting"),
            Connectivity::Connected { server_id, .. } => println!("connected to {server_id}"),
            Connectivity::Disconnected { reason: None, .. } => println!("offline"),
            Connectivity::Disconnected { reason: Some(reason), next_attempt: None } => {
                println!("offline, for good: {reason}");
            }
            Connectivity::Disconnected { reason: Some(reason), next_attempt: Some(next) } => {
                let pause = next.saturating_duration_since(Instant::now()).as_secs_f64();
                println!("offline: {reason}; trying again in {pause:.1} s");
            }
            _ => {}
        }
    }
}

/// One connection after the other, whenever the client is online.
async fn replicate(client: Arc<Client>, store: Arc<Store>) {
    let mut connectivity = client.connectivity();
    loop {
        let Ok(connection) = client.connection().await else {
            // Until it is told to connect.
            let Ok(()) = connectivity.changed().await else { return };
            continue;
        };
        if let Err(error) = session(connection, &store).await {
            println!("{error}");
        }
    }
}

async fn session(
    mut connection: Connection<AuthenticatedServer>,
    store: &Store,
) -> Result<(), Box<dyn Error>> {
    let mut resume = store.resume()?;
    if let Err(error) = connection.start_replication(&mut resume, Duration::from_secs(10)).await {
        if error.advice() == Advice::ResetState {
            resume.reset(); // the outbox stays: it is ours
            store.keep(&resume)?;
        }
        return Err(error.into());
    }
    // The last write that was sent, once the service has asked.
    let mut sent = None;
    loop {
        let event = tokio::select! {
            event = connection.recv() => event,
            () = store.written.notified() => {
                send(&connection, store, &mut sent).await?;
                continue;
            }
        };
        match event {
            None => return Ok(()),
            // It says what it has. That is done, and what follows it is sent, in order.
            Some(Event::StartReplication(request, responder)) => {
                let position = position(&request.lsn);
                println!("asked for what comes after write {position}");
                store.done(position)?;
                responder.reply(SatInStartReplicationResp::default());
                connection.send(items()).await?;
                sent = Some(position);
                send(&connection, store, &mut sent).await?;
            }
            Some(Event::StopReplication(_, responder)) => {
                sent = None;
                responder.reply(SatInStopReplicationResp {});
            }
            // Where this had tables to fill, it would, and keep this in the same transaction.
            Some(Event::Message(message)) => {
                resume.stored(&message);
                store.keep(&resume)?;
                connection.acknowledge(&mut resume).await?;
            }
            Some(_) => {}
        }
    }
}

/// Sends the writes that were not sent on this connection.
async fn send(
    connection: &Connection<AuthenticatedServer>,
    store: &Store,
    sent: &mut Option<i64>,
) -> Result<(), Box<dyn Error>> {
    let Some(sent) = sent else { return Ok(()) };
    for write in store.after(*sent)? {
        *sent = write.position;
        println!("sending write {}", write.position);
        connection.send(write.transaction()).await?;
    }
    Ok(())
}

/// A transaction of the outbox.
struct Write {
    position: i64,
    at: u64,
    id: String,
    title: String,
}

impl Write {
    /// As it travels. The position is ours to choose; the service gives it back unread.
    fn transaction(self) -> Message {
        let Write { position, at, id, title } = self;
        let lsn = Bytes::copy_from_slice(&position.to_be_bytes());
        let row = SatOpInsert {
            relation_id: ITEMS,
            row_data: Some([Some(id), Some(title)].into_iter().collect()),
            tags: vec![],
        };
        let begin = SatOpBegin { commit_timestamp: at, lsn: lsn.clone(), ..Default::default() };
        let commit = SatOpCommit { commit_timestamp: at, lsn, ..Default::default() };
        let ops = [
            sat_trans_op::Op::Begin(begin),
            sat_trans_op::Op::Insert(row),
            sat_trans_op::Op::Commit(commit),
        ];
        SatOpLog { ops: ops.map(|op| SatTransOp { op: Some(op) }).into() }.into()
    }
}

/// The position in bytes, as [`Write::transaction`] has written it; 0 for none.
fn position(lsn: &[u8]) -> i64 {
    lsn.try_into().map_or(0, i64::from_be_bytes)
}

const ITEMS: u32 = 1;

/// The table whose rows are sent. All columns are named, in the order of the rows.
fn items() -> SatRelation {
    let column = |name: &str| SatRelationColumn {
        name: name.into(),
        r#type: "text".into(),
        ..Default::default()
    };
    SatRelation {
        schema_name: "public".into(),
        table_name: "items".into(),
        relation_id: ITEMS,
        columns: vec![column("id"), column("title")],
        ..Default::default()
    }
}

/// The data, the outbox, and what the next connection begins with. Queries are short here; where
/// they are not, they belong on a thread of their own, as in `examples/database_authenticator.rs`.
struct Store {
    database: Mutex<rusqlite::Connection>,
    /// There is something new in the outbox.
    written: Notify,
}

impl Store {
    fn open(path: &str) -> rusqlite::Result<Store> {
        let database = rusqlite::Connection::open(path)?;
        // A position is never given out twice, not even when the outbox was empty meanwhile.
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, title TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS outbox (
                 position INTEGER PRIMARY KEY AUTOINCREMENT,
                 at INTEGER NOT NULL, id TEXT NOT NULL, title TEXT NOT NULL
             );
             CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);",
        )?;
        Ok(Store { database: Mutex::new(database), written: Notify::new() })
    }

    fn database(&self) -> MutexGuard<'_, rusqlite::Connection> {
        self.database.lock().expect("no query panics")
    }

    /// Writes to the table and to the outbox, or to neither.
    fn add(&self, title: &str) -> rusqlite::Result<()> {
        let (id, at) = (uuid::Uuid::new_v4().to_string(), UnixTime::now().as_secs() * 1000);
        let mut database = self.database();
        let both = database.transaction()?;
        both.execute("INSERT INTO items VALUES (?1, ?2)", params![id, title])?;
        let to_outbox = "INSERT INTO outbox (at, id, title) VALUES (?1, ?2, ?3)";
        both.execute(to_outbox, params![at, id, title])?;
        println!("wrote {}", both.last_insert_rowid());
        both.commit()?;
        self.written.notify_one();
        Ok(())
    }

    fn list(&self) -> rusqlite::Result<()> {
        let database = self.database();
        let count = |table| {
            database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
        };
        let (items, outbox): (i64, i64) = (count("items")?, count("outbox")?);
        println!("{items} items, {outbox} in the outbox");
        Ok(())
    }

    /// What the outbox holds after a position, in order.
    fn after(&self, position: i64) -> rusqlite::Result<Vec<Write>> {
        let database = self.database();
        let mut query = database.prepare(
            "SELECT position, at, id, title FROM outbox WHERE position > ?1 ORDER BY position",
        )?;
        let write = |row: &rusqlite::Row<'_>| {
            let (position, at): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(Write { position, at: at.unsigned_abs(), id: row.get(2)?, title: row.get(3)? })
        };
        query.query_map([position], write)?.collect()
    }

    /// The service has everything up to this position.
    fn done(&self, position: i64) -> rusqlite::Result<()> {
        self.database().execute("DELETE FROM outbox WHERE position <= ?1", [position])?;
        Ok(())
    }

    /// The same at every run: by it, the service knows what it has of this client.
    fn client_id(&self) -> Result<ClientId, Box<dyn Error>> {
        if let Some(id) = self.meta("client_id")? {
            return Ok(ClientId::new(id)?);
        }
        let id = ClientId::random();
        self.set_meta("client_id", id.as_str())?;
        Ok(id)
    }

    fn resume(&self) -> Result<Resume, Box<dyn Error>> {
        let kept = self.meta("resume")?;
        Ok(kept.map(|json| serde_json::from_str(&json)).transpose()?.unwrap_or_default())
    }

    fn keep(&self, resume: &Resume) -> Result<(), Box<dyn Error>> {
        Ok(self.set_meta("resume", &serde_json::to_string(resume)?)?)
    }

    fn meta(&self, name: &str) -> rusqlite::Result<Option<String>> {
        let query = "SELECT value FROM meta WHERE name = ?1";
        self.database().query_row(query, [name], |row| row.get(0)).optional()
    }

    fn set_meta(&self, name: &str, value: &str) -> rusqlite::Result<()> {
        self.database().execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", [name, value])?;
        Ok(())
    }
}

fn setting(name: &str, otherwise: &str) -> String {
    env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}
