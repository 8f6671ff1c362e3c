//! The backend's part: an endpoint that gives signed-in users a token to connect with.
//!
//! A token is good for one connection within a minute, so one that leaks is worth little. Clients
//! ask for a new one whenever they connect. To try it, give both sides the same secret:
//!
//! ```sh
//! export AUTH_JWT_ALG=HS256 AUTH_JWT_KEY="$(openssl rand -hex 32)"
//! cargo run --example token_endpoint &
//! # The service accepts each token once, and remembers so many until they expire:
//! AUTH_JWT_ONE_OFF=100000 cargo run --features cli -- serve &
//!
//! curl -s -X POST -H 'Cookie: session=demo' http://localhost:4000/token | jq -r .token |
//!     cargo run -q --features cli -- connect ws://localhost:5133 --token -
//! ```

use std::{env, error::Error, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, COOKIE},
    },
    response::{IntoResponse, Response},
    routing::post,
};
use electric_satellite::{auth::Minter, session::UnixTime};
use serde_json::json;
use uuid::Uuid;

/// How long a client may take from here to the service, in seconds.
const EXPIRES_IN: i64 = 60;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The variables of the service: what is signed here is verified there.
    let minter = Minter::from_vars(|name| env::var(name).ok())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
    println!("POST http://{}/token", listener.local_addr()?);
    Ok(axum::serve(listener, app(minter)).await?)
}

/// The endpoint. It answers POST only, so that no link or image asks for a token.
pub(crate) fn app(minter: Minter) -> Router {
    Router::new().route("/token", post(token)).with_state(Arc::new(minter))
}

async fn token(State(minter): State<Arc<Minter>>, headers: HeaderMap) -> Response {
    // Who asks is known from the session, never from the request's body: a client that could name
    // its user could be anybody.
    let Some(user_id) = signed_in_user(&headers) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let now = UnixTime::now().as_secs();
    let claims = json!({
        "sub": user_id,
        "jti": Uuid::new_v4().to_string(), // its own id, by which the service knows that it was used
        "iat": now,
        "exp": now + EXPIRES_IN,
    });
    match minter.mint(&claims) {
        // Not for any cache: the next one who asks must not get it.
        Ok(token) => (
            [(CACHE_CONTROL, "no-store")],
            Json(json!({ "token": token.expose(), "expires_in": EXPIRES_IN })),
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Stands for your own sessions: a cookie that is `HttpOnly`, `Secure` and `SameSite=Strict`,
/// looked up where you keep them.
fn signed_in_user(headers: &HeaderMap) -> Option<&'static str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|value| value.split(';'));
    cookies.any(|cookie| cookie.trim() == "session=demo").then_some("user-1")
}
