//! `dns-log`: what pods ask the cluster's DNS, what they are told, and which of it their search lists ask in vain.

use super::question::Output;
use super::{ClusterName, lines, say};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeSet;

/// Show what pods ask the cluster's DNS
#[derive(Clone, Debug, Args)]
pub(crate) struct DnsLog {
    /// Only what this pod asks: POD or NAMESPACE/POD
    #[arg(long)]
    pod: Option<String>,
    /// Only what pods of this namespace ask, which is also where a pod without one is looked for
    #[arg(short, long)]
    namespace: Option<String>,
    /// Show queries as they come; while somebody does, the log is on
    #[arg(short, long)]
    follow: bool,
    /// Show this many of the newest queries that are kept (up to 4096 with `coracle up --dns-log`); with -f, before what is new
    #[arg(long)]
    last: Option<usize>,
    /// Form of the answer; json is a line per query
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterName,
}

impl DnsLog {
    pub(crate) async fn run(self) -> Result<()> {
        let mut query = vec![format!("follow={}", self.follow)];
        query.extend(lines::whose(self.pod.as_deref(), self.namespace.as_deref()));
        query.extend(self.last.map(|last| format!("last={last}")));
        let mut sum = Sum::default();
        let ended = lines::stream(&self.cluster, &format!("dnslogs?{}", query.join("&")), |line| match self.output {
            Output::Json => Ok(format!("{line}\n")),
            Output::Text => {
                let query = serde_json::from_str(line).context("the query log is not JSON")?;
                sum.add(&query);
                Ok(compact(&query))
            }
        })
        .await;
        if let Some(text) = sum.text() {
            say(&text);
        }
        ended
    }
}

/// What all lines come to.
#[derive(Default)]
struct Sum {
    queries: u64,
    in_vain: u64,
    lookups: BTreeSet<u64>,
}

impl Sum {
    fn add(&mut self, query: &Value) {
        let lookup = &query["lookup"];
        let Some(number) = lookup["number"].as_u64() else { return };
        self.queries += 1;
        self.lookups.insert(number);
        // The last name of a list is the one that was meant.
        self.in_vain += u64::from(lookup["inVain"] == true && lookup["step"] != lookup["steps"]);
    }

    /// Says what the search lists cost, if they have.
    fn text(&self) -> Option<String> {
        let count = |number: u64, one: &str, more: &str| format!("{number} {}", if number == 1 { one } else { more });
        (self.in_vain > 0).then(|| {
            format!(
                "\n{} of {}, {} in vain for names that a search list made up.\nhint: a dot at the end of a name, a smaller ndots in a \
                 pod's dnsConfig, or `coracle up --dns-autopath` spares them",
                count(self.queries, "query", "queries"),
                count(self.lookups.len() as u64, "look-up", "look-ups"),
                self.in_vain
            )
        })
    }
}

/// One query in one line.
fn compact(query: &Value) -> String {
    if let Some(lost) = lines::lost(query) {
        return lost;
    }
    let word = |field: &str| query[field].as_str().unwrap_or_default();
    let who = ["pod", "node", "from"].into_iter().map(word).find(|who| !who.is_empty()).unwrap_or_default();
    let mut text = format!("{} {who} {} {} ", lines::time(query), word("type"), word("name"));
    match (query["rcode"].as_str(), query["answers"].as_u64().unwrap_or_default()) {
        (None, _) => text.push_str("NO ANSWER"),
        (Some("NOERROR"), 0) => text.push_str("NODATA"),
        (Some(code), 0) => text.push_str(code),
        (Some(code), 1) => text.push_str(&format!("{code} 1 record")),
        (Some(code), count) => text.push_str(&format!("{code} {count} records")),
    }
    let over = if word("transport") == "TCP" { ", over TCP" } else { "" };
    let time = query["microseconds"].as_f64().unwrap_or_default() / 1000.0;
    text.push_str(&format!(" ({}, {time:.2} ms{over})", word("source")));
    let lookup = &query["lookup"];
    if let Some(number) = lookup["number"].as_u64() {
        let name = lookup["name"].as_str().unwrap_or_default();
        text.push_str(&format!(" #{number} {name} {}/{}", lookup["step"], lookup["steps"]));
        match (lookup["inVain"] == true, lookup["inVainBefore"].as_u64().unwrap_or_default()) {
            (true, _) => text.push_str(" in vain"),
            (false, 0) => {}
            (false, before) => text.push_str(&format!(" after {before} in vain")),
        }
    }
    if let Some(found) = query["autopath"].as_str() {
        text.push_str(&format!(" autopath {found}"));
    }
    if let Some(reason) = query["reason"].as_str() {
        let faults: Vec<&str> = query["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        text.push_str(&format!(" {reason}: {}", faults.join("; ")));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn query(more: Value) -> Value {
        let mut query = json!({"time": "2026-01-02T03:04:05.678901Z", "from": "10.244.1.2", "pod": "default/client",
            "transport": "UDP", "name": "db.prod.svc.cluster.local.", "type": "A", "rcode": "NOERROR", "answers": 1,
            "source": "zone", "microseconds": 21});
        for (key, value) in more.as_object().into_iter().flatten() {
            query[key] = value.clone();
        }
        query
    }

    #[test]
    fn a_query_is_a_line_that_says_what_it_was_for_and_whether_it_was_in_vain() {
        let begins = "2026-01-02 03:04:05.678 default/client A db.prod.svc.cluster.local. ";
        let lookup = |in_vain: bool, before: u32| json!({"number": 7, "name": "db.prod", "step": 2, "steps": 4, "inVain": in_vain, "inVainBefore": before});
        for (more, ends) in [
            (json!({}), "NOERROR 1 record (zone, 0.02 ms)\n"),
            (json!({"lookup": lookup(false, 2)}), "NOERROR 1 record (zone, 0.02 ms) #7 db.prod 2/4 after 2 in vain\n"),
            (
                json!({"lookup": lookup(true, 2), "rcode": "NXDOMAIN", "answers": 0}),
                "NXDOMAIN (zone, 0.02 ms) #7 db.prod 2/4 in vain\n",
            ),
            (
                json!({"rcode": null, "answers": 0, "source": "fault", "reason": "FAULT_INJECTED", "faults": ["drop"]}),
                "NO ANSWER (fault, 0.02 ms) FAULT_INJECTED: drop\n",
            ),
            (
                json!({"answers": 2, "transport": "TCP", "autopath": "db.prod.example."}),
                "NOERROR 2 records (zone, 0.02 ms, over TCP) autopath db.prod.example.\n",
            ),
            (json!({"answers": 0}), "NODATA (zone, 0.02 ms)\n"),
        ] {
            assert_eq!(compact(&query(more)), format!("{begins}{ends}"));
        }
    }

    #[test]
    fn at_the_end_stands_what_the_search_lists_cost_if_they_cost_anything() {
        let mut sum = Sum::default();
        sum.add(&query(json!({"lookup": {"number": 1, "step": 4, "steps": 4, "inVain": true}})));
        assert_eq!(sum.text(), None, "a name that is nowhere is no list's fault");
        for step in [1, 1, 2] {
            sum.add(&query(json!({"lookup": {"number": 2, "step": step, "steps": 4, "inVain": step == 1}})));
        }
        let text = sum.text().expect("a sum");
        assert!(
            text.starts_with("\n4 queries of 2 look-ups, 2 in vain for names that a search list made up.\n"),
            "{text}"
        );
    }
}
