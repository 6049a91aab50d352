//! What the network counts, in `/metrics` of the API: packets by verdict, drops by reason and direction, flows, the flow log.

use super::Sources;
use super::hubble::direction;
use std::fmt::Write;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes the families; nothing once the cluster has stopped.
pub(super) fn write(sources: &Weak<Sources>, suppressed: &AtomicU64, out: &mut String) {
    let Some(sources) = sources.upgrade() else { return };
    let (counters, drops) = (sources.network.counters(), sources.network.drops());
    let mut family = |name: &str, kind: &str, help: &str, series: &[(String, u64)]| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in series {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let one = |value: u64| [(String::new(), value)];
    family("coracle_forward_packets_total", "counter", "Packets delivered.", &one(counters.forwarded_packets));
    family("coracle_forward_bytes_total", "counter", "Bytes of packets delivered.", &one(counters.forwarded_bytes));
    let dropped: Vec<(String, u64)> = drops
        .iter()
        .map(|(reason, count)| {
            let (direction, code) = (direction(*reason), policy::reason::code(*reason));
            (format!("{{direction=\"{direction}\",reason=\"{code}\"}}"), *count)
        })
        .collect();
    let help = "Packets not delivered, by why and by whose side that was decided (egress: the source's).";
    family("coracle_drop_packets_total", "counter", help, &dropped);
    let verdicts = [
        ("{verdict=\"FORWARDED\"}".to_owned(), counters.flows_opened),
        ("{verdict=\"DROPPED\"}".to_owned(), counters.flows_refused),
    ];
    family("coracle_flow_verdicts_total", "counter", "First packets of flows, by what became of them.", &verdicts);
    family("coracle_flows", "gauge", "Flows in the connection-tracking table.", &one(counters.flows));
    family("coracle_flow_limit", "gauge", "Flows that the table may hold.", &one(counters.flow_limit));
    family("coracle_flow_log_events_total", "counter", "Events of the flow log.", &one(counters.events));
    let help = "Denials without an Event of their own, since their pod had caused many.";
    family("coracle_policy_events_suppressed_total", "counter", help, &one(suppressed.load(Ordering::Relaxed)));
}
