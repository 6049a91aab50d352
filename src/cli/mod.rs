//! The subcommands: what they are called, what they take, and how an error is told.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 wrong use (clap's).

mod apply;
mod capture;
mod delete;
mod dig;
mod dns_flags;
mod dns_log;
mod exec;
mod explain;
mod flows;
mod get;
mod kubeconfig;
mod lines;
mod logs;
mod matrix;
mod options;
mod paths;
mod proxy;
mod question;
mod remote;
mod signals;
mod snapshot;
mod test;
mod throwaway;
mod trace;
mod up;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use options::ClusterOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// A Kubernetes cluster in one process: no root, no Docker, no image, real packets.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// Say more (CORACLE_LOG=debug says everything)
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster; Ctrl-C stops it
    Up(up::Up),
    /// Stop a running cluster
    Down(ClusterName),
    /// Say which clusters run, and where they are reached
    Status(ClusterName),
    /// Print a kubeconfig for a running cluster
    Kubeconfig(ClusterName),
    /// Print the owner's bearer token, for `curl -H "Authorization: Bearer $(coracle token)"`
    Token(ClusterName),
    /// Run a command with a throw-away cluster around it: KUBECONFIG is set, its exit status is passed on, nothing is left
    Run(throwaway::Run),
    /// Apply manifests (server-side apply)
    Apply(apply::Apply),
    /// Show objects
    Get(get::Get),
    /// Delete objects
    Delete(delete::Delete),
    /// Show a container's output
    Logs(logs::Logs),
    /// Run a command in a container
    Exec(exec::Exec),
    /// Say why something is as it is
    #[command(subcommand)]
    Explain(explain::Explain),
    /// Follow one connection: names, Service, endpoints, NAT, policies, answer
    Trace(trace::Trace),
    /// Ask the cluster's DNS
    Dig(dig::Dig),
    /// Show what pods ask the cluster's DNS, what they are told, and what their search lists ask in vain
    DnsLog(dns_log::DnsLog),
    /// List the live flows of the virtual network, or follow its flow log
    Flows(flows::Flows),
    /// Check expectations of who can talk to whom, in a throw-away cluster, by computation and by real packets
    Test(test::Test),
    /// Reach names and addresses of the cluster from this machine, by SOCKS5 and HTTP on loopback
    Proxy(proxy::Proxy),
    /// Write packets of the virtual network into a pcapng file, or live into Wireshark
    Capture(capture::Capture),
    /// Show which pods can talk to which
    Matrix(matrix::Matrix),
    /// Say which pairs of pods would gain or lose reachability if policies were applied or deleted
    DiffPolicy(matrix::DiffPolicy),
    /// Save the cluster's whole state into a file, or make a cluster's state of one
    #[command(subcommand)]
    Snapshot(snapshot::Snapshot),
}

/// Which cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterName {
    /// Name of the cluster
    #[arg(long, default_value = "coracle", env = "CORACLE_NAME")]
    pub(crate) name: String,
}

/// Which namespace of which cluster.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scope {
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterName,
}

/// Manifests to read.
#[derive(Clone, Debug, Args)]
pub(crate) struct Files {
    /// A file, a directory (its .yaml, .yml and .json files), or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename")]
    pub(crate) files: Vec<PathBuf>,
}

/// Runs the subcommand.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.command {
        Command::Up(up) => up.run().await?,
        Command::Down(name) => up::down(&name.name).await?,
        Command::Status(name) => up::status(&name.name).await?,
        Command::Kubeconfig(name) => print(&paths::read_private(&name.name, paths::KUBECONFIG)?),
        Command::Token(name) => print(&format!("{}\n", paths::read_private(&name.name, paths::TOKEN)?.trim())),
        Command::Run(run) => return run.run().await,
        Command::Apply(apply) => apply.run().await?,
        Command::Get(get) => get.run().await?,
        Command::Delete(delete) => delete.run().await?,
        Command::Logs(logs) => logs.run().await?,
        Command::Exec(exec) => return exec.run().await,
        Command::Explain(explain) => return explain.run().await,
        Command::Trace(trace) => return trace.run().await,
        Command::Dig(dig) => return dig.run().await,
        Command::DnsLog(log) => log.run().await?,
        Command::Flows(flows) => flows.run().await?,
        Command::Proxy(proxy) => proxy.run().await?,
        Command::Capture(capture) => capture.run().await?,
        Command::Test(test) => return test.run().await,
        Command::Matrix(matrix) => return matrix.run().await,
        Command::DiffPolicy(diff) => return diff.run().await,
        Command::Snapshot(snapshot) => snapshot.run().await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A failure with a way out.
#[derive(Debug)]
pub(crate) struct Hint(pub(crate) String);

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Hint {}

/// Tells an error: what failed, why, and the hint if one stands in the chain.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let mut hints = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for cause in error.chain() {
        match cause.downcast_ref::<Hint>() {
            Some(hint) => hints.push(hint.0.clone()),
            None if lines.last().is_some_and(|last| last.ends_with(&cause.to_string())) => {}
            None => lines.push(cause.to_string()),
        }
    }
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        text.push_str(&if index == 0 { format!("error: {line}\n") } else { format!("  caused by: {line}\n") });
    }
    for hint in hints {
        text.push_str(&format!("\nhint: {hint}\n"));
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

/// Data for stdout. A reader that has gone is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

/// Talk for stderr.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
