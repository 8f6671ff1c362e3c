//! Instructions per verification and per handshake, beside those of the bare cryptography.
//!
//! The bench runs itself under valgrind, which counts nothing but `counted_by_callgrind`.

mod common;

use std::{
    env, error::Error, fs, hint::black_box, io, path::Path, process::Command, time::Instant,
};

use aws_lc_rs::{
    hmac,
    signature::{self, ParsedPublicKey, VerificationAlgorithm},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use electric_satellite::wire::{
    Message, Reply, Request,
    proto::{SatAuthReq, SatAuthResp},
};

use common::{NOW, SERVER_ID, Signed, handshake};

/// Set for the run under valgrind.
const COUNTED: &str = "SATELLITE_BENCH_COUNTED";

/// Each count is the mean of so many runs, because hash tables differ from run to run.
const RUNS: u32 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let cases: Vec<Case> = Signed::all().iter().map(Case::new).collect();
    let operations: Vec<&Operation> = cases.iter().flat_map(|case| &case.operations).collect();
    let asked = |argument| env::args().any(|given| given == argument);
    // The first time is slower and not counted. It is all that `cargo test` does.
    operations.iter().for_each(|operation| operation());
    if env::var_os(COUNTED).is_some() {
        operations.iter().for_each(|operation| counted_by_callgrind(operation));
    } else if asked("--time") {
        println!("nanoseconds, shortest of many");
        let times: Vec<f64> = operations.iter().map(|operation| time(operation)).collect();
        report(&cases, &times);
    } else if asked("--bench") {
        println!("instructions");
        let exceeded = report(&cases, &count(operations.len())?);
        if !exceeded.is_empty() {
            return Err(format!("over budget: {exceeded:?}").into());
        }
    }
    Ok(())
}

type Operation = Box<dyn Fn()>;

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
        Case {
            algorithm: signed.algorithm.clone(),
            budget,
            operations: [bare(signed), Box::new(verdict), Box::new(frames), Box::new(handshake)],
        }
    }
}

/// The signature over the same bytes, by the library alone and with a parsed key.
fn bare(signed: &Signed) -> Operation {
    let token = signed.token();
    let (message, signature) = token.expose().rsplit_once('.').unwrap();
    let message = message.to_owned().into_bytes();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let algorithm: &'static dyn VerificationAlgorithm = match signed.algorithm.as_str() {
        "none" => return Box::new(|| {}),
        "HS256" => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, signed.key.as_bytes());
            return Box::new(move || hmac::verify(&key, &message, &signature).unwrap());
        }
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "ES256" => &signature::ECDSA_P256_SHA256_FIXED,
        "ES384" => &signature::ECDSA_P384_SHA384_FIXED,
        "ES512" => &signature::ECDSA_P521_SHA512_FIXED,
        "EdDSA" => &signature::ED25519,
        other => panic!("no bare {other}"),
    };
    let base64: String = signed.key.lines().filter(|line| !line.starts_with('-')).collect();
    let key = ParsedPublicKey::new(algorithm, STANDARD.decode(base64).unwrap()).unwrap();
    Box::new(move || key.verify_sig(&message, &signature).unwrap())
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

/// The counts of so many operations, by this program under valgrind.
fn count(operations: usize) -> Result<Vec<f64>, Box<dyn Error>> {
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
        .env(COUNTED, "1")
        .output();
    let run = match run {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("this bench needs valgrind, which is not installed".into());
        }
        run => run?,
    };
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into());
    }
    let profile = |number| fs::read_to_string(out.with_extension(format!("out.{number}")));
    let profiles: Result<Vec<_>, _> = (1..=operations).map(profile).collect();
    let profiles =
        profiles.map_err(|_| "valgrind did not find the function (stripped symbols?)")?;
    profiles.iter().map(|profile| mean(profile)).collect()
}

/// What one run took, by the profile of all.
fn mean(profile: &str) -> Result<f64, Box<dyn Error>> {
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: f64 = total.ok_or("a profile without a total")?.parse()?;
    Ok(total / f64::from(RUNS))
}

/// The shortest of many times: a machine that is busy with other things only makes them longer.
fn time(operation: &Operation) -> f64 {
    let nanoseconds = || {
        let start = Instant::now();
        (0..RUNS).for_each(|_| operation());
        start.elapsed().as_nanos() as f64 / f64::from(RUNS)
    };
    std::iter::repeat_with(nanoseconds).take(100).fold(f64::INFINITY, f64::min)
}

/// Prints the table and returns the algorithms that exceed their budget.
fn report<'a>(cases: &'a [Case], costs: &[f64]) -> Vec<&'a str> {
    println!("           verdict/bare   handshake");
    println!("algorithm  is     budget      /bare     bare  verdict   frames  handshake");
    let mut exceeded = vec![];
    for (Case { algorithm, budget, .. }, costs) in cases.iter().zip(costs.chunks(4)) {
        let &[bare, verdict, frames, handshake] = costs else { unreachable!() };
        let ratios = match budget {
            Some(budget) => {
                format!("{:<5.3}  {budget:<6}  {:>9.3}", verdict / bare, handshake / bare)
            }
            None => String::new(),
        };
        print!("{algorithm:<9}  {ratios:<24}");
        println!("  {bare:>7.0}  {verdict:>7.0}  {frames:>7.0}  {handshake:>9.0}");
        if budget.is_some_and(|budget| verdict / bare > budget) {
            exceeded.push(algorithm.as_str());
        }
    }
    exceeded
}
