//! Instructions per verification and per handshake, beside those of the bare cryptography.
//!
//! This program runs itself once under valgrind, which counts nothing but
//! `counted_by_callgrind`. Of each algorithm four things are counted, each as the mean of ten runs:
//!
//! | figure | what is counted |
//! |---|---|
//! | bare | the signature over the same bytes, checked by `aws-lc-rs` with a parsed key |
//! | verdict | `JwtAuthenticator::verify` on the token: text to identity |
//! | frames | the auth request decoded and the answer encoded, nothing else |
//! | handshake | everything of this crate without I/O: frame, auth request, verdict, answer |
//!
//! From run to run, ratios change in the fourth digit. Valgrind offers neither the SHA extensions
//! nor ADX and AVX-512, so hashes and big numbers cost more there than on a recent processor.

use std::{
    env, error::Error, fs, hint::black_box, io, path::Path, process::Command, time::Instant,
};

use bytes::Bytes;
use electric_satellite::wire::{
    Message, Reply, Request,
    proto::{SatAuthReq, SatAuthResp},
};

use super::{
    Measured,
    processes::{Role, SetRole},
    report::Row,
    scale::Scale,
    tokens::{NOW, Signed},
    without_io::{Operation, SERVER_ID, bare_verification, handshake},
};

/// Each count is the mean of so many runs, because hash tables differ from run to run.
const RUNS: u32 = 10;

pub(crate) fn measure(scale: &Scale) -> Measured {
    let cases = cases();
    if !scale.is_asked_for {
        operations(&cases).for_each(|operation| operation());
        return Ok(vec![]);
    }
    let Some(counts) = count(operations(&cases).count())? else {
        eprint!("valgrind is not installed, so nothing is counted … ");
        return Ok(vec![]);
    };
    Ok(cases.iter().zip(counts.chunks(4)).flat_map(|(case, counts)| case.rows(counts)).collect())
}

/// Does what is counted, in the process that valgrind watches.
pub(crate) fn run() {
    let cases = cases();
    // The first time is slower and not counted.
    operations(&cases).for_each(|operation| operation());
    operations(&cases).for_each(counted_by_callgrind);
}

fn cases() -> Vec<Case> {
    Signed::all().iter().map(Case::new).collect()
}

fn operations(cases: &[Case]) -> impl Iterator<Item = &Operation> {
    cases.iter().flat_map(|case| &case.operations)
}

/// What is counted of one algorithm.
struct Case {
    algorithm: String,
    /// How many times the bare cryptography a verification may cost.
    budget: Option<f64>,
    /// The bare cryptography, the verdict, the bare frames, the handshake.
    operations: [Operation; 4],
}

impl Case {
    fn new(signed: &Signed) -> Case {
        let budget = match &signed.algorithm[..2] {
            "HS" => Some(2.5),
            "RS" | "PS" => Some(1.4),
            "ES" | "Ed" => Some(1.1),
            _ => None,
        };
        let (token, frame) = (signed.token(), signed.frame(0));
        let authenticator = signed.authenticator();
        let verdict = move || {
            black_box(authenticator.verify(black_box(&token), NOW)).unwrap();
        };
        let frames = move || {
            black_box(decode_and_encode(black_box(frame.clone())));
        };
        let (authenticator, frame) = (signed.authenticator(), signed.frame(0));
        let (now, server_id) = (Instant::now(), SERVER_ID.into());
        let handshake = move || {
            black_box(handshake(now, &server_id, &authenticator, black_box(frame.clone())));
        };
        let bare = bare_verification(signed);
        Case {
            algorithm: signed.algorithm.clone(),
            budget,
            operations: [bare, Box::new(verdict), Box::new(frames), Box::new(handshake)],
        }
    }

    fn rows(&self, counts: &[f64]) -> Vec<Row> {
        let Case { algorithm, budget, .. } = self;
        let &[bare, verdict, _, handshake] = counts else { unreachable!() };
        let mut rows = vec![];
        if let Some(budget) = *budget {
            rows.push(
                Row::ratio(format!("{algorithm} verdict / bare"), verdict / bare).at_most(budget),
            );
            rows.push(Row::ratio(format!("{algorithm} handshake / bare"), handshake / bare));
        }
        let figures = ["bare", "verdict", "frames", "handshake"].into_iter().zip(counts);
        rows.extend(figures.map(|(figure, count)| {
            Row::new(format!("{algorithm} {figure}"), *count, "instructions")
        }));
        rows
    }
}

/// The frames of a handshake, without session and verdict.
fn decode_and_encode(frame: Bytes) -> (SatAuthReq, Bytes) {
    let Ok(Message::Request(envelope)) = Message::decode(frame) else { panic!() };
    let request_id = envelope.request_id;
    let Ok(Request::Authenticate(request)) = Request::decode(envelope) else { panic!() };
    let reply = SatAuthResp { id: request.id.clone(), headers: vec![] };
    (request, Reply::from(reply).encode(request_id).encode())
}

#[inline(never)]
fn counted_by_callgrind(operation: &Operation) {
    for _ in 0..RUNS {
        operation();
    }
    // The last call must not become a jump, which would leave the function too early.
    black_box(());
}

/// The counts of so many operations, by this program under valgrind; nothing without valgrind.
fn count(operations: usize) -> Result<Option<Vec<f64>>, Box<dyn Error>> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)?;
    let out = directory.join("callgrind.out");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_by_callgrind"])
        // Into a file of its own each time: callgrind.out.1 and so on.
        .arg("--dump-after=*counted_by_callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        .role(&Role::Counted)
        .output();
    let run = match run {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        run => run?,
    };
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into());
    }
    let profile = |number| fs::read_to_string(out.with_extension(format!("out.{number}")));
    let profiles: Result<Vec<_>, _> = (1..=operations).map(profile).collect();
    let profiles =
        profiles.map_err(|_| "valgrind did not find the function (stripped symbols?)")?;
    let counts: Result<_, _> = profiles.iter().map(|profile| mean(profile)).collect();
    counts.map(Some)
}

/// What one run took, by the profile of all.
fn mean(profile: &str) -> Result<f64, Box<dyn Error>> {
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: f64 = total.ok_or("a profile without a total")?.parse()?;
    Ok(total / f64::from(RUNS))
}
