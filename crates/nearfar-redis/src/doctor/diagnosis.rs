use std::fmt;

use crate::doctor::finding::{Finding, Severity};

/// What [`diagnose`](crate::diagnose) has to say. `Display` is a report for people.
///
/// ```
/// let nothing = nearfar_redis::Diagnosis::default();
/// assert_eq!(nothing.worst(), None);
/// assert_eq!(nothing.to_string(), "Nothing to do.\n");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    examinations: Vec<Examination>,
}

/// What was seen of one server.
///
/// ```
/// use nearfar_redis::{Diagnosis, Examination};
///
/// fn healthy(diagnosis: &Diagnosis) -> Vec<&str> {
///     let without_findings = |examination: &&Examination| examination.findings().is_empty();
///     diagnosis.examinations().iter().filter(without_findings).map(Examination::server).collect()
/// }
/// assert!(healthy(&Diagnosis::default()).is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct Examination {
    pub(crate) server: String,
    pub(crate) facts: Vec<Fact>,
    pub(crate) findings: Vec<Finding>,
}

/// Something that is as it is: good to know, and no finding.
///
/// ```
/// fn shown(fact: &nearfar_redis::Fact) -> String {
///     format!("{}: {}", fact.about, fact.value)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fact {
    /// What it is about, such as `round trip` or `namespace users`.
    pub about: String,
    /// What was seen, for people.
    pub value: String,
}

impl Diagnosis {
    pub(crate) fn new(examinations: Vec<Examination>) -> Self {
        Self { examinations }
    }

    /// One per server: of a cluster, per server that has slots. Those that could not be reached come first.
    pub fn examinations(&self) -> &[Examination] {
        &self.examinations
    }

    /// All that is not as it should be.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.examinations.iter().flat_map(Examination::findings)
    }

    /// How bad it is; `None` without any finding.
    pub fn worst(&self) -> Option<Severity> {
        self.findings().map(Finding::severity).max()
    }
}

impl Examination {
    pub(crate) fn new(server: String) -> Self {
        Self { server, facts: Vec::new(), findings: Vec::new() }
    }

    /// `host:port`; of several, if none of them could be reached, separated by commas.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What was seen and is no finding.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// What is not as it should be, the worst first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for examination in &self.examinations {
            writeln!(f, "{examination}")?;
        }
        let count = |severity| self.findings().filter(|finding| finding.severity() == severity).count();
        let [critical, warnings, notes] = [Severity::Critical, Severity::Warning, Severity::Note].map(count);
        match (critical, warnings, notes) {
            (0, 0, 0) => writeln!(f, "Nothing to do."),
            (0, 0, notes) => writeln!(f, "Nothing to do. Notes: {notes}."),
            _ => writeln!(f, "Critical: {critical}, warnings: {warnings}, notes: {notes}."),
        }
    }
}

impl fmt::Display for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.server)?;
        let width = self.facts.iter().map(|fact| fact.about.len()).max().unwrap_or_default();
        for Fact { about, value } in &self.facts {
            writeln!(f, "  {about:width$}  {value}")?;
        }
        for finding in &self.findings {
            writeln!(f, "\n  {} ({}): {}", finding.severity(), finding.kind().id(), finding.seen())?;
            writeln!(f, "    consequence: {}", finding.consequence())?;
            writeln!(f, "    remedy:      {}", finding.remedy())?;
        }
        Ok(())
    }
}
