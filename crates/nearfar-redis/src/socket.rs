//! URLs of sockets of the file system: `redis+unix://[user:password@]/path[?db=number]`.

use fred::types::config::{Config, ServerConfig};

use crate::error::UrlProblem;
use crate::server::url_problem;

/// What follows the scheme and its `://`.
pub(crate) fn parse(rest: &str) -> Result<Config, UrlProblem> {
    let (login, path) = rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
    if !(login.is_empty() || login.ends_with('@')) || path.len() < 2 {
        return Err(UrlProblem::SocketPath);
    }
    let (path, database) = match path.split_once("?db=") {
        Some((path, number)) => (path, Some(number.parse().map_err(|_| UrlProblem::Database)?)),
        None => (path, None),
    };
    // fred reads the login, for which it wants a host. The path is taken as it stands.
    let config = Config::from_url(&format!("redis+unix://{login}socket/")).map_err(|e| url_problem(&e))?;
    Ok(Config { server: ServerConfig::new_unix_socket(path), database, ..config })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_stands_as_it_is_and_the_login_is_decoded() {
        let config = parse("app:p%40ss@/run/a redis%20.sock?db=3").unwrap();
        assert_eq!(config.server, ServerConfig::new_unix_socket("/run/a redis%20.sock"));
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (Some("app"), Some("p@ss")));
        assert_eq!(config.database, Some(3));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in ["", "/", "run/redis.sock", "localhost/run/redis.sock", "app:pass@"] {
            assert_eq!(parse(wrong).unwrap_err(), UrlProblem::SocketPath, "{wrong}");
        }
        for wrong in ["/a?db=", "/a?db=x", "/a?db=256"] {
            assert_eq!(parse(wrong).unwrap_err(), UrlProblem::Database, "{wrong}");
        }
    }
}
