//! A child process that does not outlive its test.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use crate::container::Container;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// A running process, which may be that of a container. Dropping it kills it. Its directory, if it has one, outlives
/// it, for a restart, unless this process dies too.
#[derive(Debug)]
pub(crate) struct OwnedProcess {
    child: Child,
    container: Option<Container>,
    guardian: Guardian,
}

impl OwnedProcess {
    pub(crate) fn spawn(
        command: &mut Command,
        dir: Option<&Path>,
        container: Option<Container>,
    ) -> io::Result<Self> {
        let mut child = in_own_group(command).stdin(Stdio::null()).spawn()?;
        match Guardian::watch(&child, dir, container.as_ref()) {
            Ok(guardian) => Ok(Self { child, container, guardian }),
            Err(error) => {
                kill(&mut child, container.as_ref());
                child.wait()?;
                Err(error)
            }
        }
    }

    /// What the process prints, if that is piped and was not taken before.
    pub(crate) fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    /// What it runs in, if it does: `docker run`, which is the process here, hands no SIGSTOP on.
    pub(crate) fn container(&self) -> Option<&Container> {
        self.container.as_ref()
    }

    /// Stops the process in its tracks, and returns when it has stopped.
    pub(crate) fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        // NOWAIT leaves an exit, if that is what happened instead, for `Child` to collect.
        let events = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), events)?;
        Ok(())
    }

    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks the process to end. A paused one is resumed, or it would not hear.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        self.signal(Signal::CONT)
    }

    /// Asks the process to end at once (SIGINT).
    pub(crate) fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::INT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for OwnedProcess {
    fn drop(&mut self) {
        // The guardian retires before `wait` gives the id back to the system: it must never kill a stranger that was
        // given the same one. Errors mean that the process has ended already, and a panic here would hide the one of
        // the test.
        kill(&mut self.child, self.container.as_ref());
        self.guardian.retire();
        let _ = self.child.wait();
    }
}

/// SIGKILL also ends a paused process. The child of a container ends with it, once it has passed on the log.
fn kill(child: &mut Child, container: Option<&Container>) {
    if container.is_none_or(|container| container.remove().is_err()) {
        let _ = child.kill();
    }
}

/// Kills a process, and removes its directory, when this one dies without running destructors: by a signal, or by leaving a
/// handle in a `static`.
///
/// A shell waits on a pipe whose other end only this process holds. A line means "retire"; the end of
/// the file means that this process is gone.
#[derive(Debug)]
struct Guardian {
    shell: Child,
}

impl Guardian {
    fn watch(child: &Child, dir: Option<&Path>, container: Option<&Container>) -> io::Result<Self> {
        let script = r#"dir=$1; shift; read -r line || { "$@"; rm -rf ${dir:+"$dir"}; }"#;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, "nearfar-guardian"]);
        command.arg(dir.unwrap_or(Path::new("")));
        match container {
            Some(container) => command.args(container.removal()),
            None => command.args(["kill", "-9", &child.id().to_string()]),
        };
        let shell = in_own_group(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { shell })
    }

    fn retire(&mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            let _ = pipe.write_all(b"retire\n");
        }
        let _ = self.shell.wait();
    }
}

/// Ctrl-C in a terminal goes to the whole foreground group. It must reach the test only: a guardian
/// that died of it would leave a paused server behind.
fn in_own_group(command: &mut Command) -> &mut Command {
    command.process_group(0)
}
