//! Compiles `proto/satellite.proto` with protox, so no `protoc` is needed.

use std::{error::Error, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo::rerun-if-changed={}", directory.display());
    let schema = protox::compile(["satellite.proto"], [&directory])?;
    prost_build::Config::new()
        // Payloads alias the frame they arrived in instead of being copied out of it.
        .bytes(["."])
        // These carry the token, bare or inside their bytes: their Debug is written by hand.
        .skip_debug([".Electric.Satellite.SatAuthReq", ".Electric.Satellite.SatRpcRequest"])
        .compile_fds(schema)?;
    Ok(())
}
