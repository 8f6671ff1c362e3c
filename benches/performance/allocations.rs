//! Allocations per handshake, and the size of what drives it.
//!
//! The allocator counts what one HS256 handshake without I/O allocates; growing what is there is
//! counted apart. The numbers depend on the versions of Rust and of the dependencies, and neither
//! on the machine nor on what else it does.

use std::{hint::black_box, time::Instant};

use alloc_counter::count_alloc;
use electric_satellite::server::Server;
use tokio::net::{TcpListener, TcpStream};

use super::{
    Measured, block_on,
    report::Row,
    scale::Scale,
    tokens::{NOW, Signed},
    without_io::{SERVER_ID, handshake},
};

/// How often a handshake may allocate.
const BUDGET: f64 = 12.0;

pub(crate) fn measure(_: &Scale) -> Measured {
    let signed = Signed::with("HS256");
    let (authenticator, token, frame) = (signed.authenticator(), signed.token(), signed.frame(0));
    let (now, server_id) = (Instant::now(), SERVER_ID.into());
    let whole =
        count(&|| drop(black_box(handshake(now, &server_id, &authenticator, frame.clone()))));
    let verdict = count(&|| drop(black_box(authenticator.verify(&token, NOW))));
    Ok(vec![
        Row::new("of an HS256 handshake without I/O", whole.allocations, "allocations")
            .at_most(BUDGET)
            .key("allocations_per_handshake"),
        Row::new("of these, of the verdict", verdict.allocations, "allocations"),
        Row::new("of an HS256 handshake without I/O", whole.reallocations, "reallocations"),
        Row::new("future of Server::accept", block_on(future(&signed)), "B"),
    ])
}

struct Counts {
    allocations: f64,
    reallocations: f64,
}

fn count(operation: &dyn Fn()) -> Counts {
    operation(); // The first time is different.
    let ((allocations, reallocations, _), ()) = count_alloc(operation);
    Counts { allocations: allocations as f64, reallocations: reallocations as f64 }
}

/// The size of what takes a connection through the upgrade and the authentication.
async fn future(signed: &Signed) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let server = Server::new(signed.authenticator());
    size_of_val(&server.accept(stream)) as f64
}
