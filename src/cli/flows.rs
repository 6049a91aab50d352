//! `flows`: the connection-tracking table of the virtual network; with `-f` or `--last`, its flow log, in Hubble's form.

use super::question::{self, Output};
use super::{ClusterName, get, lines, print, say};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::Value;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// List the live flows, or follow what happens to them
#[derive(Clone, Debug, Args)]
pub(crate) struct Flows {
    /// Only those with this verdict
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// Only those from or to this pod: POD or NAMESPACE/POD
    #[arg(long)]
    pod: Option<String>,
    /// Only those from or to pods of this namespace, which is also where a pod without one is looked for
    #[arg(short, long)]
    namespace: Option<String>,
    /// Follow the flow log: a line when a flow opens, is answered, ends, and for every packet that is not delivered
    #[arg(short, long)]
    follow: bool,
    /// Show this many of the flow log's newest events (4096 are kept); with -f, before what is new
    #[arg(long)]
    last: Option<usize>,
    /// Form of the answer. The flow log as json is a line per event, in the form that `hubble observe -o json` has
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
        query.extend(lines::whose(self.pod.as_deref(), self.namespace.as_deref()));
        if self.follow || self.last.is_some() {
            query.push(format!("follow={}", self.follow));
            query.extend(self.last.map(|last| format!("last={last}")));
            return self.log(&query.join("&")).await;
        }
        let query = query.join("&");
        if self.output == Output::Json {
            return question::print_json(&question::list(&self.cluster, "flows", &query, "application/json").await?);
        }
        let table = question::list(&self.cluster, "flows", &query, TABLE).await?;
        let text = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
        // The first column is a name that only repeats the others.
        let header = table["columnDefinitions"].as_array().into_iter().flatten().skip(1);
        let mut rows = vec![header.map(|column| text(&column["name"]).to_uppercase()).collect::<Vec<_>>()];
        for row in table["rows"].as_array().into_iter().flatten() {
            rows.push(row["cells"].as_array().into_iter().flatten().skip(1).map(text).collect());
        }
        if rows.len() == 1 {
            say("No flows found.");
            return Ok(());
        }
        print(&get::aligned(&rows));
        Ok(())
    }

    /// The flow log, line by line, until it ends or Ctrl-C.
    async fn log(&self, query: &str) -> Result<()> {
        lines::stream(&self.cluster, &format!("flowlogs?{query}"), |line| match self.output {
            Output::Json => Ok(format!("{line}\n")),
            Output::Text => Ok(compact(&serde_json::from_str(line).context("the flow log is not JSON")?)),
        })
        .await
    }
}

/// One event in one line.
fn compact(event: &Value) -> String {
    if let Some(lost) = lines::lost(event) {
        return lost;
    }
    let (flow, ours) = (&event["flow"], &event["coracle"]);
    let time = lines::time(event);
    let layer = ["TCP", "UDP", "SCTP"].iter().find_map(|name| flow["l4"].get(*name));
    let end = |end: &str, port: &str| {
        let names = (flow[end]["namespace"].as_str(), flow[end]["pod_name"].as_str());
        let name = match names {
            (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
            _ => flow["IP"][end].as_str().unwrap_or_default().to_owned(),
        };
        match layer.and_then(|layer| layer[port].as_u64()) {
            Some(port) => format!("{name}:{port}"),
            None => name,
        }
    };
    let arrow = if flow["is_reply"] == true { "<-" } else { "->" };
    // The flow as it was opened stands still; the arrow turns.
    let (from, to) = match flow["is_reply"] == true {
        false => (end("source", "source_port"), end("destination", "destination_port")),
        true => (end("destination", "destination_port"), end("source", "source_port")),
    };
    let service = match (ours["frontend"]["service"]["name"].as_str(), &ours["frontend"]["port"]) {
        (Some(name), port) => format!(" (svc/{name}:{port})"),
        _ => String::new(),
    };
    let verdict = match ours["reason"].as_str() {
        Some(reason) => format!("DROPPED {reason}"),
        None => format!("FORWARDED {}", ours["event"].as_str().unwrap_or_default()),
    };
    let mut text =
        format!("{time} {from} {arrow} {to}{service} {verdict} ({})", flow["Summary"].as_str().unwrap_or_default());
    if matches!(ours["event"].as_str(), Some("closed" | "reset" | "forgotten")) {
        let both = |counts: &Value| format!("{}/{}", counts["there"], counts["back"]);
        text.push_str(&format!(" {} packets, {} bytes", both(&ours["packets"]), both(&ours["bytes"])));
    }
    for why in ours["why"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!(": {why}"));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_a_line_with_names_verdict_and_reason() {
        let dropped = json!({"time": "2026-01-02T03:04:05.678901Z", "coracle": {"event": "dropped",
            "reason": "POLICY_DENIED_INGRESS", "why": ["d/db is isolated for ingress by d/db; no rule matched"]},
            "flow": {"IP": {"source": "10.244.1.2", "destination": "10.244.1.3"}, "is_reply": false,
            "l4": {"TCP": {"source_port": 40000, "destination_port": 80}}, "Summary": "TCP Flags: SYN",
            "source": {"identity": 2}, "destination": {"namespace": "d", "pod_name": "db"}}});
        assert_eq!(
            compact(&dropped),
            "2026-01-02 03:04:05.678 10.244.1.2:40000 -> d/db:80 DROPPED POLICY_DENIED_INGRESS (TCP Flags: SYN): \
             d/db is isolated for ingress by d/db; no rule matched\n"
        );
        let lost = json!({"lost_events": {"num_events_lost": 7}});
        assert_eq!(compact(&lost), "7 events were lost: they came faster than they were read\n");
    }
}
