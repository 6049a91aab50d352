//! From a request to its reply: static names, the zone, reverse names, then upstream.
//!
//! What can be answered from memory is answered at once ([`Resolver::begin`]); only what has to be asked elsewhere
//! becomes a future ([`Resolver::finish`]), so that the front ends need no task for the common case.

use crate::answered::{AnswerListener, addresses};
use crate::config::Config;
use crate::forward::{Forwarder, Route};
use crate::hosts::Hosts;
use crate::lookup::{Found, labels};
use crate::metrics::Counters;
use crate::request::Request;
use crate::reverse::ReverseName;
use crate::upstream::Answer;
use crate::wire::{Received, Reply, Transport, receive};
use crate::zone::Zone;
use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use std::net::SocketAddr;
use std::sync::Arc;
use tracing::debug;

/// ExternalNames that may point at one another.
const MAX_CHAIN: usize = 10;

/// Everything that an answer needs; shared by all front ends.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) zone: ArcSwap<Zone>,
    hosts: Hosts,
    forwarder: Forwarder,
    order: Mutex<SmallRng>,
    ttl: u32,
    pub(crate) counters: Counters,
    /// No static name is in the zone, so that the zone may be asked first.
    zone_first: bool,
    listener: Option<Arc<dyn AnswerListener>>,
}

/// How far a request came without waiting.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is no request.
    Noise,
    /// Send this.
    Done(Reply),
    /// Ask elsewhere.
    Forward(Box<Forwarded>),
}

/// A question for other servers, and the reply which waits for their answer.
#[derive(Debug)]
pub(crate) struct Forwarded {
    name: Name,
    kind: RecordType,
    servers: Vec<SocketAddr>,
    pub(crate) reply: Reply,
}

/// What is known here about a name.
enum Local {
    /// This; and if that is nothing, the zone in which there is nothing.
    Found(Found, Option<Name>),
    /// The zone is not complete yet.
    Unknown,
    Elsewhere,
}

impl Resolver {
    pub(crate) fn new(config: &Config) -> Resolver {
        let (zone, hosts) = (Zone::empty(config), Hosts::new(&config.hosts));
        Resolver {
            zone_first: !hosts.any_within(&zone.origin),
            zone: ArcSwap::from_pointee(zone),
            hosts,
            forwarder: Forwarder::new(config),
            order: Mutex::new(SmallRng::seed_from_u64(config.seed)),
            ttl: config.ttl_seconds(),
            counters: Counters::default(),
            listener: config.listener.clone(),
        }
    }

    /// This server is reachable at these addresses: nothing is forwarded there.
    pub(crate) fn serves(&self, addresses: Vec<SocketAddr>) {
        self.forwarder.add_own_addresses(addresses);
    }

    /// Writes the reply to a request that the zone's prebuilt answers know; false: it has to go through [`Resolver::begin`].
    pub(crate) fn answer_at_once(&self, request: &[u8], transport: Transport, reply: &mut Vec<u8>) -> bool {
        // Whoever reads the log wants to see every query in it.
        if !self.zone_first || tracing::enabled!(tracing::Level::DEBUG) {
            return false;
        }
        let Some(request) = Request::read(request) else { return false };
        let answered = self.zone.load().answer_at_once(&request, transport, &self.order, reply);
        if answered {
            self.counters.request(transport);
            self.counters.response(u16::from(reply[3] & 15));
        }
        answered
    }

