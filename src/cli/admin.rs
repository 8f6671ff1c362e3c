//! The admin address: metrics and health, for whoever runs the service.
//!
//! Beside the metrics of the server there are two that come back to what they were when all clients
//! have gone: `satellite_registered_clients`, and `satellite_tasks` of the runtime.

use std::{convert::Infallible, sync::Arc, time::Duration};

use electric_satellite::{auth::Authenticator, registry::InProcessRegistry, server::Server};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::gauge;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, runtime};

/// How long a request may take to come in, and how long an idle connection is kept.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How often measured values are summed up, so that they do not pile up unread.
const UPKEEP: Duration = Duration::from_secs(5);

/// Bounds of the buckets of a handshake's duration, in seconds.
const HANDSHAKE_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Begins to count. Nothing is counted before.
pub(super) fn install_metrics() -> Result<PrometheusHandle, String> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(
            Matcher::Full("satellite_handshake_seconds".into()),
            HANDSHAKE_BUCKETS,
        )
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| format!("Cannot count metrics: {error}"))?;
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// What the admin address tells about.
pub(super) struct Admin<A> {
    pub(super) metrics: PrometheusHandle,
    pub(super) server: Server<A>,
    pub(super) registry: InProcessRegistry,
}

impl<A: Authenticator> Admin<A> {
    /// Answers on the admin address, for ever.
    pub(super) async fn serve(self, listener: TcpListener) -> Infallible {
        let admin = Arc::new(self);
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let admin = Arc::clone(&admin);
            tokio::spawn(async move {
                let service =
                    service_fn(async |request| Ok::<_, Infallible>(admin.respond(&request)));
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Only GET\n".into());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return answer;
        }
        match request.uri().path() {
            "/metrics" => {
                self.measure();
                text(StatusCode::OK, self.metrics.render())
            }
            "/livez" => text(StatusCode::OK, format!("alive{}\n", self.warning())),
            "/readyz" => match self.server.ready() {
                Ok(()) => text(StatusCode::OK, format!("ready{}\n", self.warning())),
                Err(reason) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
                }
            },
            _ => text(StatusCode::NOT_FOUND, "Here are /metrics, /livez and /readyz\n".into()),
        }
    }

    /// Measures what nobody counts.
    fn measure(&self) {
        let tasks = runtime::Handle::current().metrics().num_alive_tasks();
        gauge!("satellite_tasks").set(tasks as f64);
        gauge!("satellite_registered_clients").set(self.registry.len() as f64);
    }

    fn warning(&self) -> String {
        let warning = self.server.warning();
        warning.map(|warning| format!("; WARNING: {warning}")).unwrap_or_default()
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
