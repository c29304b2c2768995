//! What a server runs in, and which of the two it is.

use std::env;
use std::fmt::{self, Debug, Display};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use async_trait::async_trait;

use crate::config::Config;
use crate::local::Local;

/// How long a server may take to accept commands. Ten milliseconds is usual.
pub(crate) const STARTING: Duration = Duration::from_secs(20);

/// Names the server to use: a path, or the word `docker`.
const CHOICE: &str = "NEARFAR_SERVER";

/// Where `scripts/test` puts the server that it unpacks.
const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/nearfar-servers/valkey-server");

/// The life of a server, as a process or as a container. The methods are those of
/// [`RedisServer`](crate::RedisServer), and are documented there.
#[async_trait]
pub(crate) trait Engine: Debug + Send + Sync {
    /// Starts the server with the data it has, and returns when it accepts commands.
    async fn launch(&mut self) -> Result<(), LaunchError>;
    fn pid(&self) -> u32;
    async fn log(&self) -> String;
    async fn kill(&mut self);
    async fn stop(&mut self);
    async fn pause(&self);
    async fn resume(&self);
    /// Kills the server and removes all that it has stored.
    async fn wipe(&mut self);
}

/// Why a server did not come up.
#[derive(Debug)]
pub(crate) enum LaunchError {
    Spawn(io::Error),
    Exited(ExitStatus),
    /// The port answers, but not from our process.
    Foreign,
    Silent,
    #[cfg(feature = "docker")]
    Container(testcontainers::TestcontainersError),
}

impl Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(error) => write!(f, "it cannot be run: {error}"),
            Self::Exited(status) => write!(f, "it ended at once, with {status}"),
            Self::Foreign => write!(f, "another server has its port"),
            Self::Silent => write!(f, "it accepted no command within {STARTING:?}"),
            #[cfg(feature = "docker")]
            Self::Container(error) => write!(f, "docker: {error}"),
        }
    }
}

/// Takes the server that `NEARFAR_SERVER` names, else one from the `PATH`, else the one that
/// `scripts/test` unpacked, else, with the feature `docker`, a container.
///
/// # Panics
///
/// If there is none: a test that skips itself for want of a server proves nothing.
pub(crate) fn find(config: Config, port: u16) -> Box<dyn Engine> {
    match binary() {
        Some(binary) => Box::new(Local::new(binary, config, port)),
        None => container(config, port),
    }
}

fn binary() -> Option<PathBuf> {
    match env::var_os(CHOICE).filter(|choice| !choice.is_empty()) {
        Some(choice) if choice == "docker" => None,
        Some(path) => Some(chosen(path.into())),
        None => ["redis-server", "valkey-server"].into_iter().find_map(on_path).or_else(unpacked),
    }
}

fn chosen(path: PathBuf) -> PathBuf {
    assert!(is_executable(&path), "{CHOICE}={} is not an executable file", path.display());
    path
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn unpacked() -> Option<PathBuf> {
    Some(PathBuf::from(UNPACKED)).filter(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(feature = "docker")]
fn container(config: Config, port: u16) -> Box<dyn Engine> {
    Box::new(crate::docker::Container::new(config, port))
}

#[cfg(not(feature = "docker"))]
fn container(_config: Config, _port: u16) -> Box<dyn Engine> {
    panic!(
        "no redis-server or valkey-server found: run scripts/test, which installs one, \
         or set NEARFAR_SERVER=/path/to/redis-server"
    )
}
