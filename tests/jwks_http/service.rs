//! A whole service whose keys come from a URL.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use electric_satellite::{
    auth::{AuthError, Authenticator, JwtAuthenticator},
    client::{ConnectError, Connector},
    server::{Server, empty_database},
    session::{AuthRequest, AuthenticatedServer, Cause, ClientId, Token, UnixTime, Verified},
    transport::Connection,
};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle, time::sleep};

use crate::{
    HOUR, NOW, in_time, new, old,
    server::{Answer, Jwks},
};

/// A service that is configured by variables, until it is dropped.
struct Service {
    address: SocketAddr,
    asked: Arc<Notify>,
    task: JoinHandle<()>,
}

/// Notes when a client is about to be judged. The tests have one thread, so when they hear of it,
/// the verdict is there or is waiting for something.
struct Noting {
    authenticator: JwtAuthenticator,
    asked: Arc<Notify>,
}

impl Authenticator for Noting {
    async fn authenticate(
        &self,
        request: &AuthRequest,
        now: UnixTime,
    ) -> Result<Verified, AuthError> {
        self.asked.notify_one();
        self.authenticator.authenticate(request, now).await
    }

    async fn keep_fresh(&self) {
        self.authenticator.keep_fresh().await;
    }
}

impl Service {
    async fn new(jwks: &Jwks) -> Service {
        let url = jwks.url();
        let authenticator = JwtAuthenticator::from_vars(|name| match name {
            "AUTH_JWT_ALG" => Some("EdDSA".into()),
            "AUTH_JWT_JWKS_URL" => Some(url.clone()),
            _ => None,
        });
        let asked = Arc::new(Notify::new());
        let noting = Noting { authenticator: authenticator.unwrap(), asked: Arc::clone(&asked) };
        let server = Server::new(noting).with_clock(|| NOW);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            server.serve(listener, empty_database).await;
        });
        Service { address, asked, task }
    }

    async fn connect(&self, token: Token) -> Result<Connection<AuthenticatedServer>, ConnectError> {
        let client =
            Connector::new(&format!("http://{}", self.address)).unwrap().with_timeout(HOUR);
        in_time("a connection", client.connect(&ClientId::random(), token)).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until the service has its first keys.
async fn until_let_in(service: &Service, token: &Token) -> Connection<AuthenticatedServer> {
    in_time("let in", async {
        loop {
            match service.connect(token.clone()).await {
                Ok(connection) => return connection,
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_configured_service_fetches_its_keys() {
    let jwks = Jwks::new(old().keys()).await;
    let service = Service::new(&jwks).await;
    let connection = until_let_in(&service, &old().token()).await;
    let Err(ConnectError::Ended(end)) = service.connect(new().token()).await else {
        panic!("its key is unknown")
    };
    assert!(matches!(end.cause, Cause::RefusedByServer(_)), "{end:?}");
    assert!(connection.end().is_none());
    // The unknown key came too soon after the fetch for another.
    assert_eq!(jwks.requests().len(), 1);
}

/// Published clients take a refusal for final and do not try again. So before the first keys are
/// there, a client must be kept waiting, or be told to come again (1011), but not be refused.
#[tokio::test]
async fn a_client_that_comes_before_the_first_keys_is_not_refused_for_good() {
    let jwks = Jwks::new(old().keys()).await;
    jwks.hold();
    let service = Service::new(&jwks).await;
    jwks.asked(1).await;
    let release = async {
        service.asked.notified().await;
        jwks.release();
    };
    let (verdict, ()) = tokio::join!(service.connect(old().token()), release);
    come_again_or_welcome(verdict);
}

/// The same when the keys have never been there.
#[tokio::test]
async fn a_client_is_not_refused_for_good_while_there_are_no_keys_to_be_had() {
    let jwks = Jwks::new(Answer::nothing()).await;
    let service = Service::new(&jwks).await;
    jwks.asked(1).await;
    come_again_or_welcome(service.connect(old().token()).await);
}

fn come_again_or_welcome(verdict: Result<Connection<AuthenticatedServer>, ConnectError>) {
    match verdict {
        Ok(_) => {}
        Err(ConnectError::Ended(end)) => {
            let Cause::Peer(Some(close)) = end.cause else { panic!("refused: {}", end.cause) };
            assert_eq!(close.code, 1011);
        }
        Err(other) => panic!("{other}"),
    }
}

/// Keys on this machine may be fetched without TLS, because nobody is on the way; so nobody may be
/// put there by a variable that was set for other programs.
#[cfg(feature = "cli")]
#[tokio::test]
async fn keys_on_this_machine_are_not_fetched_through_a_proxy() {
    use std::process::{Child, Command, Stdio};

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    let (jwks, proxy) = (Jwks::new(old().keys()).await, Jwks::new(new().keys()).await);
    let mut command = Command::new(env!("CARGO_BIN_EXE_satellite"));
    command.args(["serve", "--http-port", "0", "--listen-address", "127.0.0.1"]);
    command.env_clear().env("AUTH_JWT_ALG", "EdDSA").env("AUTH_JWT_JWKS_URL", jwks.url());
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(variable, format!("http://{}", proxy.address()));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _running = Running(command.spawn().expect("the binary runs"));
    tokio::select! {
        () = jwks.asked(1) => {}
        () = proxy.asked(1) => panic!("the proxy is asked: {:?}", proxy.requests()[0]),
    }
}
