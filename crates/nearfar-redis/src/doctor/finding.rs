use std::fmt;
use std::sync::Arc;

use crate::doctor::kinds::FindingKind;

/// How bad a [`Finding`] is.
///
/// ```
/// use nearfar_redis::Severity;
///
/// assert!(Severity::Note < Severity::Warning && Severity::Warning < Severity::Critical);
/// assert_eq!(Severity::Critical.to_string(), "critical");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; nothing has to be done.
    Note,
    /// A guarantee depends on its not happening, or it will hurt one day.
    Warning,
    /// nearfar does not work, or not for long.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// What is not as it should be, what it leads to, and what to do about it. It never holds a URL or a password.
///
/// Cheap to clone. Its text names the server's settings and figures; [`kind`](Self::kind) is for programs.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # use nearfar_redis::{OnUnreachable, RedisOptions};
/// # use std::time::Duration;
/// # let options = RedisOptions {
/// #     url: "redis://127.0.0.1:1".into(), // where nobody listens
/// #     tls: None,
/// #     connect_timeout: Duration::from_secs(5),
/// #     command_timeout: Duration::from_secs(1),
/// #     log_len: 0,
/// #     on_unreachable: OnUnreachable::Fail,
/// # };
/// use nearfar_redis::{FindingKind, Severity, diagnose};
///
/// let diagnosis = diagnose(&options, &[]).await;
/// let finding = diagnosis.findings().next().unwrap();
/// assert_eq!((finding.kind(), finding.severity()), (FindingKind::Unreachable, Severity::Critical));
/// assert_eq!(finding.server(), "127.0.0.1:1");
/// assert!(finding.seen().contains("refused") && finding.remedy().contains("start the server"));
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    kind: FindingKind,
    server: Arc<str>,
    seen: Arc<str>,
}

impl Finding {
    pub(crate) fn new(kind: FindingKind, server: &str, seen: impl Into<Arc<str>>) -> Self {
        Self { kind, server: server.into(), seen: seen.into() }
    }

    /// What it is about.
    pub fn kind(&self) -> FindingKind {
        self.kind
    }

    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.kind.severity()
    }

    /// `host:port` of the server that it is about; of several, separated by commas, if none of them could be reached.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What was seen, with its figures.
    pub fn seen(&self) -> &str {
        &self.seen
    }

    /// What it leads to. `G1` and the like are the guarantees of `docs/consistency.md`.
    pub fn consequence(&self) -> &'static str {
        self.kind.text().consequence
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        self.kind.text().remedy
    }
}

impl FindingKind {
    /// Its name, as reports and `docs/doctor.md` have it.
    pub fn id(self) -> &'static str {
        self.text().id
    }

    /// How bad it is.
    pub fn severity(self) -> Severity {
        self.text().severity
    }

    /// What is the case when it is found, without figures.
    pub fn summary(self) -> &'static str {
        self.text().summary
    }
}

impl fmt::Display for Finding {
    /// On one line, for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, server, seen } = self;
        let (consequence, remedy) = (self.consequence(), self.remedy());
        write!(f, "{server}: {}: {seen}; consequence: {consequence}; remedy: {remedy}", kind.id())
    }
}
