//! `explain policy`: whether a flow may pass, by which rule of which policy, or how near came each rule.

use super::question::{self, Output};
use super::{Scope, print};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Explain {
    /// Whether a flow may pass, by which rule of which policy, or how near came each. Exit code 1: it may not
    Policy(ExplainPolicy),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainPolicy {
    /// Who sends: POD, NAMESPACE/POD or an IP address
    from: String,
    /// Who receives: HOST:PORT or HOST:PORT/PROTOCOL; the host is POD, NAMESPACE/POD, svc/NAME or an IP address
    to: String,
    /// Judge as if the policies in these files or directories were applied
    #[arg(short = 'f', long = "filename")]
    files: Vec<PathBuf>,
    /// Judge as if this policy (NAMESPACE/NAME, or a ClusterNetworkPolicy's name) were deleted; may be repeated
    #[arg(long)]
    without: Vec<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

impl Explain {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let Explain::Policy(asked) = self;
        let policies = question::policies(&asked.scope.cluster, &asked.files, &asked.scope.namespace).await?;
        let spec = json!({"namespace": asked.scope.namespace, "from": asked.from, "to": asked.to, "policies": policies,
            "absent": asked.without});
        let status = question::ask(&asked.scope.cluster, ("PolicyReview", "policyreviews"), spec).await?;
        match asked.output {
            Output::Json => question::print_json(&status)?,
            Output::Text => print(&text(&asked.from, &asked.to, &status)),
        }
        Ok(if status["allowed"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn text(from: &str, to: &str, status: &Value) -> String {
    let outcome = match status["outcome"].as_str().unwrap_or_default() {
        "Allowed" => "allowed",
        "Denied" => "denied",
        "PartlyAllowed" => "allowed to some endpoints only",
        "Rejected" => "rejected before any policy was asked",
        _ => "dropped before any policy was asked",
    };
    let mut text = format!("{from} → {to}: {outcome}\n");
    let service = &status["service"];
    if !service["frontend"].is_null() {
        for step in service["steps"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            text.push_str(&format!("  service: {step}\n"));
        }
    }
    let mut told: Vec<(Vec<String>, &Value, String)> = Vec::new();
    for verdict in status["verdicts"].as_array().into_iter().flatten() {
        let destination = &verdict["destination"];
        let address = destination["address"].as_str().unwrap_or_default();
        let pod = destination["pod"].as_str();
        let name = pod.map_or_else(|| address.to_owned(), |pod| format!("{pod} ({address})"));
        // What differs by the endpoint's name alone is told once.
        let story = format!("{}{}{}", verdict["protocol"], verdict["egress"], verdict["ingress"]);
        let story = story.replace(pod.unwrap_or(address), "");
        match told.iter_mut().find(|(_, _, known)| *known == story) {
            Some((names, _, _)) => names.push(name),
            None => told.push((vec![name], verdict, story)),
        }
    }
    for (names, verdict, _) in told {
        let (name, alike) = match names.as_slice() {
            [name] => (name, String::new()),
            [name, others @ ..] => (name, format!(", and alike to {}", others.join(", "))),
            [] => continue,
        };
        let word = if verdict["allowed"] == true { "allowed" } else { "denied" };
        text.push_str(&format!("  to {name}, {}: {word}{alike}\n", verdict["protocol"].as_str().unwrap_or_default()));
        for direction in ["egress", "ingress"] {
            let report = &verdict[direction];
            text.push_str(&format!("    {direction}: {}\n", report["why"].as_str().unwrap_or_default()));
            for miss in report["nearMisses"].as_array().into_iter().flatten() {
                let policy = miss["rule"]["policy"].as_str().unwrap_or_default();
                let problem = miss["problem"].as_str().unwrap_or_default();
                text.push_str(&format!("      rule {} of {policy} nearly matched: {problem}\n", miss["rule"]["rule"]));
            }
        }
    }
    text
}
