//! What the demo prints.

use std::fmt::Display;
use std::io::IsTerminal;

/// Prints steps, and counts what went wrong.
pub(crate) struct Show {
    colour: bool,
    wrong: Vec<String>,
}

impl Show {
    pub(crate) fn new() -> Self {
        Self {
            colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            wrong: Vec::new(),
        }
    }

    fn paint(&self, code: &str, text: impl Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// A heading.
    pub(crate) fn title(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    /// A line of fact.
    pub(crate) fn fact(&self, what: &str, value: impl Display) {
        println!("  {} {what:<22} {value}", self.paint("32", "✓"));
    }

    /// What is sent.
    pub(crate) fn sent(&self, text: &str) {
        println!("  {} {text}", self.paint("36", "→"));
    }

    /// What came back.
    pub(crate) fn came(&self, text: &str) {
        println!("  {} {text}", self.paint("36", "←"));
    }

    /// A quoted answer, indented.
    pub(crate) fn quote(&self, text: &str) {
        for line in text.trim_end().lines().take(12) {
            println!("      {}", self.paint("2", line));
        }
    }

    /// A check: says what holds, or what was expected and is not so.
    pub(crate) fn check(&mut self, holds: bool, what: &str) {
        if holds {
            println!("    {} {what}", self.paint("32", "✓"));
        } else {
            println!("    {} {what}", self.paint("1;31", "✗ NOT SO:"));
            self.wrong.push(what.to_owned());
        }
    }

    /// What did not hold.
    pub(crate) fn wrong(&self) -> &[String] {
        &self.wrong
    }
}
