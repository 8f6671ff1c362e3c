//! The server cases against [`Server`], in several settings.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use electric_satellite::{
    auth::{Algorithm, JwtAuthenticator, Minter},
    conformance::{self, Case, Need, SigningKey, Tokens, server_cases},
    server::{Server, empty_database},
};
use libtest_mimic::Trial;
use tokio::io::DuplexStream;

use super::{simulated, trial};

/// A secret that is long enough for every HMAC.
const SECRET: &str = "a secret that is known to tests only, and long enough for HS512, it is.";

/// How a server is set up.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    name: &'static str,
    variables: &'static [(&'static str, &'static str)],
}

const SETTINGS: &[Setting] = &[
    Setting { name: "insecure", variables: &[("AUTH_MODE", "insecure")] },
    Setting { name: "hs256", variables: &[("AUTH_JWT_ALG", "HS256"), ("AUTH_JWT_KEY", SECRET)] },
    Setting {
        name: "hs512-iss-aud-namespace",
        variables: &[
            ("AUTH_JWT_ALG", "HS512"),
            ("AUTH_JWT_KEY", SECRET),
            ("AUTH_JWT_ISS", "the issuer"),
            ("AUTH_JWT_AUD", "the audience"),
            ("AUTH_JWT_NAMESPACE", "https://example.com/claims"),
        ],
    },
];

impl Setting {
    /// The one that most servers have.
    pub(super) const HS256: Setting = Setting {
        name: "hs256",
        variables: &[("AUTH_JWT_ALG", "HS256"), ("AUTH_JWT_KEY", SECRET)],
    };

    /// One in which the case applies.
    pub(super) fn for_case(case: &Case) -> Setting {
        let needs = |need| case.needs.contains(&need);
        match (needs(Need::InsecureMode), needs(Need::Namespace)) {
            (true, _) => SETTINGS[0],
            (false, false) => Setting::HS256,
            (false, true) => SETTINGS[2],
        }
    }

    /// Signs what the server accepts.
    pub(super) fn minter(&self) -> Option<Minter> {
        Minter::from_vars(|name| self.value(name)).ok()
    }

    fn value(&self, name: &str) -> Option<String> {
        let found = self.variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    }

    fn tokens(&self) -> Tokens {
        let minter = self.minter().expect("a good setting");
        let secret = self.value("AUTH_JWT_ALG").map(|algorithm| {
            let algorithm: Algorithm = algorithm.parse().expect("an algorithm");
            (algorithm, SECRET.as_bytes().to_vec())
        });
        Tokens::made_with(SigningKey {
            secret,
            namespace: self.value("AUTH_JWT_NAMESPACE"),
            issuer: self.value("AUTH_JWT_ISS"),
            audience: self.value("AUTH_JWT_AUD"),
            ..SigningKey::new(minter)
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
        let dialled = AtomicU32::new(0);
        conformance::Server::new(self.name, self.tokens(), move || {
            let (near, far) = tokio::io::duplex(64 * 1024);
            // Each connection from an address of its own, so that cases do not share budgets.
            let nth = dialled.fetch_add(1, Ordering::Relaxed);
            let peer = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + nth));
            let server = server.clone();
            tokio::spawn(async move {
                if let Ok(connection) = server.accept_from(far, Some(peer)).await {
                    empty_database(connection).await;
                }
            });
            let near = through(near);
            async { Ok(near) }
        })
    }
}

pub(super) fn trials() -> Vec<Trial> {
    let cases = server_cases();
    SETTINGS
        .iter()
        .flat_map(|setting| cases.iter().map(|case| one(*setting, case.clone())))
        .collect()
}

fn one(setting: Setting, case: Case) -> Trial {
    trial(format!("server::{}::{}", setting.name, case.id), move || {
        simulated(async { setting.target().run_case(&case).await })
    })
}
