//! A server in a process of its own, and the accounts that the operating system keeps of it.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use super::servers::{self, Subject};

/// Set for the processes that are servers, to the name and the read buffer of theirs.
const SERVER: &str = "SATELLITE_BENCH_SERVER";

/// Becomes a server, if this process is one.
pub(crate) fn become_server() {
    if let Ok(server) = env::var(SERVER) {
        let (subject, read_buffer) = server.split_once(' ').unwrap();
        servers::run(Subject::named(subject), read_buffer.parse().unwrap());
    }
}

/// A server that runs until this is dropped.
pub(crate) struct Process {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
}

/// What a process holds.
pub(crate) struct Holdings {
    /// Bytes that the program has allocated and not freed.
    pub(crate) heap: u64,
    /// Bytes of memory that it has from the operating system, other than its files.
    pub(crate) anonymous: u64,
    /// Tasks that have not ended.
    pub(crate) tasks: u64,
}

impl Process {
    pub(crate) fn start(subject: &Subject, read_buffer: usize) -> Process {
        let mut process = Command::new(env::current_exe().unwrap())
            .env(SERVER, format!("{} {read_buffer}", subject.name()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let questions = process.stdin.take().unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap());
        let address = line(&mut answers).parse().unwrap();
        Process { process, questions, answers, address }
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
        let statuses = self.of_each_thread("status");
        statuses.map(|status| field(&status, "voluntary_ctxt_switches:")).sum()
    }

    /// What it holds, once it is idle.
    pub(crate) fn holdings(&mut self) -> Holdings {
        self.settle();
        self.questions.write_all(b"\n").unwrap();
        let answer = line(&mut self.answers);
        let (heap, tasks) = answer.split_once(' ').unwrap();
        let smaps = fs::read_to_string(self.path("smaps_rollup")).unwrap();
        Holdings {
            heap: heap.parse().unwrap(),
            anonymous: field(&smaps, "Anonymous:") * 1024,
            tasks: tasks.parse().unwrap(),
        }
    }

    fn cpu_time_now(&self) -> Duration {
        let nanoseconds = |schedule: String| schedule.split(' ').next()?.parse::<u64>().ok();
        let schedules = self.of_each_thread("schedstat");
        Duration::from_nanos(schedules.map(|schedule| nanoseconds(schedule).unwrap()).sum())
    }

    fn of_each_thread(&self, file: &str) -> impl Iterator<Item = String> {
        let threads = fs::read_dir(self.path("task")).unwrap();
        threads.map(move |thread| fs::read_to_string(thread.unwrap().path().join(file)).unwrap())
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

fn line(answers: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    answers.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// The number behind a name, in a file of `/proc`.
fn field(file: &str, name: &str) -> u64 {
    let line = file.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
