//! The life of a server: its folder, and its process while it runs.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::choice::Choice;
use crate::clock::{LOOK_EVERY, Stopwatch, let_pass};
use crate::config::{Config, Mode};
use crate::container::Container;
use crate::door::Door;
use crate::process::OwnedProcess;
use crate::resp::{Reply, RespClient};

/// How long a server may take to accept commands. Ten milliseconds is usual.
const STARTING: Duration = Duration::from_secs(20);

/// One server. The methods are those of [`RedisServer`](crate::RedisServer), and are documented there.
#[derive(Debug)]
pub(crate) struct Engine {
    choice: Choice,
    config: Config,
    door: Door,
    // Before `dir`: fields drop in this order, and a live server would write into it.
    process: Option<OwnedProcess>,
    dir: TempDir,
}

/// Why a server did not come up.
#[derive(Debug)]
pub(crate) enum LaunchError {
    Spawn(io::Error),
    Exited(ExitStatus),
    /// The port answers, but not from our process.
    Foreign,
    Silent,
}

impl Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => write!(f, "it cannot be run: {error}"),
            Self::Exited(status) => write!(f, "it ended at once, with {status}"),
            Self::Foreign => write!(f, "another server has its port"),
            Self::Silent => write!(f, "it accepted no command within {STARTING:?}"),
        }
    }
}

impl Engine {
    /// # Panics
    ///
    /// If there is no server to be had.
    pub(crate) fn new(config: Config, door: Door, dir: TempDir) -> Self {
        Self { choice: Choice::made(), config, door, process: None, dir }
    }

    pub(crate) fn door(&self) -> &Door {
        &self.door
    }

    /// A folder for what belongs to one server. One that is watched must not stand still because a disk is slow to sync:
    /// its folder is in memory, where that is to be had.
    pub(crate) fn folder(config: &Config) -> TempDir {
        let prefix = "nearfar-server-";
        let in_memory = config.watched.then(|| TempDir::with_prefix_in(prefix, "/dev/shm").ok()).flatten();
        in_memory.unwrap_or_else(|| TempDir::with_prefix(prefix).expect("the temporary folder is writable"))
    }

    /// Starts the server with the data it has, and returns when it accepts commands.
    pub(crate) async fn launch(&mut self) -> Result<(), LaunchError> {
        self.process = None;
        self.configure().map_err(LaunchError::Spawn)?;
        let process = self.spawn().map_err(LaunchError::Spawn)?;
        self.process = Some(self.ready(process).await?);
        Ok(())
    }

    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    pub(crate) async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            spawn_blocking(|| drop(process)).await.expect("a drop does not panic");
        }
    }

    pub(crate) async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let asked = match process.container() {
            Some(container) => container.terminate().await,
            None => process.terminate(),
        };
        asked.expect("the server is ours to end");
        while process.ended().is_none() {
            let_pass(LOOK_EVERY).await;
        }
    }

    pub(crate) async fn pause(&self) {
        let process = self.process();
        let paused = match process.container() {
            Some(container) => container.pause().await,
            None => process.pause(),
        };
        paused.expect("the server is ours to pause");
    }

    pub(crate) async fn resume(&self) {
        let process = self.process();
        let resumed = match process.container() {
            Some(container) => container.resume().await,
            None => process.resume(),
        };
        resumed.expect("the server is ours to resume");
    }

    /// Kills the server and removes all that it has stored.
    pub(crate) async fn wipe(&mut self) {
        self.kill().await;
        fs::remove_dir_all(self.data()).expect("the data folder is ours to remove");
    }

    fn process(&self) -> &OwnedProcess {
        self.process.as_ref().expect("the server was killed or stopped: restart it first")
    }

    fn spawn(&self) -> io::Result<OwnedProcess> {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let (mut command, container) = self.command();
        command.arg(self.config_file());
        if self.config.mode == Mode::Sentinel {
            command.arg("--sentinel");
        }
        OwnedProcess::spawn(command.stdout(log.try_clone()?).stderr(log), Some(self.dir.path()), container)
    }

    fn command(&self) -> (Command, Option<Container>) {
        match &self.choice {
            Choice::Binary(binary) => (Command::new(binary), None),
            Choice::Docker => {
                let container = Container::new();
                (container.run(self.dir.path()), Some(container))
            }
        }
    }

    /// The server itself writes to its file what it is told to remember, such as whose replica it is.
    fn configure(&self) -> io::Result<()> {
        fs::create_dir_all(self.data())?;
        if self.config_file().exists() {
            return Ok(());
        }
        let mut config = Config::new(self.config.mode);
        self.door.open(&mut config);
        let place = format!("bind 127.0.0.1\ndir \"{}\"\n", self.data().display());
        fs::write(self.config_file(), config.text() + &place + &self.config.text())
    }

    /// Waits until the process itself, and no other behind the same door, accepts commands.
    async fn ready(&self, mut process: OwnedProcess) -> Result<OwnedProcess, LaunchError> {
        let waited = Stopwatch::start();
        while waited.elapsed() < STARTING {
            if let Some(status) = process.ended() {
                return Err(LaunchError::Exited(status));
            }
            match who_serves(&self.door).await {
                Ok(Some(file)) if file == self.config_file() => return Ok(process),
                Ok(Some(_)) => return Err(LaunchError::Foreign),
                Ok(None) | Err(_) => let_pass(LOOK_EVERY).await,
            }
        }
        Err(LaunchError::Silent)
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

/// The configuration file of the server behind this door, once it has loaded its data: no two servers have the same.
async fn who_serves(door: &Door) -> io::Result<Option<PathBuf>> {
    let mut client = RespClient::through(door).await?;
    let info = client.command(&["INFO", "server"]).await?;
    let loaded = client.command(&["PING"]).await? == Reply::Simple("PONG".to_owned());
    Ok(info.text().and_then(config_file).filter(|_| loaded))
}

fn config_file(info: &str) -> Option<PathBuf> {
    info.lines().find_map(|line| line.strip_prefix("config_file:")).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Reservation;

    /// It has happened: a server that a killed test had left behind answered in place of the one that had
    /// failed to take its port.
    #[tokio::test]
    async fn a_server_is_not_taken_for_another_on_the_same_port() {
        let port = Reservation::take();
        let config = Config::new(Mode::Server);
        let engine = || Engine::new(config.clone(), Door::Port(port.port()), Engine::folder(&config));
        let (mut first, mut second) = (engine(), engine());
        first.launch().await.expect("the port is free");
        second.launch().await.expect_err("the port is taken");
    }
}
