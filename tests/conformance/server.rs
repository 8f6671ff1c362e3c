//! The server cases against [`Server`], in several settings.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use electric_satellite::{
    auth::{Algorithm, JwtAuthenticator, Minter},
    conformance::{self, Case, Need, SigningKey, Tokens, Verdict, script::Step, server_cases},
    server::{Server, empty_database},
    session::AuthenticatedClient,
    transport::{Connection, Event},
    wire::proto::{
        SatInStartReplicationReq, SatInStartReplicationResp, SatInStopReplicationResp, SatSubsResp,
        SatUnsubsResp, sat_subs_resp::SatSubsError,
    },
};
use libtest_mimic::Trial;
use tokio::io::DuplexStream;

use super::{simulated, trial};

/// A secret that is long enough for every HMAC.
pub(super) const SECRET: &str =
    "a secret that is known to tests only, and long enough for HS512, it is.";

/// A pair of keys for ES256.
const PUBLIC_KEY: &str = include_str!("../corpus/keys/p256.pub.pem");
const PRIVATE_KEY: &[u8] = include_bytes!("../corpus/keys/p256.key.pem");

/// How a server is set up.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    name: &'static str,
    /// Whether it asks every client that has started for its changes.
    asks: bool,
    variables: &'static [(&'static str, &'static str)],
}

const SETTINGS: &[Setting] =
    &[Setting::INSECURE, Setting::HS256, Setting::CLAIMS, Setting::ES256, Setting::ASKS];

impl Setting {
    /// Anybody may say who he is.
    pub(super) const INSECURE: Setting =
        Setting { name: "insecure", asks: false, variables: &[("AUTH_MODE", "insecure")] };

    /// The one that most servers have.
    pub(super) const HS256: Setting = Setting {
        name: "hs256",
        asks: false,
        variables: &[("AUTH_JWT_ALG", "HS256"), ("AUTH_JWT_KEY", SECRET)],
    };

    /// With everything that can be asked of claims.
    const CLAIMS: Setting = Setting {
        name: "hs512-iss-aud-namespace",
        asks: false,
        variables: &[
            ("AUTH_JWT_ALG", "HS512"),
            ("AUTH_JWT_KEY", SECRET),
            ("AUTH_JWT_ISS", "the issuer"),
            ("AUTH_JWT_AUD", "the audience"),
            ("AUTH_JWT_NAMESPACE", "https://example.com/claims"),
        ],
    };

    /// With a public key.
    const ES256: Setting = Setting {
        name: "es256",
        asks: false,
        variables: &[("AUTH_JWT_ALG", "ES256"), ("AUTH_JWT_KEY", PUBLIC_KEY)],
    };

    /// With calls of its own.
    const ASKS: Setting = Setting { name: "asks", asks: true, ..Setting::INSECURE };

    /// One in which the case applies.
    pub(super) fn for_case(case: &Case) -> Setting {
        let needs = |need| case.needs.contains(&need);
        if needs(Need::InsecureMode) {
            Setting::INSECURE
        } else if needs(Need::Namespace) || needs(Need::Issuer) || needs(Need::Audience) {
            Setting::CLAIMS
        } else {
            Setting::HS256
        }
    }

    /// Signs what the server accepts.
    pub(super) fn minter(&self) -> Option<Minter> {
        if !self.is_pair() {
            return Minter::from_vars(|name| self.value(name)).ok();
        }
        let algorithm = self.value("AUTH_JWT_ALG")?.parse().ok()?;
        Minter::from_pem(algorithm, PRIVATE_KEY).ok()
    }

    /// Whether tokens are signed with a private key and verified with a public one.
    fn is_pair(&self) -> bool {
        self.value("AUTH_JWT_KEY").is_some_and(|key| key == PUBLIC_KEY)
    }

    fn value(&self, name: &str) -> Option<String> {
        let found = self.variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    }

