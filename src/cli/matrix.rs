//! `matrix`: which pods can talk to which; computed, measured, or compared with what policies in files would make of it.

use super::question::{self, Output};
use super::{ClusterName, get, print, say};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Show which pods can talk to which
#[derive(Clone, Debug, Args)]
pub(crate) struct Matrix {
    /// Only pods of this namespace; may be repeated [default: every namespace]
    #[arg(short, long)]
    namespace: Vec<String>,
    /// This port of every pod: PORT or PORT/PROTOCOL; may be repeated [default: those that each pod declares]
    #[arg(long)]
    port: Vec<String>,
    /// Open a real connection for every pair too; exit code 1 if one disagrees with what was computed
    #[arg(long)]
    probe: bool,
    /// Show what would change if the policies in these files or directories were applied
    #[arg(short = 'f', long = "filename", conflicts_with = "probe")]
    files: Vec<PathBuf>,
    /// Show what would change if this policy (NAMESPACE/NAME, or a ClusterNetworkPolicy's name) were deleted
    #[arg(long, conflicts_with = "probe")]
    without: Vec<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterName,
}

/// As many columns fit into a terminal; more are listed by row.
const WIDEST: usize = 16;

impl Matrix {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let mut spec = json!({"namespaces": self.namespace, "ports": self.port, "probe": self.probe});
        let now = self.ask(&spec).await?;
        if self.files.is_empty() && self.without.is_empty() {
            match self.output {
                Output::Json => question::print_json(&now)?,
                Output::Text => print(&text(&now)),
            }
            let disagreements = now["disagreements"].as_array().cloned().unwrap_or_default();
            for wrong in &disagreements {
                say(&format!("computed and measured disagree: {wrong}"));
            }
            return Ok(if disagreements.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let namespace = self.namespace.first().map_or("default", String::as_str);
        spec["policies"] = question::policies(&self.cluster, &self.files, namespace).await?.into();
        spec["absent"] = self.without.clone().into();
        let then = self.ask(&spec).await?;
        let changes = changes(&now, &then)?;
        match self.output {
            Output::Json => question::print_json(&changes)?,
            Output::Text => {
                for (word, sign) in [("gained", '+'), ("lost", '-')] {
                    for pair in changes[word].as_array().into_iter().flatten().filter_map(Value::as_str) {
                        print(&format!("{sign} {pair}\n"));
                    }
                }
                let count = |word: &str| changes[word].as_array().map_or(0, Vec::len);
                say(&format!("{} pairs would be gained, {} lost", count("gained"), count("lost")));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(&self, spec: &Value) -> Result<Value> {
        question::ask(&self.cluster, ("Reachability", "reachabilities"), spec.clone()).await
    }
}

fn column(to: &Value) -> String {
    format!("{}:{}/{}", to["pod"].as_str().unwrap_or_default(), to["port"], to["protocol"].as_str().unwrap_or_default())
}

fn columns(matrix: &Value) -> Vec<String> {
    matrix["to"].as_array().into_iter().flatten().map(column).collect()
}

/// Every source with its row of cells.
fn rows(matrix: &Value) -> impl Iterator<Item = (&str, &str)> {
    let sources = matrix["from"].as_array().into_iter().flatten().filter_map(Value::as_str);
    sources.zip(matrix["allowed"].as_array().into_iter().flatten().filter_map(Value::as_str))
}

fn text(matrix: &Value) -> String {
    let columns = columns(matrix);
    if columns.is_empty() {
        return "no pod declares a port; choose one with --port\n".to_owned();
    }
    if columns.len() > WIDEST {
        let mut text = String::new();
        for (from, cells) in rows(matrix) {
            let reached = cells.chars().filter(|cell| *cell == '1').count();
            text.push_str(&format!("{from}: reaches {reached} of {}\n", columns.len()));
            for (to, _) in columns.iter().zip(cells.chars()).filter(|(_, cell)| *cell == '0') {
                text.push_str(&format!("  ✗ {to}\n"));
            }
        }
        return text;
    }
    let mut lines = vec![std::iter::once("FROM \\ TO".to_owned()).chain(columns).collect::<Vec<_>>()];
    for (from, cells) in rows(matrix) {
        let marks = cells.chars().map(|cell| if cell == '1' { "✓" } else { "✗" }.to_owned());
        lines.push(std::iter::once(from.to_owned()).chain(marks).collect());
    }
    get::aligned(&lines)
}

/// The pairs that can talk in one of two matrices of the same pods only.
fn changes(now: &Value, then: &Value) -> Result<Value> {
    if now["from"] != then["from"] || now["to"] != then["to"] {
        bail!("pods have come or gone meanwhile; ask again");
    }
    let columns = columns(now);
    let (mut gained, mut lost) = (Vec::new(), Vec::new());
    for ((from, before), (_, after)) in rows(now).zip(rows(then)) {
        for ((to, before), after) in columns.iter().zip(before.chars()).zip(after.chars()) {
            match (before, after) {
                ('0', '1') => gained.push(format!("{from} → {to}")),
                ('1', '0') => lost.push(format!("{from} → {to}")),
                _ => {}
            }
        }
    }
    Ok(json!({"gained": gained, "lost": lost}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_is_named_pair_by_pair() {
        let to = json!([{"pod": "d/a", "port": 80, "protocol": "TCP"}, {"pod": "d/b", "port": 80, "protocol": "TCP"}]);
        let matrix = |rows: [&str; 2]| json!({"from": ["d/a", "d/b"], "to": to, "allowed": rows});
        let found = changes(&matrix(["11", "10"]), &matrix(["10", "11"])).expect("the same pods");
        assert_eq!(found, json!({"gained": ["d/b → d/b:80/TCP"], "lost": ["d/a → d/b:80/TCP"]}));
    }
}
