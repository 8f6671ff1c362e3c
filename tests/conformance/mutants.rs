//! Wrong on purpose: servers and clients of this crate behind something that alters, drops, repeats
//! or delays what passes. Each must be caught by a case that names the rule it breaks.

/// A list of mutants: what each does, which cases must catch it, and how it is made.
macro_rules! mutants {
    ($($name:literal caught by [$($id:literal),+] = $tamper:expr;)*) => {
        pub(super) const MUTANTS: &[Mutant] = &[$(Mutant {
            name: $name,
            caught_by: &[$($id),+],
            tamper: || Box::new($tamper),
        },)*];
    };
}

mod clients;
pub(super) mod proxy;
mod servers;

use std::sync::Mutex;

use electric_satellite::{
    conformance::{Case, Outcome, client_cases, server_cases},
    wire::{
        Message, Request,
        proto::{SatAuthReq, SatRpcRequest, SatRpcResponse},
    },
};
use libtest_mimic::{Failed, Trial};

use proxy::{Frame, Pass, Tamper};

/// Makes what alters one connection.
type Tampering = fn() -> Box<dyn Tamper>;

/// Something wrong, and the cases that must find it.
pub(super) struct Mutant {
    /// What it does.
    name: &'static str,
    /// The cases that name the rule it breaks: each must fail.
    caught_by: &'static [&'static str],
    /// Alters what passes through one connection.
    tamper: Tampering,
}

/// Which cases caught which mutant.
static TABLE: Mutex<Vec<(String, Vec<String>)>> = Mutex::new(vec![]);

pub(super) fn trials() -> Vec<Trial> {
    let servers =
        servers::MUTANTS.iter().map(|mutant| one("server", mutant, server_cases(), servers::run));
    let clients =
        clients::MUTANTS.iter().map(|mutant| one("client", mutant, client_cases(), clients::run));
    servers.chain(clients).collect()
}

fn one(
    side: &'static str,
    mutant: &'static Mutant,
    cases: Vec<Case>,
    run: fn(&Case, Tampering) -> Outcome,
) -> Trial {
    Trial::test(format!("mutant::{side}::{}", mutant.name), move || {
        let failed: Vec<&str> = cases
            .iter()
            .filter(|case| mutant.caught_by.contains(&case.id))
            .filter(|case| run(case, mutant.tamper).is_fail())
            .map(|case| case.id)
            .collect();
        let row =
            (format!("{side}: {}", mutant.name), failed.iter().map(|id| (*id).into()).collect());
        TABLE.lock().expect("no panic").push(row);
        match mutant.caught_by.iter().find(|id| !failed.contains(id)) {
            None => Ok(()),
            Some(id) => Err(Failed::from(format!("{id} does not fail; {failed:?} do"))),
        }
    })
}

/// Prints which cases caught which mutant.
pub(super) fn print_table() {
    let mut table = TABLE.lock().expect("no panic");
    table.sort();
    for (mutant, cases) in table.iter() {
        println!("{mutant:<64} {}", cases.join(" "));
    }
}

/// Alters the answers to calls.
fn answers(frame: Frame, change: fn(SatRpcResponse) -> Vec<SatRpcResponse>) -> Vec<Pass> {
    match frame.message() {
        Some(Message::Response(response)) => change(response)
            .into_iter()
            .map(|response| Pass::On(frame.with(&response.into())))
            .collect(),
        _ => vec![Pass::On(frame)],
    }
}

/// Alters frames of one opcode.
fn of_opcode(frame: Frame, opcode: u8, change: fn(Frame) -> Vec<Pass>) -> Vec<Pass> {
    match frame.is(opcode) {
        true => change(frame),
        false => vec![Pass::On(frame)],
    }
}

/// Changes what a client presents.
fn presenting(request: SatRpcRequest, change: fn(SatAuthReq) -> SatAuthReq) -> SatRpcRequest {
    let request_id = request.request_id;
    let changed = match Request::decode(request.clone()) {
        Ok(Request::Authenticate(auth)) => Request::from(change(auth)).encode(request_id),
        _ => return request,
    };
    let Message::Request(changed) = changed else { return request };
    changed
}
