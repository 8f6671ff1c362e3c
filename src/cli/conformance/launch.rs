//! A client under test as a process.

use std::{
    ffi::OsString,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use electric_satellite::conformance::{Connections, Exit, Invitation, Launch, Launched};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpListener,
    process::{Child, Command},
    runtime::Handle,
    select,
    time::timeout,
};

/// What a client exits with that does not do what `SATELLITE_TASK` says.
const UNABLE: i32 = 77;

/// How long a client may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts a command for each case.
pub(super) struct Launcher {
    pub(super) command: Vec<OsString>,
}

impl Launch for Launcher {
    fn launch(&self, invitation: Invitation) -> BoxFuture<'_, io::Result<Launched>> {
        async move {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let process = Process::start(&self.command, &invitation, &listener)?;
            Ok(Launched::new(|connections| run(process, listener, connections)))
        }
        .boxed()
    }
}

/// A process and those that it has started, which end with it.
struct Process {
    child: Child,
    /// The number of its group, which is its own.
    group: Option<i32>,
}

impl Process {
    fn start(
        command: &[OsString],
        invitation: &Invitation,
        listener: &TcpListener,
    ) -> io::Result<Process> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::other("there is no command"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("SATELLITE_URL", format!("ws://{}", listener.local_addr()?))
            .env("SATELLITE_TOKEN", invitation.token.expose())
            .env("SATELLITE_CLIENT_ID", invitation.client_id.as_str())
            .env("SATELLITE_TASK", invitation.task.name())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Process { child, group })
    }

    /// Asks it to end.
    fn terminate(&mut self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::TERM);
        #[cfg(not(unix))]
        let _ = self.child.start_kill();
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) {
        let group = self.group.and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            // If it is gone already, that is what was wanted.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::KILL);
    }
}

/// A process that is asked to end when nobody looks at it any more, and killed if it does not.
struct Running(Option<Process>);

impl Drop for Running {
    fn drop(&mut self) {
        if let (Some(mut process), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            process.terminate();
            runtime.spawn(async move {
                let _ = timeout(PATIENCE, process.child.wait()).await;
            });
        }
    }
}

/// Hands over its connections and its words until it exits.
async fn run(mut process: Process, listener: TcpListener, connections: Connections) -> Exit {
    let outputs = [
        process.child.stdout.take().map(|output| Box::new(output) as Output),
        process.child.stderr.take().map(|output| Box::new(output) as Output),
    ];
    for output in outputs.into_iter().flatten() {
        tokio::spawn(keep(output, connections.clone()));
    }
    let mut running = Running(Some(process));
    let mut is_asked = false;
    loop {
        let Running(Some(process)) = &mut running else {
            return Exit::Failure("it is gone".into());
        };
        select! {
            // What it has connected before it exits counts.
            biased;
            stream = listener.accept() => match stream {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    connections.push(stream).await;
                }
                Err(error) => return Exit::Failure(format!("cannot accept: {error}")),
            },
            status = process.child.wait() => return exit(status),
            () = connections.ended(), if !is_asked => {
                is_asked = true;
                process.terminate();
            }
        }
    }
}

fn exit(status: io::Result<ExitStatus>) -> Exit {
    match status {
        Ok(status) if status.success() => Exit::Success,
        Ok(status) if status.code() == Some(UNABLE) => Exit::Unable,
        Ok(status) => Exit::Failure(status.to_string()),
        Err(error) => Exit::Failure(error.to_string()),
    }
}

type Output = Box<dyn AsyncRead + Send + Unpin>;

/// Keeps what it prints for the record, and reads on when that is full.
async fn keep(output: Output, connections: Connections) {
    let mut output = BufReader::new(output);
    loop {
        // A line, or as much of it as anyone will look at.
        let line = match output.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(bytes) => match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => &bytes[..=end],
                None => bytes,
            },
        };
        let length = line.len();
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        output.consume(length);
        if !text.is_empty() {
            connections.remark(format!("it prints: {text}"));
        }
    }
}
