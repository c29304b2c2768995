//! A PostgreSQL of the test's own.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;

use crate::clock::{LOOK_EVERY, Stopwatch, let_pass};
use crate::ports::Reservation;
use crate::process::OwnedProcess;

/// Names the folder with the programs: `initdb` and `postgres`.
const CHOICE: &str = "NEARFAR_POSTGRES";

/// Where Debian has them, by version; they are not on its `PATH`.
const OF_DEBIAN: &str = "/usr/lib/postgresql";

/// Where `scripts/postgres` puts those that it unpacks.
const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/nearfar-servers/postgres/bin");

const STARTING: Duration = Duration::from_secs(30);
const STOPPING: Duration = Duration::from_secs(5);

/// A PostgreSQL server of the test's own, on a free loopback port, with an empty database `postgres` and a user `postgres`
/// who needs no password.
///
/// The programs are in the folder that the environment variable `NEARFAR_POSTGRES` names, else on the `PATH`, else where
/// Debian installs them or `scripts/postgres` unpacks them, which gets them where there are none. PostgreSQL refuses to run as root, so then it is run as the system's
/// user `postgres`, or `nobody`.
///
/// # Leaves nothing behind
///
/// As [`RedisServer`](crate::RedisServer) does.
///
/// # Examples
///
/// ```no_run
/// # // Takes a second, and a PostgreSQL.
/// # async fn f() {
/// let server = nearfar_testkit::PostgresServer::start().await;
/// assert!(server.url().starts_with("postgresql://postgres@127.0.0.1:"));
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresServer {
    /// `None` once it was told to stop.
    process: Option<OwnedProcess>,
    port: Reservation,
    setup: Setup,
}

impl PostgresServer {
    /// Starts a server, and returns when it accepts connections. Takes a second or two.
    ///
    /// # Panics
    ///
    /// If there is no PostgreSQL, saying what to do about it; or if it does not come up, with its log.
    pub async fn start() -> Self {
        let dir = TempDir::with_prefix("nearfar-postgres-").expect("the temporary folder is writable");
        let setup = Setup { programs: programs(), runner: Runner::of_tests(), dir };
        let setup = spawn_blocking(|| setup.initialized()).await.expect("initdb does not panic");
        let port = Reservation::take();
        let process = setup.launch(port.port()).expect("PostgreSQL can be run");
        let mut server = Self { process: Some(process), port, setup };
        server.ready().await;
        server
    }

    /// `postgresql://postgres@127.0.0.1:PORT/postgres`.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port())
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    async fn ready(&mut self) {
        let waited = Stopwatch::start();
        while !self.setup.log().contains("ready to accept connections") || !self.answers().await {
            let ended = self.process.as_mut().and_then(OwnedProcess::ended);
            let gives_up = ended.is_some() || waited.elapsed() > STARTING;
            assert!(!gives_up, "PostgreSQL did not come up: {}", self.setup.log());
            let_pass(LOOK_EVERY).await;
        }
    }

    async fn answers(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port())).await.is_ok()
    }
}

/// Killed outright, it would leave a segment of shared memory behind.
impl Drop for PostgresServer {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let waited = Stopwatch::start();
        if process.interrupt().is_ok() {
            while process.ended().is_none() && waited.elapsed() < STOPPING {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// What it takes to run a server.
#[derive(Debug)]
struct Setup {
    programs: PathBuf,
    runner: Runner,
    dir: TempDir,
}

impl Setup {
    fn initialized(self) -> Self {
        self.runner.give(self.dir.path()).expect("the folder is ours to give");
        let mut initdb = self.command("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]);
        let made = initdb.arg("--pgdata").arg(self.data()).output().expect("initdb can be run");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        self
    }

    fn launch(&self, port: u16) -> io::Result<OwnedProcess> {
        let log = File::create(self.log_file())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
        ]);
        // Nothing has to outlive the machine.
        command.args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "logging_collector=off"]);
        OwnedProcess::spawn(command.stdout(log.try_clone()?).stderr(log), Some(self.dir.path()), None)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.dir.path()).env("LC_ALL", "C");
        self.runner.run(&mut command);
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    fn log(&self) -> String {
        fs::read(self.log_file()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }
}

/// As whom the server runs.
#[derive(Debug)]
enum Runner {
    Ourselves,
    /// With the numbers of user and group.
    Other(u32, u32),
}

impl Runner {
    fn of_tests() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self::Ourselves;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let other = ["postgres", "nobody"].into_iter().find_map(|name| user_in(&users, name));
        let (user, group) =
            other.expect("PostgreSQL does not run as root, and there is no user postgres or nobody");
        Self::Other(user, group)
    }

    fn give(&self, dir: &Path) -> io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other(user, group) => chown(dir, Some(*user), Some(*group)),
        }
    }

    fn run(&self, command: &mut Command) {
        if let Self::Other(user, group) = self {
            command.uid(*user).gid(*group);
        }
    }
}

/// The numbers of a user and of his group, by the lines of `/etc/passwd`.
fn user_in(users: &str, name: &str) -> Option<(u32, u32)> {
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find(|fields| fields.first() == Some(&name))?;
    Some((found.get(2)?.parse().ok()?, found.get(3)?.parse().ok()?))
}

fn programs() -> PathBuf {
    if let Some(folder) = env::var_os(CHOICE).filter(|folder| !folder.is_empty()) {
        let folder = PathBuf::from(folder);
        assert!(has_programs(&folder), "{CHOICE}={} has no initdb and postgres in it", folder.display());
        return folder;
    }
    let on_path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&on_path)
        .chain(of_debian())
        .chain([UNPACKED.into()])
        .find(|folder| has_programs(folder));
    found.expect("no PostgreSQL found: run scripts/test, which gets one, or set NEARFAR_POSTGRES to the folder of initdb")
}

/// Newest first.
fn of_debian() -> Vec<PathBuf> {
    let versions = fs::read_dir(OF_DEBIAN).into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders
}

fn has_programs(folder: &Path) -> bool {
    ["initdb", "postgres"].into_iter().all(|program| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_server_is_gone_with_its_folder() {
        let server = PostgresServer::start().await;
        let (port, folder) = (server.port(), server.setup.dir.path().to_owned());
        assert!(folder.join("data").exists() && server.answers().await);
        spawn_blocking(|| drop(server)).await.unwrap();
        assert!(!folder.exists() && TcpStream::connect(("127.0.0.1", port)).await.is_err());
    }

    #[test]
    fn users_are_found_by_name() {
        let users = "root:x:0:0::/root:/bin/sh\npostgres:x:101:104:a,b:/var:/bin/sh\n";
        assert_eq!(user_in(users, "postgres"), Some((101, 104)));
        assert_eq!(user_in(users, "postgre"), None);
    }
}
