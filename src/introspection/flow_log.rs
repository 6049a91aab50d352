//! `flowlogs`: what happens to flows, as a stream of JSON lines: what `coracle flows -f` shows.
//!
//! `POST …/flowlogs?follow=true` tells every event from now on; `last=N` begins with the newest N that are still kept, and without
//! `follow` that is all. `verdict=dropped|forwarded`, `pod=NAMESPACE/NAME` and `namespace=NAME` (each may be repeated) choose; asked
//! in a namespace, only what a pod of it took part in is told. A client that is too slow loses events, not the network: a line
//! `lost_events` says how many.

use super::asker::Asker;
use super::hubble::Lens;
use super::lines::{self, Wanted, Whose};
use super::told::Told;
use super::{Sources, alive};
use apiserver::ApiServer;
use apiserver::extension::Connector;
use apiserver::request::Query;
use apiserver::status::Status;
use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::Response;
use netstack::FlowEvents;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;

/// Lines that go out together at most.
const TOGETHER: usize = 64;

pub(super) struct FlowLogs(pub(super) Arc<Sources>);

/// Which events are wanted.
struct Choice {
    verdict: Option<&'static str>,
    whose: Whose,
}

impl Choice {
    fn wants(&self, told: &Told) -> bool {
        self.verdict.is_none_or(|verdict| told.record["flow"]["verdict"] == verdict) && self.whose.includes(&told.pods)
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
        let choice = Choice { verdict: verdict(&query)?, whose: Whose::of(&query, &asker).await? };
        let Wanted { last, follow } = Wanted::of(&query)?;
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
        Ok(lines::response(server, lines))
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
        Some(if self.is_local { told.redacted(&self.choice.whose.namespaces) } else { told.record })
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
