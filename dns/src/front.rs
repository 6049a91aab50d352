//! What becomes of a request, whichever front end it came by: faults, the answer, autopath, and the query log.
//!
//! What can be answered from memory is answered at once ([`Resolver::begin`]); only what has to wait, for another server or for an
//! injected delay, becomes a future ([`Resolver::finish`]), so that the front ends need no task for the common case.

use crate::answered::addresses;
use crate::autopath::{Walk, Walked};
use crate::fault::{End, Struck};
use crate::query_log::{Entry, Outcome, Source};
use crate::request::Request;
use crate::resolver::{Forwarded, Resolved, Resolver};
use crate::wire::{Received, Reply, Transport, receive};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

/// The response code of a message's fourth byte.
const CODE: u8 = 15;
const NXDOMAIN: u8 = 3;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// `None`: a tool of this process, whose questions are not written down.
    pub(crate) from: Option<IpAddr>,
    pub(crate) transport: Transport,
    /// On the cluster's network, where a listener is told of the answers.
    pub(crate) is_inside: bool,
}

/// How far a request came without waiting.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a reply is sent at once: boxed, each query would pay for it")]
pub(crate) enum Begun {
    /// It is no request.
    Noise,
    /// It is not answered: a fault.
    Lost,
    /// Send this.
    Done(Reply),
    /// Wait.
    Waiting(Box<Waiting>),
}

/// A request that has to wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) next: Next,
    /// The time it is delayed, and its place among those that are.
    delay: Option<(Duration, OwnedSemaphorePermit)>,
    entry: Option<Entry>,
    asker: Asker,
}

/// What it waits for.
#[derive(Debug)]
pub(crate) enum Next {
    /// Only its delay.
    Reply(Reply),
    /// Another server's answer.
    Ask(Forwarded),
    /// The same, on a walk along a search list.
    Walk(Forwarded, Box<Walk>),
}

impl Resolver {
    /// Writes the reply to a request that the zone's prebuilt answers know; false: it has to go through [`Resolver::begin`].
    pub(crate) fn answer_at_once(&self, request: &[u8], asker: Asker, reply: &mut Vec<u8>) -> bool {
        let is_watched = asker.from.is_some_and(|from| self.log.is_on() || self.clients.meets_faults(from));
        let is_watched = is_watched || asker.is_inside && self.listener.as_ref().is_some_and(|it| it.wants_zone());
        // Whoever reads the log wants to see every query in it.
        if !self.zone_first || is_watched || tracing::enabled!(tracing::Level::DEBUG) {
            return false;
        }
        let Some(request) = Request::read(request) else { return false };
        let answered = self.zone.load().answer_at_once(&request, asker.transport, &self.order, reply);
        if !answered || self.autopath && reply[3] & CODE == NXDOMAIN {
            return false;
        }
        self.counters.request(asker.transport);
        self.counters.response(u16::from(reply[3] & CODE));
        true
    }

    /// Answers a request, waiting if need be. `None`: it is no request, or it is lost.
    pub(crate) async fn answer(&self, request: &[u8], asker: Asker) -> Option<Reply> {
        match self.begin(request, asker) {
            Begun::Noise | Begun::Lost => None,
            Begun::Done(reply) => Some(reply),
            Begun::Waiting(waiting) => Some(self.finish(*waiting).await),
        }
    }

