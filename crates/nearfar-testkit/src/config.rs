//! What a server is told when it starts.

/// The directives of one server, without its address and its folder, which the engine adds.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) mode: Mode,
    /// Whether others take a pause of this server for its death.
    pub(crate) watched: bool,
    lines: Vec<String>,
}

/// What the binary is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Server,
    Sentinel,
}

impl Config {
    pub(crate) fn new(mode: Mode) -> Self {
        Self { mode, watched: mode == Mode::Sentinel, lines: Vec::new() }
    }

    /// Where a directive stands twice, the later one wins.
    pub(crate) fn set(&mut self, directive: &str, value: &str) {
        let value = if value.is_empty() { r#""""# } else { value };
        self.lines.push(format!("{directive} {value}"));
    }

    /// These directives, and then those of `later`.
    pub(crate) fn followed_by(mut self, later: &Self) -> Self {
        self.lines.extend_from_slice(&later.lines);
        self
    }

    /// As the server's configuration file has it.
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n") + "\n"
    }
}
