//! Errors that point into the file.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// What is wrong with a configuration file, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file says something wrong.
    #[error(transparent)]
    At(Box<At>),
}

/// A mistake at a place in the file.
#[derive(Debug)]
pub struct At {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1; 0 when the place isn't known.
    pub line: usize,
    /// Column in characters, from 1; 0 when the place isn't known.
    pub column: usize,
    /// The key, dotted; empty for the whole file.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
    source: NamedSource<String>,
    span: Option<Range<usize>>,
}

impl ConfigError {
    /// A mistake at `span` (bytes) of `text`.
    pub(super) fn at(
        path: &Path,
        text: &str,
        span: Option<Range<usize>>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let (line, column) = match &span {
            Some(span) => place(text, span.start),
            None => (0, 0),
        };
        Self::At(Box::new(At {
            path: path.to_owned(),
            line,
            column,
            key: key.into(),
            message: message.into(),
            source: NamedSource::new(path.display().to_string(), text.to_owned()).with_language("TOML"),
            span,
        }))
    }
}

/// Line and column, both from 1, of a byte offset.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for At {}

impl Diagnostic for ConfigError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new("cloister::config"))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        match self {
            Self::Read { .. } => None,
            Self::At(at) => Some(&at.source),
        }
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Self::At(at) = self else { return None };
        let span = at.span.clone()?;
        let label = if at.key.is_empty() { "here".to_owned() } else { at.key.clone() };
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some(label), span))))
    }
}
