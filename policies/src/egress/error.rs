//! What is wrong with a policy file, and where.

use std::fmt;
use std::ops::Range;

/// A policy file that was refused, with every problem that was found in it.
#[derive(Debug, Clone)]
pub struct PolicyError {
    file: String,
    source: miette::NamedSource<String>,
    problems: Vec<Problem>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Key, as in `rule[2].hosts[0]` (counted from 0); empty when the text is not TOML.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What is allowed instead, where that can be listed.
    pub allowed: Option<String>,
    #[serde(skip)]
    span: Range<usize>,
}

impl PolicyError {
    pub(super) fn new(file: &str, text: &str, problems: Vec<Problem>) -> Self {
        Self { file: file.into(), source: miette::NamedSource::new(file, text.to_owned()), problems }
    }

    /// The file's name, as it was given.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The problems, in the order of the file; at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl Problem {
    pub(super) fn new(
        text: &str,
        span: Range<usize>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).map_or(0, |line| line.chars().count()) + 1,
            key: key.into(),
            message: message.into(),
            allowed: None,
            span,
        }
    }

    pub(super) fn allow(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn start(&self) -> usize {
        self.span.start
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.allowed {
            Some(allowed) => write!(f, " (allowed: {allowed})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for PolicyError {
    /// A line a problem: `file:line:column: key: message (allowed: …)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{}:{}: {problem}", self.file, problem.line, problem.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

impl miette::Diagnostic for PolicyError {
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        Some(Box::new(self.problems.iter().map(|problem| {
            miette::LabeledSpan::new_with_span(Some(problem.message.clone()), problem.span.clone())
        })))
    }
}
