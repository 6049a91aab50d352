//! `logs`: a container's output.

use super::remote::{self, Remote};
use super::{Scope, get};
use anyhow::Result;
use clap::Args;
use futures::AsyncReadExt;
use http::Request;
use std::io::Write;

/// Show a container's output
#[derive(Clone, Debug, Args)]
pub(crate) struct Logs {
    /// The pod: NAME or pod/NAME
    pod: String,
    #[command(flatten)]
    scope: Scope,
    /// The container, if the pod has several
    #[arg(short, long)]
    container: Option<String>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// The run before this one
    #[arg(short, long)]
    previous: bool,
    /// Only the last so many lines
    #[arg(long)]
    tail: Option<u64>,
    /// The time before each line
    #[arg(long)]
    timestamps: bool,
}

impl Logs {
    pub(crate) async fn run(self) -> Result<()> {
        let remote = Remote::connect(&self.scope.cluster)?;
        let pod = remote::encode(get::pod_name(&self.pod)?);
        let mut url = format!(
            "/api/v1/namespaces/{}/pods/{pod}/log?follow={}&previous={}&timestamps={}",
            remote::encode(&self.scope.namespace),
            self.follow,
            self.previous,
            self.timestamps
        );
        if let Some(container) = &self.container {
            url.push_str(&format!("&container={}", remote::encode(container)));
        }
        if let Some(tail) = self.tail {
            url.push_str(&format!("&tailLines={tail}"));
        }
        let mut reader =
            remote.client.request_stream(Request::get(url).body(Vec::new())?).await.map_err(remote::explain)?;
        let mut reader = std::pin::pin!(&mut reader);
        let mut buffer = vec![0; 32 << 10];
        loop {
            match reader.read(&mut buffer).await? {
                0 => return Ok(()),
                length => {
                    if std::io::stdout().write_all(&buffer[..length]).and_then(|()| std::io::stdout().flush()).is_err()
                    {
                        return Ok(());
                    }
                }
            }
        }
    }
}
