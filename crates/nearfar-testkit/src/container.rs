//! A process in a container.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{getgid, getuid};
use tokio::task::spawn_blocking;

/// Names the image. Its entry point must take the path of a configuration file, as the official images' does.
const IMAGE: &str = "NEARFAR_DOCKER_IMAGE";
const DEFAULT_IMAGE: &str = "redis:7";

/// The container of one `docker run`, which is its child here.
///
/// It uses the network and a folder of this machine, and runs as this user: its server is found, configured and cleared
/// away as one outside is.
#[derive(Debug)]
pub(crate) struct Container {
    name: String,
}

impl Container {
    pub(crate) fn new() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let count = STARTED.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("nearfar-test-{}-{count}", process::id()) }
    }

    /// What is to be run, with arguments for the server yet to be added.
    pub(crate) fn run(&self, dir: &Path) -> Command {
        let volume = format!("{0}:{0}", dir.display());
        let user = format!("{}:{}", getuid().as_raw(), getgid().as_raw());
        let mut command = Command::new("docker");
        // An image takes longer to be fetched than a server may take to start.
        command.args(["run", "--rm", "--pull", "never", "--network", "host", "--name", &self.name]);
        command.args(["--user", &user, "--volume", &volume]);
        command.arg(env::var(IMAGE).as_deref().unwrap_or(DEFAULT_IMAGE));
        command
    }

    /// The command that ends it, and forgets it.
    pub(crate) fn removal(&self) -> [&OsStr; 4] {
        ["docker", "rm", "--force", &self.name].map(OsStr::new)
    }

    /// Blocks until it is gone.
    pub(crate) fn remove(&self) -> io::Result<()> {
        docker(&["rm", "--force", &self.name])
    }

    /// Asks it to end. A paused one is resumed, or it would not hear.
    pub(crate) async fn terminate(&self) -> io::Result<()> {
        self.order(&["kill", "--signal", "TERM"]).await
    }

    pub(crate) async fn pause(&self) -> io::Result<()> {
        self.order(&["pause"]).await
    }

    pub(crate) async fn resume(&self) -> io::Result<()> {
        self.order(&["unpause"]).await
    }

    async fn order(&self, verb: &'static [&str]) -> io::Result<()> {
        let name = self.name.clone();
        spawn_blocking(move || docker(&[verb, &[&name]].concat())).await?
    }
}

fn docker(args: &[&str]) -> io::Result<()> {
    let output = Command::new("docker").args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}
