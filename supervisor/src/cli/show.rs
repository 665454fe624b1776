//! Output: text for people, JSON for programs.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Table, presets};
use miette::{GraphicalReportHandler, GraphicalTheme};
use serde_json::{Value, json};

use super::error::CliError;
use crate::serve::ServeError;

/// How output is printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Show {
    pub(super) json: bool,
}

impl Show {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints `value` as JSON, or what `text` makes of it.
    pub(super) fn result(self, value: &Value, text: impl FnOnce(&Value) -> String) {
        let text = if self.json { format!("{value:#}") } else { text(value) };
        self.line(&text);
    }

    /// Prints a line; a reader that left is no error.
    pub(super) fn line(self, text: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end_matches('\n'));
    }

    /// Prints an error on standard error.
    pub(super) fn error(self, error: &CliError) {
        let text = if self.json { as_json(error).to_string() } else { as_text(error) };
        let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end_matches('\n'));
    }
}

fn as_json(error: &CliError) -> Value {
    let mut object = json!({"message": error.to_string(), "exit": error.exit()});
    if let Some(map) = object.as_object_mut() {
        match error {
            CliError::Refused { status, code, message } => {
                map.insert("message".to_owned(), json!(message));
                map.insert("code".to_owned(), json!(code));
                map.insert("status".to_owned(), json!(status));
            }
            CliError::Serve(ServeError::Step { fix: Some(fix), .. }) => {
                map.insert("fix".to_owned(), json!(fix));
            }
            _ => {}
        }
    }
    json!({"error": object})
}

fn as_text(error: &CliError) -> String {
    match error {
        CliError::Serve(ServeError::Config(config)) => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
            // Never wrapped: people search for the words.
            let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_wrap_lines(false);
            let mut text = String::new();
            match handler.render_report(&mut text, config.as_ref()) {
                Ok(()) => text,
                Err(_) => format!("error: {config}"),
            }
        }
        CliError::Serve(ServeError::Step { fix: Some(fix), .. }) => format!("error: {error}\n  fix: {fix}"),
        error => format!("error: {error}"),
    }
}

/// A table of these keys of objects.
pub(super) fn table(values: &[Value], columns: &[(&str, &str)]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(columns.iter().map(|(title, _)| *title));
    for value in values {
        table.add_row(columns.iter().map(|(_, pointer)| cell(value.pointer(pointer))));
    }
    table.to_string()
}

/// A value in words.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(Value::Array(list)) => list.iter().map(|value| cell(Some(value))).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}

/// Text of a tenant, safe for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
