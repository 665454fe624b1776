//! The order of the walls is a matter of types: programs that leave a wall out, use a stage twice or
//! make one up must not compile, each line for its own reason; their twin must.
//!
//! cargo builds the programs (`tests/chain/`) with what is built already, so this takes seconds.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is wrong")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const TWIN: &str = "chain-in-order";
const CASES: [(&str, &str); 4] = [
    ("chain-skipped", "skipped.rs"),
    ("chain-twice", "twice.rs"),
    ("chain-forged", "forged.rs"),
    ("chain-fields", "fields.rs"),
];

/// Line, code and words of an error.
type Mistake = (u64, String, String);

/// What the compiler said of the programs: errors by program, and the programs that were made.
fn build() -> (BTreeMap<String, Vec<Mistake>>, BTreeSet<String>) {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["build", "--locked", "--keep-going", "--message-format=json"]);
    command.args(["--package", env!("CARGO_PKG_NAME"), "--features", "chain-cases", "--example", TWIN]);
    for (name, _) in CASES {
        command.args(["--example", name]);
    }
    let output = command.output().unwrap();
    let (mut mistakes, mut made) = (BTreeMap::<String, Vec<Mistake>>::new(), BTreeSet::new());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let said: Value = serde_json::from_str(line).unwrap();
        let program = said["target"]["name"].as_str().unwrap_or_default().to_owned();
        let message = &said["message"];
        match said["reason"].as_str() {
            Some("compiler-artifact") => {
                made.insert(program);
            }
            // Without a place it is the sum of the others.
            Some("compiler-message") if message["level"] == "error" && message["spans"][0].is_object() => {
                let spans = message["spans"].as_array().unwrap();
                let place = spans.iter().find(|span| span["is_primary"] == true).unwrap();
                mistakes.entry(program).or_default().push((
                    place["line_start"].as_u64().unwrap(),
                    message["code"]["code"].as_str().unwrap_or_default().to_owned(),
                    message["message"].as_str().unwrap().to_owned(),
                ));
            }
            _ => {}
        }
    }
    assert!(!made.is_empty(), "cargo built nothing: {}", String::from_utf8_lossy(&output.stderr));
    (mistakes, made)
}

/// The errors that a program announces.
fn announced(file: &str) -> Vec<Mistake> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chain").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let of_line = |(number, line): (usize, &str)| {
        let (code, words) = line.split_once("//~ ")?.1.split_once(' ')?;
        Some((number as u64 + 1, code.to_owned(), words.to_owned()))
    };
    text.lines().enumerate().filter_map(of_line).collect()
}

#[test]
fn only_the_whole_chain_in_its_order_compiles() {
    let (mistakes, made) = build();
    assert_eq!(mistakes.get(TWIN), None, "the chain in its order must compile");
    assert!(made.contains(TWIN), "{made:?}");
    for (name, file) in CASES {
        let mut said = mistakes.get(name).cloned().unwrap_or_default();
        for (line, code, words) in announced(file) {
            let found = said.iter().position(|mistake| {
                (mistake.0, mistake.1.as_str()) == (line, code.as_str()) && mistake.2.contains(&words)
            });
            match found {
                Some(found) => drop(said.remove(found)),
                None => panic!("{file}:{line} compiles, or not for {code} {words:?}; said was {said:#?}"),
            }
        }
        assert!(said.is_empty(), "{file} has other mistakes than it announces: {said:#?}");
        assert!(!made.contains(name), "{file} compiled");
    }
}
