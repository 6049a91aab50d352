//! `dig`: what the cluster's DNS answers; with `--from`, the search list that a pod walks.

use super::question::{self, Output};
use super::{Scope, print};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Ask the cluster's DNS
#[derive(Clone, Debug, Args)]
pub(crate) struct Dig {
    /// The name; without --from it is asked as it is
    dns_name: String,
    /// The record type: A, AAAA, SRV, PTR, CNAME, TXT, NS or SOA
    #[arg(default_value = "A")]
    record_type: String,
    /// Follow the resolv.conf of this pod: POD or NAMESPACE/POD
    #[arg(long)]
    from: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

impl Dig {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let spec = json!({"namespace": self.scope.namespace, "name": self.dns_name, "type": self.record_type,
            "from": self.from.unwrap_or_default()});
        let status = question::ask(&self.scope.cluster, ("NameLookup", "namelookups"), spec).await?;
        let queries = status["queries"].as_array().cloned().unwrap_or_default();
        match self.output {
            Output::Json => question::print_json(&status)?,
            Output::Text => queries.iter().for_each(|query| print(&text(query))),
        }
        let answers = queries.last().and_then(|query| query["answers"].as_array()).map_or(0, Vec::len);
        Ok(if answers > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn text(query: &Value) -> String {
    let word = |field: &str| query[field].as_str().unwrap_or_default().to_owned();
    let whose = if query["authoritative"] == true { ", authoritative" } else { "" };
    let mut text = format!("; {} {}: {}{whose}\n", word("name"), word("recordType"), word("rcode"));
    for (section, mark) in [("answers", ""), ("authorities", "; authority: "), ("additionals", "; additional: ")] {
        for record in query[section].as_array().into_iter().flatten() {
            let word = |field: &str| record[field].as_str().unwrap_or_default();
            let line = format!("{}\t{}\tIN\t{}\t{}", word("name"), record["ttl"], word("recordType"), word("data"));
            text.push_str(&format!("{mark}{line}\n"));
        }
    }
    text
}
