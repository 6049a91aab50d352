//! `run`: a throw-away cluster around a command.

use super::signals::{self, Signals};
use anyhow::{Context, Result};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use std::process::ExitCode;

/// Run a command with a throw-away cluster around it
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    options: super::ClusterOptions,
    /// Make NodePorts and load balancers reachable on loopback addresses
    #[arg(long)]
    host_ports: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let mut signals = Signals::new()?;
        let dir =
            tempfile::Builder::new().prefix("coracle-run-").tempdir().context("cannot make a temporary directory")?;
        let builder = self
            .options
            .builder()
            .api("127.0.0.1:0".parse().context("an address")?)
            .unix_socket(dir.path().join("api.sock"))
            .host_ports(self.host_ports)
            .forward_outside(true);
        let cluster = tokio::select! {
            started = builder.start() => started.map_err(super::dns_flags::hint)?,
            signal = signals.next() => return Ok(signals::exit_code(signal)),
        };
        let kubeconfig = dir.path().join("kubeconfig");
        super::up::write_private(&kubeconfig, &cluster.kubeconfig("coracle").context("the API has no address")?)?;
        let [program, arguments @ ..] = self.command.as_slice() else { unreachable!("clap requires a command") };
        let spawned = tokio::process::Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", &kubeconfig)
            .env("CORACLE_SOCKET", dir.path().join("api.sock"))
            .envs(cluster.dns_address().map(|address| ("CORACLE_DNS", address.to_string())))
            .kill_on_drop(true)
            .spawn();
        let status = match spawned {
            Ok(mut child) => {
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
                loop {
                    tokio::select! {
                        status = child.wait() => break status.with_context(|| format!("waiting for {program}")),
                        signal = signals.next() => match pid {
                            // The terminal's Ctrl-C goes to the command too. The cluster waits for it to end.
                            Some(pid) if signal != Signal::INT => drop(kill_process(pid, signal)),
                            _ => {}
                        }
                    }
                }
            }
            Err(error) => Err(error).with_context(|| format!("cannot run {program}")),
        };
        cluster.stop().await;
        Ok(exit_code(status?))
    }
}

/// As a shell has it: death by signal n is 128+n.
fn exit_code(status: std::process::ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
