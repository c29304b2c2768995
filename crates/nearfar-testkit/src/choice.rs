//! Which server the tests run on.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Names the server to use: a path, or the word `docker`.
const CHOICE: &str = "NEARFAR_SERVER";

/// Where `scripts/server` puts the server that it unpacks.
const UNPACKED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/nearfar-servers/valkey-server");

/// Where servers come from.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    Binary(PathBuf),
    Docker,
}

impl Choice {
    /// Takes the server that `NEARFAR_SERVER` names, else one from the `PATH`, else the one that `scripts/server`
    /// unpacked.
    ///
    /// # Panics
    ///
    /// If there is none: a test that skips itself for want of a server proves nothing.
    pub(crate) fn made() -> Self {
        match env::var_os(CHOICE).filter(|choice| !choice.is_empty()) {
            Some(choice) if choice == "docker" => Self::Docker,
            Some(path) => Self::Binary(chosen(path.into())),
            None => Self::Binary(found()),
        }
    }
}

fn chosen(path: PathBuf) -> PathBuf {
    let shown = path.display();
    assert!(
        is_executable(&path),
        "{CHOICE}={shown} is not an executable file (scripts/test takes names of servers, cargo does not)"
    );
    path
}

fn found() -> PathBuf {
    let found = ["redis-server", "valkey-server"].into_iter().find_map(on_path).or_else(unpacked);
    found.expect(
        "no redis-server or valkey-server found: run scripts/test, which gets one, \
         or set NEARFAR_SERVER to a path or to the word docker",
    )
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
