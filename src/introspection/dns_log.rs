//! `dnslogs`: what pods ask the cluster's DNS and are told, as a stream of JSON lines: what `coracle dns-log` shows.
//!
//! `POST …/dnslogs?follow=true` tells every query from now on. `last=N` begins with the newest N that are kept: those since somebody
//! reads the log, or since the cluster was started with `--dns-log`. `pod=NAMESPACE/NAME` and `namespace=NAME` (each may be
//! repeated) choose; asked in a namespace, only what its pods asked is told. A client that is too slow loses queries, not the
//! cluster its DNS: a line `lost_events` says how many.
//!
//! Each line says to which look-up of the pod's stub resolver the query belongs, and whether it was in vain, which is what
//! `ndots` and the search list cost.

use super::asker::Asker;
use super::lines::{self, Clock, Wanted, Whose};
use super::{Sources, alive};
use apiserver::ApiServer;
use apiserver::extension::Connector;
use apiserver::request::Query;
use apiserver::status::Status;
use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::Response;
use dns::{LoggedQuery, Queries, Source, Transport};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

/// Lines that go out together at most.
const TOGETHER: usize = 64;
/// SEMANTICS 13.1.
const FAULT_INJECTED: &str = "FAULT_INJECTED";

pub(super) struct DnsLogs(pub(super) Arc<Sources>);

struct Reader {
    queries: Queries,
    whose: Whose,
    clock: Clock,
    nodes: HashMap<IpAddr, String>,
    lost: u64,
    /// What is to be told before anything new.
    waiting: VecDeque<Value>,
    follow: bool,
}

#[async_trait]
impl Connector for DnsLogs {
    async fn connect(&self, server: &ApiServer, request: Request) -> Result<Response, Status> {
        let asker = Asker::of(server, request.extensions())?;
        let query = Query::new(request.uri());
        let whose = Whose::of(&query, &asker).await?;
        let Wanted { last, follow } = Wanted::of(&query)?;
        let dns = alive(&self.0.dns)?;
        if !follow && !dns.keeps_queries() {
            return Err(Status::bad_request(
                "no queries are kept: follow the log (follow=true, `coracle dns-log -f`), or start the cluster with --dns-log",
            ));
        }
        let mut reader = Reader {
            queries: dns.queries(last > 0),
            whose,
            clock: Clock::new(server.now()),
            nodes: self.0.node_names(),
            lost: 0,
            waiting: VecDeque::new(),
            follow,
        };
        reader.look_back(last);
        let lines = futures::stream::unfold(reader, |mut reader| async move {
            let lines = reader.lines().await?;
            Some((lines, reader))
        });
        Ok(lines::response(server, lines))
    }
}

impl Reader {
    /// Takes the newest `last` wanted queries of those that are kept.
    fn look_back(&mut self, last: usize) {
        while last > 0
            && let Some(query) = self.queries.take()
        {
            let Some(record) = self.wanted(&query) else { continue };
            if self.waiting.len() >= last {
                self.waiting.pop_front();
            }
            self.waiting.push_back(record);
        }
    }

    /// The next lines; `None` at the end.
    async fn lines(&mut self) -> Option<Bytes> {
        let mut out = String::new();
        for record in self.waiting.drain(..) {
            out.push_str(&format!("{record}\n"));
        }
        while out.is_empty() {
            if !self.follow {
                return None;
            }
            let mut next = Some(self.queries.next().await?);
            let lost = self.queries.lost();
            if lost > self.lost {
                let count = lost - std::mem::replace(&mut self.lost, lost);
                out.push_str(&format!("{}\n", json!({"lost_events": {"num_events_lost": count}})));
            }
            // What is there already goes out with it.
            for _ in 1..TOGETHER {
                let Some(query) = next else { break };
                if let Some(record) = self.wanted(&query) {
                    out.push_str(&format!("{record}\n"));
                }
                next = self.queries.take();
            }
            if let Some(query) = next {
                self.waiting.extend(self.wanted(&query));
            }
        }
        Some(out.into())
    }

    fn wanted(&self, query: &LoggedQuery) -> Option<Value> {
        let pods: Vec<String> = query.pod.iter().map(|pod| pod.to_string()).collect();
        self.whose.includes(&pods).then(|| self.record(query))
    }

    fn record(&self, query: &LoggedQuery) -> Value {
        let mut record = json!({
            "time": self.clock.time(query.at),
            "from": query.from,
            "transport": match query.transport {
                Transport::Udp => "UDP",
                Transport::Tcp => "TCP",
            },
            "name": query.name,
            "type": query.record_type,
            "rcode": query.rcode,
            "answers": query.answers,
            "source": source(query.source),
            "microseconds": u64::try_from(query.took.as_micros()).unwrap_or(u64::MAX),
        });
        if let Some(pod) = &query.pod {
            record["pod"] = (**pod).into();
        } else if let Some(node) = self.nodes.get(&query.from) {
            record["node"] = node.as_str().into();
        }
        if let Some(step) = &query.step {
            record["lookup"] = json!({
                "number": step.lookup, "name": step.name, "step": step.step, "steps": step.steps,
                "inVain": query.rcode.as_deref() == Some("NXDOMAIN"), "inVainBefore": step.in_vain,
            });
        }
        if let Some(name) = &query.autopath {
            record["autopath"] = name.as_str().into();
        }
        if !query.faults.is_empty() {
            record["reason"] = FAULT_INJECTED.into();
            record["faults"] = json!(query.faults);
        }
        record
    }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Server => "server",
        Source::Zone => "zone",
        Source::Hosts => "hosts",
        Source::Cache => "cache",
        Source::Upstream => "upstream",
        Source::StubDomain => "stub",
        Source::Nobody => "none",
        Source::Fault => "fault",
    }
}
