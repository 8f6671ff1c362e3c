//! An authenticator over a database: opaque session tokens instead of JSON Web Tokens.
//!
//! The database knows the SHA-256 of each token, so whoever reads it cannot log in with what it
//! holds. It is asked on a thread for blocking work, and a failure of it is told apart from a
//! wrong token: the client then tries again instead of giving up.
//!
//! ```sh
//! cargo run --example database_authenticator
//! cargo run -q --features cli -- connect ws://localhost:5133 --token secret-of-alice
//! ```

use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use electric_satellite::{
    auth::{AuthError, Authenticator},
    server::{Server, empty_database},
    session::{AuthRequest, Identity, UnixTime, Verified},
};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::{net::TcpListener, task::spawn_blocking};

/// Looks sessions up in SQLite.
struct Sessions(Arc<Mutex<Connection>>);

impl Sessions {
    fn open() -> rusqlite::Result<Sessions> {
        let database = Connection::open_in_memory()?;
        database.execute_batch(
            "CREATE TABLE sessions (
                token_hash BLOB PRIMARY KEY, user_id TEXT NOT NULL, expires_at INTEGER NOT NULL
            )",
        )?;
        Ok(Sessions(Arc::new(Mutex::new(database))))
    }

    /// What the login of the application does.
    fn log_in(&self, token: &str, user_id: &str, expires_at: UnixTime) -> rusqlite::Result<()> {
        let database = self.0.lock().expect("no query panics");
        let row = params![hash(token), user_id, expires_at.as_secs()];
        database.execute("INSERT INTO sessions VALUES (?1, ?2, ?3)", row)?;
        Ok(())
    }
}

impl Authenticator for Sessions {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> Result<Verified, AuthError> {
        let (database, hash) = (Arc::clone(&self.0), hash(request.token().expose()));
        let session = spawn_blocking(move || {
            let database = database.lock().expect("no query panics");
            let query = "SELECT user_id, expires_at FROM sessions WHERE token_hash = ?1";
            database
                .query_row(query, params![hash], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
                .optional()
        });
        let session = session.await.map_err(|error| AuthError::Unavailable(error.into()))?;
        let session = session.map_err(|error| AuthError::Unavailable(error.into()))?;
        let (user_id, expires_at) = session.ok_or(AuthError::InvalidSignature)?;
        let expires_at = UnixTime::from_secs(expires_at);
        if expires_at < now {
            return Err(AuthError::Expired);
        }
        let mut identity = Identity::new(user_id);
        identity.expires_at = Some(expires_at);
        Ok(Verified::vouched_for_by_authenticator(identity))
    }
}

fn hash(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = Sessions::open()?;
    let in_an_hour = UnixTime::from_secs(UnixTime::now().as_secs() + 3600);
    sessions.log_in("secret-of-alice", "alice", in_an_hour)?;
    let listener = TcpListener::bind("127.0.0.1:5133").await?;
    println!("listening on ws://{}/ws", listener.local_addr()?);
    Server::new(sessions).serve(listener, empty_database).await;
    Ok(())
}
