//! A server as a child process.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use async_trait::async_trait;
use tempfile::TempDir;

use crate::clock::{LOOK_EVERY, Stopwatch, let_pass};
use crate::config::{Config, Mode};
use crate::engine::{Engine, LaunchError, STARTING};
use crate::process::OwnedProcess;
use crate::resp::{Reply, RespClient};

/// One server's binary, configuration and directory, and its process while it runs.
#[derive(Debug)]
pub(crate) struct Local {
    binary: PathBuf,
    config: Config,
    port: u16,
    // Before `dir`: fields drop in this order, and a live server would write into it.
    process: Option<OwnedProcess>,
    dir: TempDir,
}

impl Local {
    pub(crate) fn new(binary: PathBuf, config: Config, port: u16) -> Self {
        let dir = TempDir::with_prefix("nearfar-server-").expect("the temporary folder is writable");
        Self { binary, config, port, process: None, dir }
    }

    fn process(&self) -> &OwnedProcess {
        self.process.as_ref().expect("the server was killed or stopped: restart it first")
    }

    fn spawn(&self) -> io::Result<OwnedProcess> {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let mut command = Command::new(&self.binary);
        command.arg(self.config_file());
        if self.config.mode == Mode::Sentinel {
            command.arg("--sentinel");
        }
        OwnedProcess::spawn(command.stdout(log.try_clone()?).stderr(log), Some(self.dir.path()))
    }

    /// The server itself writes to its file what it is told to remember, such as whose replica it is.
    fn configure(&self) -> io::Result<()> {
        fs::create_dir_all(self.data())?;
        if self.config_file().exists() {
            return Ok(());
        }
        let (port, data) = (self.port, self.data());
        let address = format!("port {port}\nbind 127.0.0.1\ndir \"{}\"\n", data.display());
        fs::write(self.config_file(), address + &self.config.text())
    }

    fn config_file(&self) -> PathBuf {
        self.file("server.conf")
    }

    fn data(&self) -> PathBuf {
        self.file("data")
    }

    fn log_file(&self) -> PathBuf {
        self.file("server.log")
    }

    fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[async_trait]
impl Engine for Local {
    async fn launch(&mut self) -> Result<(), LaunchError> {
        self.process = None;
        self.configure().map_err(LaunchError::Spawn)?;
        let process = self.spawn().map_err(LaunchError::Spawn)?;
        self.process = Some(ready(process, self.port).await?);
        Ok(())
    }

    fn pid(&self) -> u32 {
        self.process().id()
    }

    async fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    async fn kill(&mut self) {
        self.process = None;
    }

    async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        process.terminate().expect("the server is ours to signal");
        // A paused process does not hear of it until it runs.
        process.resume().expect("the server is ours to signal");
        while process.ended().is_none() {
            let_pass(LOOK_EVERY).await;
        }
    }

    async fn pause(&self) {
        self.process().pause().expect("the server is ours to pause");
    }

    async fn resume(&self) {
        self.process().resume().expect("the server is ours to resume");
    }

    async fn wipe(&mut self) {
        self.process = None;
        fs::remove_dir_all(self.data()).expect("the data folder is ours to remove");
    }
}

/// Waits until the process itself, and no other on the same port, accepts commands.
async fn ready(mut process: OwnedProcess, port: u16) -> Result<OwnedProcess, LaunchError> {
    let waited = Stopwatch::start();
    while waited.elapsed() < STARTING {
        if let Some(status) = process.ended() {
            return Err(LaunchError::Exited(status));
        }
        match who_serves(port).await {
            Ok(Some(id)) if id == process.id() => return Ok(process),
            Ok(Some(_)) => return Err(LaunchError::Foreign),
            Ok(None) | Err(_) => let_pass(LOOK_EVERY).await,
        }
    }
    Err(LaunchError::Silent)
}

/// The process id of the server on this port, once it has loaded its data.
async fn who_serves(port: u16) -> io::Result<Option<u32>> {
    let mut client = RespClient::connect(port).await?;
    let info = client.command(&["INFO", "server"]).await?;
    let loaded = client.command(&["PING"]).await? == Reply::Simple("PONG".to_owned());
    Ok(info.text().and_then(process_id).filter(|_| loaded))
}

fn process_id(info: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix("process_id:"))?.parse().ok()
}

#[cfg(all(test, not(feature = "docker")))]
mod tests {
    use crate::config::{Config, Mode};
    use crate::engine;
    use crate::ports::Reservation;

    /// It has happened: a server that a killed test had left behind answered in place of the one that had
    /// failed to take its port.
    #[tokio::test]
    async fn a_server_is_not_taken_for_another_on_the_same_port() {
        let port = Reservation::take();
        let mut first = engine::find(Config::new(Mode::Server), port.port());
        let mut second = engine::find(Config::new(Mode::Server), port.port());
        first.launch().await.expect("the port is free");
        second.launch().await.expect_err("the port is taken");
    }
}
