//! `trace`: the journey of one connection, a line per step.

use super::question::{self, Output};
use super::{Scope, get, print};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Follow one connection
#[derive(Clone, Debug, Args)]
pub(crate) struct Trace {
    /// Who connects: POD, NAMESPACE/POD or pod/NAME
    pod: String,
    /// Where to: HOST:PORT or HOST:PORT/PROTOCOL; the host is an IP address, or a name that the pod looks up
    to: String,
    /// Only work out what would happen; without it a real TCP connection is opened from the pod
    #[arg(long)]
    dry_run: bool,
    /// How long the connection may take, in seconds
    #[arg(long, default_value_t = 3)]
    timeout: u64,
    /// Judge as if the policies in these files or directories were applied; only with --dry-run
    #[arg(short = 'f', long = "filename", requires = "dry_run")]
    files: Vec<PathBuf>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    scope: Scope,
}

impl Trace {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let policies = question::policies(&self.scope.cluster, &self.files, &self.scope.namespace).await?;
        let from = get::pod_name(&self.pod).unwrap_or(&self.pod);
        let protocol = self.to.rsplit('/').next().unwrap_or_default().to_ascii_uppercase();
        // Only TCP says whether it has arrived.
        let connect = !self.dry_run && !matches!(protocol.as_str(), "UDP" | "SCTP");
        let spec = json!({"namespace": self.scope.namespace, "from": from, "to": self.to, "connect": connect,
            "timeoutSeconds": self.timeout, "policies": policies});
        let status = question::ask(&self.scope.cluster, ("Trace", "traces"), spec).await?;
        match self.output {
            Output::Json => question::print_json(&status)?,
            Output::Text => print(&text(&status)),
        }
        let arrived = matches!(status["outcome"].as_str(), Some("Allowed" | "Connected"));
        Ok(if arrived { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn text(status: &Value) -> String {
    let mut text = String::new();
    for step in status["steps"].as_array().into_iter().flatten() {
        let sign = match step["result"].as_str() {
            Some("ok") => "✓",
            Some("failed") => "✗",
            _ => " ",
        };
        let phase = step["phase"].as_str().unwrap_or_default();
        text.push_str(&format!("{sign} {phase:<10} {}\n", step["text"].as_str().unwrap_or_default()));
    }
    let outcome = match status["outcome"].as_str().unwrap_or_default() {
        "NameNotFound" => "the name was not found",
        "Allowed" => "would arrive",
        "PartlyAllowed" => "would arrive at some endpoints only",
        "Denied" => "would be dropped by a policy",
        "Rejected" => "would be refused at once",
        "Dropped" => "would be dropped",
        "Connected" => "connected",
        "Refused" => "refused",
        "TimedOut" => "timed out",
        _ => "failed",
    };
    text.push_str(&format!("→ {outcome}\n"));
    text
}
