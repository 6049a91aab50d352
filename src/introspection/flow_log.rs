//! `flowlogs`: what happens to flows, as a stream of JSON lines: what `coracle flows -f` shows.
//!
//! `POST …/flowlogs?follow=true` tells every event from now on; `last=N` begins with the newest N that are still kept, and without
//! `follow` that is all. `verdict=dropped|forwarded`, `pod=NAMESPACE/NAME` and `namespace=NAME` (each may be repeated) choose; asked
//! in a namespace, only what a pod of it took part in is told. A client that is too slow loses events, not the network: a line
//! `lost_events` says how many.

use super::asker::Asker;
use super::hubble::{Lens, Told};
use super::{Sources, alive};
use apiserver::ApiServer;
use apiserver::extension::Connector;
use apiserver::request::Query;
use apiserver::status::Status;
use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures::StreamExt;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use netstack::FlowEvents;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

const MEDIA_TYPE: &str = "application/x-ndjson";
/// Without `last` and `follow`, as many are told.
const LAST: usize = 20;
/// Lines that go out together at most.
const TOGETHER: usize = 64;

pub(super) struct FlowLogs(pub(super) Arc<Sources>);

/// Which events are wanted.
struct Choice {
    verdict: Option<&'static str>,
    pods: Vec<String>,
    namespaces: Vec<String>,
}

impl Choice {
    fn of(query: &Query, asker: &Asker) -> Result<Choice, Status> {
        let home = asker.home("");
        let pods = query.values("pod").map(|pod| match pod.contains('/') {
            true => pod.to_owned(),
            false => format!("{home}/{pod}"),
        });
        let own = asker.namespace().into_iter();
        let namespaces: Vec<String> = own.chain(query.values("namespace")).map(str::to_owned).collect();
        Ok(Choice { verdict: verdict(query)?, pods: pods.collect(), namespaces })
    }

    fn wants(&self, told: &Told) -> bool {
        self.verdict.is_none_or(|verdict| told.record["flow"]["verdict"] == verdict)
            && (self.pods.is_empty() || self.pods.iter().any(|pod| told.pods.contains(pod)))
            && (self.namespaces.is_empty() || self.namespaces.iter().any(|namespace| told.is_in(namespace)))
    }
}

/// The verdict that a query wants, as Hubble writes it.
pub(super) fn verdict(query: &Query) -> Result<Option<&'static str>, Status> {
    match query.text("verdict").map(str::to_ascii_lowercase).as_deref() {
        None => Ok(None),
        Some("dropped") => Ok(Some("DROPPED")),
        Some("forwarded") => Ok(Some("FORWARDED")),
        Some(other) => {
            let why = format!("verdict: Unsupported value: {other:?}: supported values: \"dropped\", \"forwarded\"");
            Err(Status::bad_request(why))
        }
    }
}

/// Who asks in a namespace is told of no policy of others.
fn redact(record: &mut Value, namespaces: &[String]) {
    let mut hidden = false;
    for list in ["egress_allowed_by", "egress_denied_by", "ingress_allowed_by", "ingress_denied_by"] {
        let Some(policies) = record["flow"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        let before = policies.len();
        policies.retain(|policy| match policy["namespace"].as_str() {
            Some(namespace) => namespaces.iter().any(|own| own == namespace),
            None => true,
        });
        hidden |= policies.len() < before;
    }
    if hidden && let Some(ours) = record["coracle"].as_object_mut() {
        ours.remove("why");
    }
}

struct Reader {
    events: FlowEvents,
    lens: Lens,
    choice: Choice,
    lost: u64,
    /// What is to be told before anything new.
    waiting: VecDeque<Value>,
    follow: bool,
    /// Asked in a namespace, not of the whole cluster.
    is_local: bool,
}

#[async_trait]
impl Connector for FlowLogs {
    async fn connect(&self, server: &ApiServer, request: Request) -> Result<Response, Status> {
        let asker = Asker::of(server, request.extensions())?;
        let query = Query::new(request.uri());
        let choice = Choice::of(&query, &asker)?;
        for namespace in &choice.namespaces {
            asker.may_ask_in(namespace).await?;
        }
        for pod in &choice.pods {
            asker.may_see(Some(pod)).await?;
        }
        let follow = query.flag("follow");
        let last = match query.text("last") {
            None if follow => 0,
            None => LAST,
            Some(text) => text.parse().map_err(|_| {
                Status::bad_request(format!("last: Invalid value: {text:?}: must be a number of events, 0 or more"))
            })?,
        };
        alive(&self.0.policy)?;
        let only_drops = choice.verdict == Some("DROPPED");
        let events = self.0.network.flow_events(only_drops, if last == 0 { 0 } else { usize::MAX });
        let lens = Lens::new(&self.0, server.now());
        let is_local = asker.namespace().is_some();
        let mut reader = Reader { events, lens, choice, lost: 0, waiting: VecDeque::new(), follow, is_local };
        reader.look_back(last);
        let lines = futures::stream::unfold(reader, |mut reader| async move {
            let lines = reader.lines().await?;
            Some((lines, reader))
        });
        let mut stopping = server.stopping();
        let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
        let stream = lines.take_until(stopped).map(Ok::<_, std::convert::Infallible>);
        let mut response = Response::new(Body::from_stream(stream));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

impl Reader {
    /// Takes the newest `last` wanted events of those that are kept.
    fn look_back(&mut self, last: usize) {
        while last > 0
            && let Some(event) = self.events.take()
        {
            let Some(record) = self.lens.record(&event).and_then(|told| self.wanted(told)) else { continue };
            if self.waiting.len() >= last {
                self.waiting.pop_front();
            }
            self.waiting.push_back(record);
        }
    }

    fn wanted(&self, told: Told) -> Option<Value> {
        if !self.choice.wants(&told) {
            return None;
        }
        let mut record = told.record;
        if self.is_local {
            redact(&mut record, &self.choice.namespaces);
        }
        Some(record)
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
            let mut event = Some(self.events.next().await?);
            let lost = self.events.lost();
            if lost > self.lost {
                out.push_str(&format!("{}\n", self.lens.lost(lost - self.lost)));
                self.lost = lost;
            }
            // What is there already goes out with it.
            for _ in 0..TOGETHER {
                let Some(current) = event else { break };
                let told = self.lens.record(&current)?;
                if let Some(record) = self.wanted(told) {
                    out.push_str(&format!("{record}\n"));
                }
                event = self.events.take();
            }
            if let Some(left) = event {
                let told = self.lens.record(&left)?;
                self.waiting.extend(self.wanted(told));
            }
        }
        Some(out.into())
    }
}