    fn tokens(&self) -> Tokens {
        let minter = self.minter().expect("a good setting");
        let algorithm = self.value("AUTH_JWT_ALG");
        let algorithm: Option<Algorithm> =
            algorithm.map(|algorithm| algorithm.parse().expect("an algorithm"));
        let is_pair = self.is_pair();
        let secret = algorithm.filter(|_| !is_pair);
        Tokens::made_with(SigningKey {
            secret: secret.map(|algorithm| (algorithm, SECRET.as_bytes().to_vec())),
            public_key: is_pair.then(|| PUBLIC_KEY.as_bytes().to_vec()),
            namespace: self.value("AUTH_JWT_NAMESPACE"),
            issuer: self.value("AUTH_JWT_ISS"),
            audience: self.value("AUTH_JWT_AUD"),
            ..SigningKey::new(minter)
        })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Whatever these streams lead to, as the suite sees it.
    pub(super) fn suite<F>(&self, dial: F) -> conformance::Server
    where
        F: Fn() -> DuplexStream + Send + Sync + 'static,
    {
        conformance::Server::new(self.name, self.tokens(), move || {
            let stream = dial();
            async { Ok(stream) }
        })
    }

    /// A server of this crate with this setting, as the suite sees it.
    fn target(&self) -> conformance::Server {
        self.target_through(|stream| stream)
    }

    /// The same server behind something.
    pub(super) fn target_through<F>(&self, through: F) -> conformance::Server
    where
        F: Fn(DuplexStream) -> DuplexStream + Send + Sync + 'static,
    {
        let authenticator =
            JwtAuthenticator::from_vars(|name| self.value(name)).expect("a good setting");
        let server = Server::new(authenticator);
        let asks = self.asks;
        let dialled = AtomicU32::new(0);
        self.suite(move || {
            let (near, far) = tokio::io::duplex(64 * 1024);
            // Each connection from an address of its own, so that cases do not share budgets.
            let nth = dialled.fetch_add(1, Ordering::Relaxed);
            let peer = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + nth));
            let server = server.clone();
            tokio::spawn(async move {
                match server.accept_from(far, Some(peer)).await {
                    Ok(connection) if asks => asks_for_changes(connection).await,
                    Ok(connection) => empty_database(connection).await,
                    Err(_) => {}
                }
            });
            through(near)
        })
    }
}

/// Asks a client for its changes once it has started, and has an answer for every call.
async fn asks_for_changes(mut connection: Connection<AuthenticatedClient>) {
    while let Some(event) = connection.recv().await {
        match event {
            Event::StartReplication(_, responder) => {
                responder.reply(SatInStartReplicationResp::default());
                let sender = connection.sender().clone();
                tokio::spawn(async move {
                    sender.call(SatInStartReplicationReq::default(), Duration::from_secs(60)).await
                });
            }
            Event::StopReplication(_, responder) => responder.reply(SatInStopReplicationResp {}),
            Event::Subscribe(request, responder) => responder.reply(SatSubsResp {
                subscription_id: request.subscription_id,
                err: Some(SatSubsError::default()),
            }),
            Event::Unsubscribe(_, responder) => responder.reply(SatUnsubsResp {}),
            Event::Message(_) => {}
        }
    }
}

pub(super) fn trials() -> Vec<Trial> {
    let cases = server_cases();
    let concerns = |setting: &Setting, case: &Case| {
        !setting.asks || case.script.iter().any(|step| matches!(step, Step::Given(..)))
    };
    SETTINGS
        .iter()
        .flat_map(|setting| {
            let cases = cases.iter().filter(|case| concerns(setting, case));
            cases.map(|case| one(*setting, case.clone()))
        })
        .collect()
}

fn one(setting: Setting, case: Case) -> Trial {
    trial(format!("server::{}::{}", setting.name, case.id), move || {
        let mut outcome = simulated(async { setting.target().run_case(&case).await });
        if let (true, Verdict::Skipped(reason)) = (setting.asks, &outcome.behaviour) {
            outcome.behaviour = Verdict::Fail(format!("it must not be skipped here: {reason}"));
        }
        outcome
    })
}