    /// Answers a request as far as that needs no waiting.
    pub(crate) fn begin(&self, request: &[u8], asker: Asker) -> Begun {
        let (question, reply) = match receive(request, asker.transport) {
            Received::Noise => return Begun::Noise,
            Received::Refused(reply) => {
                self.counters.request(asker.transport);
                let question = reply.message.queries.first();
                let entry = question.and_then(|question| self.entry(asker, &question.name, question.query_type));
                self.tell(&reply, asker, entry);
                return Begun::Done(reply);
            }
            Received::Question(question, reply) => (question, reply),
        };
        self.counters.request(asker.transport);
        let (name, kind) = (question.name, question.query_type);
        let mut entry = self.entry(asker, &name, kind);
        let client = asker.from.and_then(|from| self.clients.at(from));
        let faults = client.as_ref().and_then(|client| client.faults.as_ref());
        let struck = faults.map(|faults| faults.strike(&name, kind, &mut *self.chance.lock())).unwrap_or_default();
        if let Some(entry) = &mut entry {
            entry.faults.clone_from(&struck.by);
        }
        let Struck { delay, end, .. } = struck;
        let next = match end {
            Some(End::Drop) => return self.lose(entry),
            Some(End::Answer(code)) => Next::Reply(self.fault(&name, code, reply)),
            None => {
                let blank = self.autopath.then(|| reply.clone());
                match self.resolve(&name, kind, reply) {
                    Resolved::Elsewhere(forwarded) => Next::Ask(forwarded),
                    Resolved::Done(denial) if denial.message.metadata.response_code == ResponseCode::NXDomain => {
                        let walk = client.zip(blank).filter(|_| self.zone.load().contains(&name));
                        match walk.and_then(|(client, blank)| Walk::of(&client, &name, kind, &blank, &denial)) {
                            Some(walk) => walk.go(self).into(),
                            None => Next::Reply(denial),
                        }
                    }
                    Resolved::Done(reply) => Next::Reply(reply),
                }
            }
        };
        let delay = match delay {
            Duration::ZERO => None,
            delay => match self.delayed.clone().try_acquire_owned() {
                Ok(permit) => Some((delay, permit)),
                // As on a slow line that is full.
                Err(_) => return self.lose(entry),
            },
        };
        match (next, delay) {
            (Next::Reply(reply), None) => {
                self.tell(&reply, asker, entry);
                Begun::Done(reply)
            }
            (next, delay) => Begun::Waiting(Box::new(Waiting { next, delay, entry, asker })),
        }
    }

    /// Waits as long as it has to.
    pub(crate) async fn finish(&self, waiting: Waiting) -> Reply {
        let Waiting { mut next, delay, entry, asker } = waiting;
        if let Some((delay, _permit)) = delay {
            tokio::time::sleep(delay).await;
        }
        let reply = loop {
            next = match next {
                Next::Reply(reply) => break reply,
                Next::Ask(forwarded) => Next::Reply(self.ask(forwarded).await),
                Next::Walk(forwarded, walk) => walk.go_on(self.ask(forwarded).await, self).into(),
            };
        };
        self.tell(&reply, asker, entry);
        reply
    }

    /// What the log has to say of a query, if somebody wants to know.
    fn entry(&self, asker: Asker, name: &Name, kind: RecordType) -> Option<Entry> {
        let from = asker.from.filter(|_| self.log.is_on())?;
        Some(self.log.begin((from, self.clients.at(from)), asker.transport, (name, kind)))
    }

    fn lose(&self, entry: Option<Entry>) -> Begun {
        if let Some(entry) = entry {
            self.log.end(entry, &Outcome { code: None, answers: 0, source: Source::Fault, autopath: None });
        }
        Begun::Lost
    }

    /// The answer that a fault gives.
    fn fault(&self, name: &Name, code: ResponseCode, reply: Reply) -> Reply {
        let mut reply = reply.with_code(code);
        reply.source = Source::Fault;
        let zone = self.zone.load();
        if code == ResponseCode::NXDomain && zone.contains(name) {
            reply.message.metadata.authoritative = true;
            reply.message.authorities.push(zone.soa(zone.origin.clone()));
        }
        reply
    }

    /// Counts a reply that is about to be sent, writes it down and tells of it.
    fn tell(&self, reply: &Reply, asker: Asker, entry: Option<Entry>) {
        let message = &reply.message;
        if let Some(listener) = self.listener.as_ref().filter(|_| asker.is_inside) {
            let answers = addresses(message);
            if !answers.is_empty() {
                listener.answered(&answers);
            }
        }
        let (code, answers) = (message.metadata.response_code, message.answers.len());
        self.counters.response(code.into());
        if reply.autopath.is_some() {
            self.counters.autopath();
        }
        if let Some(question) = message.queries.first() {
            debug!(name = %question.name, kind = %question.query_type, %code, answers, "query answered");
        }
        if let Some(entry) = entry {
            let (source, autopath) = (reply.source, reply.autopath.as_ref());
            self.log.end(entry, &Outcome { code: Some(code), answers, source, autopath });
        }
    }
}

impl From<Walked> for Next {
    fn from(walked: Walked) -> Next {
        match walked {
            Walked::Done(reply) => Next::Reply(reply),
            Walked::Asking(forwarded, walk) => Next::Walk(forwarded, walk),
        }
    }
}
