//! How much is measured.

use std::time::Duration;

use super::machine::open_files;

/// How much each section does.
pub(crate) struct Scale {
    /// How often each server has its turn, beside a first one that is not counted.
    pub(crate) rounds: usize,
    /// How many connections a turn has.
    pub(crate) turn: usize,
    /// How many connections live at the same time.
    pub(crate) connections: usize,
    /// How long they are watched doing nothing.
    pub(crate) idle: Duration,
    /// How many connections are cut at once, and how often.
    pub(crate) cut: usize,
    pub(crate) storms: usize,
    /// How many messages a stream has at most, and how many bytes.
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) streams: usize,
    /// How many honest handshakes there are without a flood, and with one; and how often.
    pub(crate) honest: u32,
    pub(crate) floods: usize,
    /// How many connections are open while it is measured what one more costs.
    pub(crate) open: Vec<usize>,
    /// Whether this is a benchmark, and not only a test that it works.
    pub(crate) is_asked_for: bool,
    /// Whether it is enough to fail if a budget is exceeded.
    pub(crate) is_judged: bool,
}

impl Scale {
    /// Some seconds with `--quick`; and next to nothing without `--bench`, which `cargo test`
    /// leaves out.
    pub(crate) fn asked_for(arguments: &[String]) -> Scale {
        let asked = |argument| arguments.iter().any(|given| given == argument);
        let scale = match (asked("--bench"), asked("--quick")) {
            (false, _) => Scale::trivial(),
            (true, true) => Scale::quick(),
            (true, false) => Scale::full(),
        };
        scale.within(open_files())
    }

    fn full() -> Scale {
        Scale {
            rounds: 100,
            turn: 500,
            connections: 10_000,
            idle: Duration::from_secs(5),
            cut: 5_000,
            storms: 10,
            messages: 40_000,
            bytes: 128 * 1024 * 1024,
            streams: 50,
            honest: 800,
            floods: 3,
            open: vec![100, 1_000, 10_000],
            is_asked_for: true,
            is_judged: true,
        }
    }

    fn quick() -> Scale {
        Scale {
            rounds: 3,
            turn: 100,
            connections: 500,
            idle: Duration::from_millis(500),
            cut: 500,
            storms: 2,
            messages: 10_000,
            bytes: 16 * 1024 * 1024,
            streams: 2,
            honest: 100,
            floods: 1,
            open: vec![100, 500],
            is_judged: false,
            ..Scale::full()
        }
    }

    fn trivial() -> Scale {
        Scale {
            rounds: 1,
            turn: 1,
            connections: 1,
            idle: Duration::ZERO,
            cut: 2,
            storms: 1,
            messages: 10,
            streams: 1,
            honest: 1,
            floods: 1,
            open: vec![1, 2],
            is_asked_for: false,
            is_judged: false,
            ..Scale::full()
        }
    }

    /// With no more connections than files can be open in one process.
    fn within(mut self, files: usize) -> Scale {
        let possible = files.saturating_sub(200);
        if possible < self.connections {
            eprintln!("no more than {possible} connections: the limit of open files is in the way");
        }
        self.connections = self.connections.min(possible);
        // There are two servers of each.
        self.cut = self.cut.min(possible / 2);
        self.open.retain(|open| open + self.turn <= possible);
        self
    }
}
