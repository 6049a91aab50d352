//! `exec`: a command in a container, over the same WebSocket protocol as kubectl's.

use super::remote::{self, Remote};
use super::{Scope, get, say};
use anyhow::{Context, Result};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use std::process::ExitCode;
use tokio::io::AsyncWriteExt;

/// Run a command in a container
#[derive(Clone, Debug, Args)]
pub(crate) struct Exec {
    /// The pod: NAME or pod/NAME
    pod: String,
    #[command(flatten)]
    scope: Scope,
    /// The container, if the pod has several
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// With a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let remote = Remote::connect(&self.scope.cluster)?;
        let pods: Api<Pod> = Api::namespaced(remote.client.clone(), &self.scope.namespace);
        let mut params = AttachParams::default().stdin(self.stdin).stdout(true).stderr(!self.tty).tty(self.tty);
        if let Some(container) = &self.container {
            params = params.container(container);
        }
        let mut process =
            pods.exec(get::pod_name(&self.pod)?, &self.command, &params).await.map_err(remote::explain)?;
        let status = process.take_status().context("the server sends no status")?;
        let input = process.stdin();
        let mut output = process.stdout().context("the server sends no output")?;
        let errors = process.stderr();
        if let Some(mut input) = input {
            // Ends with the process: a read of the terminal cannot be interrupted.
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut input).await;
                let _ = input.shutdown().await;
            });
        }
        let copy_errors = async {
            if let Some(mut errors) = errors {
                let _ = tokio::io::copy(&mut errors, &mut tokio::io::stderr()).await;
            }
        };
        let mut stdout = tokio::io::stdout();
        let (copied, (), status) = tokio::join!(tokio::io::copy(&mut output, &mut stdout), copy_errors, status);
        let _ = copied;
        stdout.flush().await?;
        let Some(status) = status else { anyhow::bail!("the connection ended before the command did") };
        if status.status.as_deref() == Some("Success") {
            return Ok(ExitCode::SUCCESS);
        }
        let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
        let code = causes
            .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
            .find_map(|cause| cause.message.as_deref()?.parse::<u8>().ok());
        match code {
            Some(code) => Ok(ExitCode::from(code)),
            None => {
                say(&format!("error: {}", status.message.unwrap_or_default()));
                Ok(ExitCode::FAILURE)
            }
        }
    }
}
