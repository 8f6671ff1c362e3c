//! The handshake inside an axum application, beside other routes and with all policies.
//!
//! ```sh
//! AUTH_MODE=insecure cargo run --example axum
//! cargo run -q --features cli -- connect ws://localhost:3000 \
//!     --token "$(AUTH_MODE=insecure cargo run -q --features cli -- token --sub me)"
//! ```

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use electric_satellite::{
    auth::JwtAuthenticator,
    server::{Server, empty_database},
};
use tokio::net::TcpListener;

type Satellite = Server<JwtAuthenticator>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let satellite = Server::new(JwtAuthenticator::from_env()?);
    // Reads keys again when they change, and closes connections that are revoked.
    tokio::spawn({
        let satellite = satellite.clone();
        async move { satellite.maintain().await }
    });
    let app = Router::new()
        .route("/", get(async || "The rest of the application\n"))
        .route("/ws", get(websocket))
        .with_state(satellite);
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

/// Answers the upgrade at once, and goes on with the connection on a task of its own.
async fn websocket(
    State(satellite): State<Satellite>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (answer, upgrading) = satellite.respond(request, peer.ip());
    if let Some(upgrading) = upgrading {
        tokio::spawn(async move {
            match upgrading.accept().await {
                // Your handler here.
                Ok(connection) => empty_database(connection).await,
                Err(error) => eprintln!("{peer}: {error}"),
            }
        });
    }
    answer.into_response()
}
