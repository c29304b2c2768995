//! A program under test in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::process::OwnedProcess;

/// A process of the test's own, that can be stopped in its tracks. Dropping it kills it; if the test itself is killed, a
/// guardian process does.
///
/// ```
/// use std::process::Command;
/// use nearfar_testkit::Program;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut command = Command::new("/bin/sh");
/// command.args(["-c", "echo ready; exec sleep 3600"]);
/// let mut program = Program::start(command);
/// assert_eq!(program.line().await.as_deref(), Some("ready"));
///
/// program.kill();
/// assert_eq!(program.line().await, None);
/// # }
/// ```
#[derive(Debug)]
pub struct Program {
    process: Option<OwnedProcess>,
    lines: UnboundedReceiver<String>,
}

impl Program {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it cannot be run.
    pub fn start(mut command: Command) -> Self {
        let mut process =
            OwnedProcess::spawn(command.stdout(Stdio::piped()), None, None).expect("the program can be run");
        let output = process.take_output().expect("the output is piped");
        Self { process: Some(process), lines: lines_of(output) }
    }

    /// The next line that it prints; `None` once it has ended.
    pub async fn line(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// Freezes it (SIGSTOP). It has stopped when this returns.
    ///
    /// # Panics
    ///
    /// If it was killed.
    pub fn pause(&self) {
        self.process().pause().expect("the process is ours to pause");
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Panics
    ///
    /// If it was killed.
    pub fn resume(&self) {
        self.process().resume().expect("the process is ours to resume");
    }

    /// Ends it without a warning (SIGKILL). What it has printed can still be read.
    pub fn kill(&mut self) {
        self.process = None;
    }

    fn process(&self) -> &OwnedProcess {
        self.process.as_ref().expect("the program was killed")
    }
}

/// Reads on a thread of its own, which ends with the output.
fn lines_of(output: ChildStdout) -> UnboundedReceiver<String> {
    let (to_test, lines) = unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if to_test.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
