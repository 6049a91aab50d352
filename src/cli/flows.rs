//! `flows`: the connection-tracking table of the virtual network.

use super::question::{self, Output};
use super::{ClusterName, get, print, say};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::Value;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// List the live flows
#[derive(Clone, Debug, Args)]
pub(crate) struct Flows {
    /// Only those with this verdict
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// Only those from or to this pod: NAMESPACE/POD
    #[arg(long)]
    pod: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verdict {
    Forwarded,
    Dropped,
}

impl Flows {
    pub(crate) async fn run(self) -> Result<()> {
        let mut query = Vec::new();
        if let Some(verdict) = self.verdict {
            query.push(format!("verdict={}", format!("{verdict:?}").to_lowercase()));
        }
        if let Some(pod) = &self.pod {
            let pod = if pod.contains('/') { pod.clone() } else { format!("default/{pod}") };
            query.push(format!("pod={}", super::remote::encode(&pod)));
        }
        let query = query.join("&");
        if self.output == Output::Json {
            return question::print_json(&question::list(&self.cluster, "flows", &query, "application/json").await?);
        }
        let table = question::list(&self.cluster, "flows", &query, TABLE).await?;
        let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
        // The first column is a name that only repeats the others.
        let header = table["columnDefinitions"].as_array().into_iter().flatten().skip(1);
        let mut lines = vec![header.map(|column| text(&column["name"]).to_uppercase()).collect::<Vec<_>>()];
        for row in table["rows"].as_array().into_iter().flatten() {
            lines.push(row["cells"].as_array().into_iter().flatten().skip(1).map(text).collect());
        }
        if lines.len() == 1 {
            say("No flows found.");
            return Ok(());
        }
        print(&get::aligned(&lines));
        Ok(())
    }
}
