//! Follows a table: stays connected, subscribes to it, and prints its rows with the names of their
//! columns. How far it came is kept in a JSON file, and the next run goes on from there.
//!
//! ```sh
//! AUTH_MODE=insecure cargo run --features cli -- serve &
//! cargo run --example follow
//! ```
//!
//! This service has no tables, so the subscription is refused and the program waits, connected,
//! until SIGINT. `SATELLITE_URL`, `SATELLITE_TOKEN` and `TABLE` name another service and table, and
//! `KEPT` the file.

use std::{collections::HashMap, env, error::Error, fs, time::Duration};

use electric_satellite::{
    auth::Minter,
    client::{Advice, Client, Resume, Subscription},
    session::{AuthenticatedServer, ClientId, Token},
    transport::{Connection, Event},
    wire::{Message, proto::*},
};
use serde::{Deserialize, Serialize};

const WITHIN: Duration = Duration::from_secs(10);

/// What the next run needs. An application keeps it beside the data, in the same transaction.
#[derive(Serialize, Deserialize)]
struct Kept {
    client_id: String,
    subscription: Option<String>,
    resume: Resume,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut kept = Kept::read()?;
    let token = match env::var("SATELLITE_TOKEN") {
        Ok(token) => Token::new(token)?,
        Err(_) => Minter::unsigned().mint(&serde_json::json!({ "sub": "me" }))?,
    };
    let client = Client::builder(&setting("SATELLITE_URL", "http://localhost:5133"), token)?
        .client_id(ClientId::new(kept.client_id.as_str())?)
        .build();
    client.connect();
    tokio::select! {
        outcome = follow(&client, &mut kept) => outcome?,
        _ = tokio::signal::ctrl_c() => {}
    }
    client.disconnect();
    client.closed().await;
    Ok(())
}

/// One connection after the other, as long as the client does not give up.
async fn follow(client: &Client, kept: &mut Kept) -> Result<(), Box<dyn Error>> {
    loop {
        let mut connection = client.connection().await?;
        if let Err(error) = connection.start_replication(&mut kept.resume, WITHIN).await {
            println!("not started: {error}");
            if error.advice() == Advice::ResetState {
                kept.resume.reset(); // and the data, if there were any
            }
            continue;
        }
        println!("replicating");
        subscribe(&connection, kept);
        kept.write()?;
        let mut relations = HashMap::new();
        while let Some(event) = connection.recv().await {
            match event {
                Event::Message(message) => {
                    print(&message, &mut relations);
                    kept.resume.stored(&message);
                    kept.write()?;
                    // If it fails, the connection has ended, and `recv` says so.
                    let _ = connection.acknowledge(&mut kept.resume).await;
                }
                // The service asks for our changes. There never are any.
                Event::StartReplication(_, responder) => responder.reply(Default::default()),
                Event::StopReplication(_, responder) => responder.reply(Default::default()),
                _ => {}
            }
        }
        println!("disconnected");
    }
}

/// Subscribes, unless the data has come already. The answer comes in the stream, so the stream is
/// read meanwhile.
fn subscribe(connection: &Connection<AuthenticatedServer>, kept: &mut Kept) {
    let Kept { subscription, resume, .. } = kept;
    if subscription.as_ref().is_some_and(|id| resume.subscriptions.contains(id)) {
        return;
    }
    let items = Subscription::new().shape(setting("TABLE", "items"));
    *subscription = Some(items.id().to_owned());
    let sender = connection.sender().clone();
    tokio::spawn(async move {
        match sender.subscribe(items, WITHIN).await {
            Ok(()) => println!("subscribed"),
            Err(error) => println!("not subscribed: {error}"),
        }
    });
}

fn print(message: &Message, relations: &mut HashMap<u32, SatRelation>) {
    let Message::OpLog(log) = message else {
        if let Message::Relation(relation) = message {
            relations.insert(relation.relation_id, relation.clone());
        }
        return;
    };
    for op in log.ops.iter().filter_map(|op| op.op.as_ref()) {
        let (what, relation, row) = match op {
            sat_trans_op::Op::Insert(op) => ("insert", op.relation_id, &op.row_data),
            sat_trans_op::Op::Update(op) => ("update", op.relation_id, &op.row_data),
            sat_trans_op::Op::Delete(op) => ("delete", op.relation_id, &op.old_row_data),
            sat_trans_op::Op::Gone(op) => ("gone", op.relation_id, &op.pk_data),
            _ => continue,
        };
        // The connection has checked both.
        let (Some(relation), Some(row)) = (relations.get(&relation), row) else { continue };
        let Ok(row) = row.read(relation.columns.len()) else { continue };
        print!("{what} {}:", relation.table_name);
        for (column, value) in relation.columns.iter().zip(row.iter()) {
            match value {
                Some(value) => print!(" {}={:?}", column.name, String::from_utf8_lossy(value)),
                None => print!(" {}=null", column.name),
            }
        }
        println!();
    }
}

impl Kept {
    fn read() -> Result<Kept, Box<dyn Error>> {
        match fs::read(setting("KEPT", "follow.json")) {
            Ok(json) => Ok(serde_json::from_slice(&json)?),
            Err(_) => Ok(Kept {
                client_id: ClientId::random().to_string(),
                subscription: None,
                resume: Resume::default(),
            }),
        }
    }

    fn write(&self) -> Result<(), Box<dyn Error>> {
        Ok(fs::write(setting("KEPT", "follow.json"), serde_json::to_string(self)?)?)
    }
}

fn setting(name: &str, otherwise: &str) -> String {
    env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}
