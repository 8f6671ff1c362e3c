//! Runs targets without libFuzzer, on any toolchain: all of the corpus, and then random changes of
//! it until the time is over. It learns nothing from what it sees.
//!
//! `smoke SECONDS TARGET`

use std::{
    env, fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

/// As long as an input may become.
const MAX_LENGTH: usize = 4096;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [seconds, name] = &arguments[..] else { return usage() };
    let Ok(seconds) = seconds.parse() else { return usage() };
    let Some((_, target)) = fuzz::TARGETS.iter().find(|(known, _)| known == name) else {
        return usage();
    };
    let seeds = corpus(name);
    let mut executions = 0_u64;
    let mut run = |input: &[u8]| {
        executions += 1;
        let finding = Finding { name, input };
        target(input);
        std::mem::forget(finding);
    };
    seeds.iter().for_each(|seed| run(seed));
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        run(&changed(&seeds));
    }
    println!("{name}: {executions} executions of {} seeds", seeds.len());
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let names: Vec<&str> = fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
    eprintln!("smoke SECONDS TARGET, which is one of {}", names.join(", "));
    ExitCode::from(2)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = files.map(|file| file.path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a seed")).collect()
}

/// A seed with up to eight changes, or random bytes where there is none.
fn changed(seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = fastrand::choice(seeds).cloned().unwrap_or_default();
    for _ in 0..fastrand::usize(1..=8) {
        let place = fastrand::usize(0..=input.len());
        match fastrand::u8(0..6) {
            0 => input.insert(place, fastrand::u8(..)),
            1 if place < input.len() => input[place] = fastrand::u8(..),
            2 if place < input.len() => input[place] ^= 1 << fastrand::u8(0..8),
            3 if place < input.len() => drop(input.remove(place)),
            4 => input.truncate(place),
            _ => {
                // The end of another.
                let other = fastrand::choice(seeds).map(Vec::as_slice).unwrap_or_default();
                input.truncate(place);
                input.extend(&other[fastrand::usize(0..=other.len())..]);
            }
        }
    }
    input.truncate(MAX_LENGTH);
    input
}

/// Dropped by a panic, it keeps the input.
struct Finding<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for Finding<'_> {
    fn drop(&mut self) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(self.name);
        let file = folder.join(format!("crash-smoke-{:016x}", fastrand::u64(..)));
        let kept = fs::create_dir_all(folder).and_then(|()| fs::write(&file, self.input));
        eprintln!("the input is in {}: {kept:?}", file.display());
    }
}
