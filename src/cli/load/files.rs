//! The limit of open files, which every connection counts against.

/// What the process opens beside connections.
const OTHERS: u64 = 64;

/// Makes room for so many connections, up to the hard limit.
///
/// # Errors
///
/// There is no room for so many.
#[cfg(unix)]
pub(super) fn make_room(connections: u64) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(limit) = current else { return Ok(()) };
    let needed = connections.saturating_add(OTHERS);
    if needed <= limit {
        return Ok(());
    }
    if let Some(hard) = maximum.filter(|hard| *hard < needed) {
        let most = hard.saturating_sub(OTHERS);
        return Err(format!(
            "--connections {connections}: this process may have {hard} open files, which is enough \
             for {most}. Take fewer, or raise the hard limit (ulimit -Hn)"
        ));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .map_err(|error| format!("the limit of open files cannot be raised to {needed}: {error}"))
}

#[cfg(not(unix))]
pub(super) fn make_room(_: u64) -> Result<(), String> {
    Ok(())
}
