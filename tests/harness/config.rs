//! A configuration file for a test.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What goes into `cloister.toml`: keys of tables, and routes in order. Values are TOML text.
#[derive(Debug, Clone, Default)]
pub struct Config {
    tables: BTreeMap<String, BTreeMap<String, String>>,
    routes: Vec<String>,
}

impl Config {
    /// Sets a key of a table; the table `""` is the top of the file. `value` is TOML (`"\"text\""`, `"5"`).
    #[must_use]
    pub fn set(mut self, table: &str, key: &str, value: impl Into<String>) -> Self {
        self.tables.entry(table.to_owned()).or_default().insert(key.to_owned(), value.into());
        self
    }

    /// Appends a route, given as the lines below `[[route]]`.
    #[must_use]
    pub fn route(mut self, lines: &str) -> Self {
        self.routes.push(lines.to_owned());
        self
    }

    /// Takes over all of `other`; its keys win.
    pub(crate) fn overlay(&mut self, other: &Self) {
        for (table, keys) in &other.tables {
            self.tables.entry(table.clone()).or_default().extend(keys.clone());
        }
        self.routes.extend(other.routes.iter().cloned());
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (table, keys) in &self.tables {
            if !table.is_empty() {
                writeln!(text, "\n[{table}]").expect("writing to a string");
            }
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").expect("writing to a string");
            }
        }
        for route in &self.routes {
            writeln!(text, "\n[[route]]\n{route}").expect("writing to a string");
        }
        text
    }
}
