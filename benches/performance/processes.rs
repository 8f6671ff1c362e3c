//! Processes of their own, and the accounts that the operating system keeps of them.

use std::{
    cell::RefCell,
    collections::HashMap,
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{self, Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, Lines, Stdin, stdin};

use super::{
    flood, instructions,
    servers::{self, Subject},
};

/// Set for processes that play a role, to the role.
const ROLE: &str = "SATELLITE_BENCH_ROLE";

/// What this program is when it is not the bench itself.
#[derive(Serialize, Deserialize)]
pub(crate) enum Role {
    /// A server that is measured.
    Server(Subject),
    /// What floods a server, from many addresses.
    Attackers(flood::Target),
    /// What is counted by valgrind.
    Counted,
}

/// Plays the role of this process and ends it, if it has one.
pub(crate) fn play_role() {
    let Ok(role) = env::var(ROLE) else { return };
    match serde_json::from_str(&role).unwrap() {
        Role::Server(subject) => servers::run(subject),
        Role::Attackers(target) => flood::run(target),
        Role::Counted => instructions::run(),
    }
    process::exit(0)
}

/// The questions that a process is asked, line by line.
pub(crate) type Questions = Lines<tokio::io::BufReader<Stdin>>;

pub(crate) fn questions() -> Questions {
    tokio::io::BufReader::new(stdin()).lines()
}

pub(crate) trait SetRole {
    /// Gives a process that is this program its role.
    fn role(&mut self, role: &Role) -> &mut Self;
}

impl SetRole for Command {
    fn role(&mut self, role: &Role) -> &mut Self {
        self.env(ROLE, serde_json::to_string(role).unwrap())
    }
}

/// A process that runs until this is dropped, and answers each line that it is told by one.
pub(crate) struct Process {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(role: &Role) -> Process {
        let mut process = Command::new(env::current_exe().unwrap())
            .role(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let questions = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Process { process, questions, answers }
    }

    pub(crate) fn ask(&mut self, question: &str) -> String {
        writeln!(self.questions, "{question}").unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The threads, but for those that end meanwhile, and what a file says of each.
    fn of_each_thread(&self, file: &str) -> impl Iterator<Item = (OsString, String)> {
        let threads = fs::read_dir(self.path("task")).unwrap();
        threads.filter_map(move |thread| {
            let thread = thread.ok()?;
            Some((thread.file_name(), fs::read_to_string(thread.path().join(file)).ok()?))
        })
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.process.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server in a process of its own.
pub(crate) struct ServerProcess {
    process: Process,
    pub(crate) address: SocketAddr,
    /// How many nanoseconds each thread has been on a processor, when last looked at. One that verifies
    /// aside ends when it was idle for long, and its account with it.
    threads: RefCell<HashMap<OsString, u64>>,
}

/// What a process holds.
pub(crate) struct Holdings {
    /// Bytes of memory that it has from the operating system, other than its files.
    pub(crate) memory: u64,
    /// Tasks that have not ended.
    pub(crate) tasks: u64,
}

impl ServerProcess {
    pub(crate) fn start(subject: &Subject) -> ServerProcess {
        let mut process = Process::start(&Role::Server(subject.clone()));
        let address = process.line().parse().unwrap();
        ServerProcess { process, address, threads: RefCell::default() }
    }

    /// How long it has been on a processor, once it is idle.
    pub(crate) fn cpu_time(&self) -> Duration {
        let mut before = self.cpu_time_now();
        loop {
            sleep(Duration::from_millis(4));
            let now = self.cpu_time_now();
            if now == before {
                return now;
            }
            before = now;
        }
    }

    /// Waits until it is idle.
    pub(crate) fn settle(&self) {
        self.cpu_time();
    }

    /// How often it has gone to sleep, and so been woken, once it is idle.
    pub(crate) fn sleeps(&self) -> u64 {
        self.settle();
        let statuses = self.process.of_each_thread("status");
        statuses.map(|(_, status)| field(&status, "voluntary_ctxt_switches:")).sum()
    }

    /// What it holds, once it is idle.
    pub(crate) fn holdings(&mut self) -> Holdings {
        self.settle();
        let tasks = self.process.ask("").parse().unwrap();
        let smaps = fs::read_to_string(self.process.path("smaps_rollup")).unwrap();
        Holdings { memory: field(&smaps, "Anonymous:") * 1024, tasks }
    }

    /// How long it has been on a processor until now.
    pub(crate) fn cpu_time_now(&self) -> Duration {
        let nanoseconds = |schedule: &str| schedule.split(' ').next()?.parse::<u64>().ok();
        let mut threads = self.threads.borrow_mut();
        for (thread, schedule) in self.process.of_each_thread("schedstat") {
            threads.insert(thread, nanoseconds(&schedule).unwrap());
        }
        Duration::from_nanos(threads.values().sum())
    }
}

/// The number behind a name, in a file of `/proc`.
fn field(file: &str, name: &str) -> u64 {
    let line = file.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
