//! The real files of `src`, with the locks of loom in the place of those of `std`, and the runtime
//! of `lib.rs` in the place of `tokio`. Nothing else is changed.

use std::{env, fs, path::Path};

fn main() {
    let (from, to) = (Path::new("../../src"), env::var("OUT_DIR").expect("cargo says where"));
    for file in ["registry", "auth/replay", "auth/revocation"] {
        let path = from.join(file).with_extension("rs");
        println!("cargo::rerun-if-changed={}", path.display());
        let source = fs::read_to_string(path).expect("it is there");
        let code = source.split("#[cfg(test)]").next().expect("there is something before");
        assert!(code.contains("\nuse std::"), "{file} imports from std by its name");
        let code: String = code
            .lines()
            // What is included has no documentation of its own.
            .filter(|line| !line.starts_with("//!"))
            .map(|line| {
                let line = line.replace("use std::", "use crate::std::");
                line.replace("use tokio::", "use crate::tokio::") + "\n"
            })
            .collect();
        let name = Path::new(file).file_name().expect("a name");
        fs::write(Path::new(&to).join(name).with_extension("rs"), code).expect("it can be written");
    }
}
