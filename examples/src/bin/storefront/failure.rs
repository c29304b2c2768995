use std::fmt;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

/// Why there is no summary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// It could not work from the start: a wrong setting, no Redis, a trace that is none.
    Settings(String),
    /// It went wrong on the way.
    Run(String),
    /// Ctrl-C.
    Interrupted,
}

impl Failure {
    pub(crate) fn settings(why: impl fmt::Display) -> Self {
        Self::Settings(why.to_string())
    }

    pub(crate) fn run(why: impl fmt::Display) -> Self {
        Self::Run(why.to_string())
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Run(_) => 1,
            Self::Settings(_) => 2,
            // What a shell reports of a program that Ctrl-C ended.
            Self::Interrupted => 130,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(why) | Self::Run(why) => f.write_str(why),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}