    /// Whether every reply has to be told of, so that none may be made from bytes alone.
    pub(crate) fn tells_zone(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.wants_zone())
    }

    /// Tells of a reply that is about to be sent to somebody on the cluster's network.
    pub(crate) fn tell(&self, reply: &Reply) {
        if let Some(listener) = &self.listener {
            let answers = addresses(&reply.message);
            if !answers.is_empty() {
                listener.answered(&answers);
            }
        }
    }

    /// Answers a request, waiting for other servers if need be. `None`: it is no request.
    pub(crate) async fn answer(&self, request: &[u8], transport: Transport) -> Option<Reply> {
        match self.begin(request, transport) {
            Begun::Noise => None,
            Begun::Done(reply) => Some(reply),
            Begun::Forward(forwarded) => Some(self.finish(*forwarded).await),
        }
    }

    /// Answers a request as far as that needs no waiting.
    pub(crate) fn begin(&self, request: &[u8], transport: Transport) -> Begun {
        let (question, reply) = match receive(request, transport) {
            Received::Noise => return Begun::Noise,
            Received::Refused(reply) => {
                self.counters.request(transport);
                self.counters.response(reply.message.metadata.response_code.into());
                return Begun::Done(reply);
            }
            Received::Question(question, reply) => (question, reply),
        };
        self.counters.request(transport);
        let (name, kind) = (question.name, question.query_type);
        let begun = self.resolve(&name, kind, reply);
        if let Begun::Done(reply) = &begun {
            self.counters.response(reply.message.metadata.response_code.into());
            let (code, answers) = (reply.message.metadata.response_code, reply.message.answers.len());
            debug!(%name, %kind, %code, answers, "query answered");
        }
        begun
    }

    fn resolve(&self, asked: &Name, kind: RecordType, mut reply: Reply) -> Begun {
        let zone = self.zone.load();
        let mut owner = asked.clone();
        while reply.message.answers.len() <= MAX_CHAIN {
            let (found, within) = match self.local(&zone, &owner, kind) {
                Local::Found(found, within) => (found, within),
                Local::Unknown => {
                    reply.message.answers.clear();
                    return Begun::Done(reply.with_code(ResponseCode::ServFail));
                }
                Local::Elsewhere => return self.elsewhere(&zone, owner, kind, reply),
            };
            let message = &mut reply.message;
            message.metadata.authoritative = true;
            match found {
                Found::Data { ttl, mut records, additionals } => {
                    if matches!(kind, RecordType::A | RecordType::AAAA) {
                        records.shuffle(&mut *self.order.lock());
                    }
                    message.add_answers(records.into_iter().map(|data| Record::from_rdata(owner.clone(), ttl, data)));
                    message.add_additionals(additionals);
                    return Begun::Done(reply);
                }
                Found::Alias(target) => {
                    let alias = Record::from_rdata(owner, self.ttl, RData::CNAME(CNAME(target.clone())));
                    match kind {
                        RecordType::A | RecordType::AAAA => message.add_answer(alias),
                        RecordType::CNAME => {
                            message.add_answer(alias);
                            return Begun::Done(reply);
                        }
                        _ => return Begun::Done(no_data(reply, zone.soa(zone.origin.clone()))),
                    };
                    owner = target;
                }
                // A chain that ends nowhere in the zone is not shown: the name that was asked does exist.
                _ if !message.answers.is_empty() => return Begun::Done(no_data(reply, zone.soa(zone.origin.clone()))),
                Found::NoData | Found::NxDomain => {
                    if found == Found::NxDomain {
                        message.metadata.response_code = ResponseCode::NXDomain;
                    }
                    message.authorities.extend(within.map(|owner| zone.soa(owner)));
                    return Begun::Done(reply);
                }
            }
        }
        Begun::Done(no_data(reply, zone.soa(zone.origin.clone())))
    }

    fn local(&self, zone: &Zone, name: &Name, kind: RecordType) -> Local {
        if let Some(found) = self.hosts.lookup(name, kind, self.ttl) {
            return Local::Found(found, None);
        }
        if zone.contains(name) {
            if !zone.complete {
                return Local::Unknown;
            }
            return Local::Found(zone.lookup(name, kind), Some(zone.origin.clone()));
        }
        let Some(reverse) = labels(name).and_then(|labels| ReverseName::of(&labels)) else { return Local::Elsewhere };
        match zone.reverse_lookup(&reverse, kind) {
            Some(found) => Local::Found(found, Name::from_ascii(reverse.zone).ok()),
            None if reverse.address.is_some() && !zone.complete => Local::Unknown,
            None => Local::Elsewhere,
        }
    }

    /// A name that others have to answer for: the one that was asked, or where the chain of ExternalNames leads.
    fn elsewhere(&self, zone: &Zone, name: Name, kind: RecordType, mut reply: Reply) -> Begun {
        let in_chain = !reply.message.answers.is_empty();
        let server = zone.service(&zone.server);
        let own = server.iter().flat_map(|service| service.cluster_ips()).copied().collect::<Vec<_>>();
        let code = match self.forwarder.route(&name, &own) {
            Route::Nowhere => ResponseCode::NXDomain,
            Route::Loop => ResponseCode::ServFail,
            Route::To(servers) => match self.forwarder.cached(&name, kind) {
                Some(answer) => {
                    take_in(&mut reply, &name, answer);
                    return Begun::Done(reply);
                }
                None => return Begun::Forward(Box::new(Forwarded { name, kind, servers, reply })),
            },
        };
        // The alias itself is known, whatever becomes of its target.
        Begun::Done(if in_chain { reply } else { reply.with_code(code) })
    }

    /// Asks the other servers.
    pub(crate) async fn finish(&self, forwarded: Forwarded) -> Reply {
        let Forwarded { name, kind, servers, .. } = &forwarded;
        self.counters.forward();
        let reply = match self.forwarder.ask(name, *kind, servers).await {
            Ok(answer) => answered(forwarded, answer),
            Err(error) => {
                debug!(%name, %kind, error = &error as &dyn std::error::Error, "query failed upstream");
                let reply = forwarded.reply;
                // The alias itself is known, whatever becomes of its target.
                let in_chain = !reply.message.answers.is_empty();
                if in_chain { reply } else { reply.with_code(ResponseCode::ServFail) }
            }
        };
        self.counters.response(reply.message.metadata.response_code.into());
        reply
    }
}

fn no_data(mut reply: Reply, soa: Record) -> Reply {
    reply.message.answers.clear();
    reply.message.authorities = vec![soa];
    reply
}

/// The reply with an upstream's answer.
pub(crate) fn answered(forwarded: Forwarded, answer: Answer) -> Reply {
    let Forwarded { name, mut reply, .. } = forwarded;
    take_in(&mut reply, &name, answer);
    reply
}

/// An upstream's answer becomes the reply; behind an alias it only adds to it.
fn take_in(reply: &mut Reply, name: &Name, answer: Answer) {
    let message = &mut reply.message;
    if message.answers.is_empty() {
        message.metadata.response_code = answer.code;
        message.authorities = answer.authorities;
        message.additionals = answer.additionals;
    }
    message.answers.extend(answer.answers.into_iter().map(|mut record| {
        // It may have been asked before, in another case.
        if record.name == *name {
            record.name = name.clone();
        }
        record
    }));
}
