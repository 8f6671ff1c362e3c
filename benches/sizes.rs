//! Allocations per handshake, and the size of what drives it.

mod common;

use std::{alloc::System, hint::black_box, time::Instant};

use electric_satellite::server::Server;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
};

use common::{NOW, SERVER_ID, Signed, handshake};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let signed = Signed::hs256();
    println!("allocations per handshake (HS256, without I/O; budget 12)");
    allocations(&signed);
    println!("bytes of a future");
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future(&signed));
}

fn allocations(signed: &Signed) {
    let (authenticator, token, frame) = (signed.authenticator(), signed.token(), signed.frame(0));
    let (now, server_id) = (Instant::now(), SERVER_ID.into());
    let whole = || drop(black_box(handshake(now, &server_id, &authenticator, frame.clone())));
    let verdict = || drop(black_box(authenticator.verify(&token, NOW)));
    for (name, operation) in [("all", &whole as &dyn Fn()), ("of these, the verdict", &verdict)] {
        operation(); // The first time is different.
        let region = Region::new(HEAP);
        operation();
        let change = region.change();
        let (allocated, bytes) = (change.allocations, change.bytes_allocated);
        println!(
            "  {name:<42}  {allocated:>6}  ({bytes} bytes, {} reallocations)",
            change.reallocations
        );
    }
}

/// The size of what takes a connection through the upgrade and the authentication.
async fn future(signed: &Signed) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let server = Server::new(signed.authenticator());
    println!("  {:<42}  {:>6}", "Server::accept", size_of_val(&server.accept(stream)));
}
