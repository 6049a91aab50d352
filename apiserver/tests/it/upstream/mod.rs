//! What a real kube-apiserver v1.35 answers, and that this server answers the same.
//!
//! The tables beside this file are facts taken from such a server's answers: `resources.txt` from aggregated discovery, `columns.txt`
//! from Tables, `wire.txt` from what kubectl and helm read. What differs stands in `differences.txt` with its reason; a difference that
//! is not listed fails, and so does one that is listed and gone.

mod apply;
mod discovery;
mod reads;
mod tables;

use std::cell::Cell;
use std::collections::HashSet;

const DIFFERENCES: &str = include_str!("differences.txt");

/// The lines of a table that are facts.
fn facts(table: &'static str) -> Vec<String> {
    table.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

/// What may differ between one table and ours.
struct Differences {
    /// `- PATTERN` (we lack it) or `+ PATTERN` (only we have it), and whether it was met.
    listed: Vec<(String, Cell<bool>)>,
}

impl Differences {
    /// The differences listed for this table.
    fn of(table: &str) -> Self {
        let mut reason = "";
        let mut listed = Vec::new();
        for line in DIFFERENCES.lines() {
            if let Some(text) = line.strip_prefix('#') {
                reason = text.trim();
            } else if line.is_empty() {
                reason = "";
            } else {
                assert!(!reason.is_empty(), "no reason is given for {line}");
                let (of, pattern) = line.split_once(' ').expect("a table's name and a pattern");
                if of == table {
                    listed.push((pattern.to_owned(), Cell::new(false)));
                }
            }
        }
        Differences { listed }
    }

    fn is_listed(&self, difference: &str) -> bool {
        let mut found = false;
        for (pattern, met) in &self.listed {
            let matches = match pattern.split_once('*') {
                // The star that stands for all verbs is at the end of a line, and matches itself.
                Some((start, end)) => {
                    difference.len() >= start.len() + end.len()
                        && difference.starts_with(start)
                        && difference.ends_with(end)
                }
                None => pattern == difference,
            };
            if matches {
                met.set(true);
                found = true;
            }
        }
        found
    }

    /// Fails if there is a difference that is not listed, or none that is.
    #[track_caller]
    fn check(&self, upstream: &[String], ours: &[String]) {
        let (theirs, our): (HashSet<&String>, HashSet<&String>) = (upstream.iter().collect(), ours.iter().collect());
        let lacking = upstream.iter().filter(|line| !our.contains(line)).map(|line| format!("- {line}"));
        let own = ours.iter().filter(|line| !theirs.contains(line)).map(|line| format!("+ {line}"));
        let unlisted: Vec<String> = lacking.chain(own).filter(|line| !self.is_listed(line)).collect();
        assert!(unlisted.is_empty(), "differences that no reason is given for:\n{}", unlisted.join("\n"));
        let gone: Vec<&str> =
            self.listed.iter().filter(|(_, met)| !met.get()).map(|(pattern, _)| pattern.as_str()).collect();
        assert!(gone.is_empty(), "listed, but no difference:\n{}", gone.join("\n"));
    }
}
