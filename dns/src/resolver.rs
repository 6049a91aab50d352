//! From a question to its reply: static names, the zone, reverse names, then upstream.
//!
//! Here is what is true of a name, whoever asks. What else becomes of a request, [`crate::front`] decides.

use crate::answered::AnswerListener;
use crate::client::Clients;
use crate::config::Config;
use crate::forward::{Forwarder, Route};
use crate::hosts::Hosts;
use crate::lookup::{Found, labels};
use crate::metrics::Counters;
use crate::query_log::{QueryLog, Source};
use crate::reverse::ReverseName;
use crate::upstream::Answer;
use crate::wire::Reply;
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
use tokio::sync::Semaphore;
use tracing::debug;

/// ExternalNames that may point at one another.
const MAX_CHAIN: usize = 10;
/// Answers that may be delayed at the same time.
const MAX_DELAYED: usize = 1024;
/// Makes a sequence of its own of the seed, so that faults do not change the order of addresses.
const FAULT_SEED: u64 = 0x6661_756c_7473;

/// Everything that an answer needs; shared by all front ends.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) zone: ArcSwap<Zone>,
    hosts: Hosts,
    forwarder: Forwarder,
    pub(crate) order: Mutex<SmallRng>,
    ttl: u32,
    pub(crate) counters: Counters,
    /// No static name is in the zone, so that the zone may be asked first.
    pub(crate) zone_first: bool,
    pub(crate) listener: Option<Arc<dyn AnswerListener>>,
    pub(crate) clients: Clients,
    pub(crate) log: Arc<QueryLog>,
    pub(crate) keeps_queries: bool,
    /// Whether search lists are walked here.
    pub(crate) autopath: bool,
    /// Which queries faults strike.
    pub(crate) chance: Mutex<SmallRng>,
    /// Answers that are delayed at the same time.
    pub(crate) delayed: Arc<Semaphore>,
}

/// How far a question came without waiting.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// Say this.
    Done(Reply),
    /// Ask elsewhere.
    Elsewhere(Forwarded),
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
    /// This; and if that is nothing, the zone in which there is nothing. It is known from there.
    Found(Found, Option<Name>, Source),
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
            clients: Clients::default(),
            log: QueryLog::new(config.keep_queries),
            keeps_queries: config.keep_queries,
            autopath: config.autopath,
            chance: Mutex::new(SmallRng::seed_from_u64(config.seed ^ FAULT_SEED)),
            delayed: Arc::new(Semaphore::new(MAX_DELAYED)),
        }
    }

    /// This server is reachable at these addresses: nothing is forwarded there.
    pub(crate) fn serves(&self, addresses: Vec<SocketAddr>) {
        self.forwarder.add_own_addresses(addresses);
    }

    /// Answers for a name as far as that needs no waiting.
    pub(crate) fn resolve(&self, asked: &Name, kind: RecordType, mut reply: Reply) -> Resolved {
        let zone = self.zone.load();
        let mut owner = asked.clone();
        while reply.message.answers.len() <= MAX_CHAIN {
            let (found, within) = match self.local(&zone, &owner, kind) {
                Local::Found(found, within, source) => {
                    reply.source = source;
                    (found, within)
                }
                Local::Unknown => {
                    reply.source = Source::Zone;
                    reply.message.answers.clear();
                    return Resolved::Done(reply.with_code(ResponseCode::ServFail));
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
                    return Resolved::Done(reply);
                }
                Found::Alias(target) => {
                    let alias = Record::from_rdata(owner, self.ttl, RData::CNAME(CNAME(target.clone())));
                    match kind {
                        RecordType::A | RecordType::AAAA => message.add_answer(alias),
                        RecordType::CNAME => {
                            message.add_answer(alias);
                            return Resolved::Done(reply);
                        }
                        _ => return Resolved::Done(no_data(reply, zone.soa(zone.origin.clone()))),
                    };
                    owner = target;
                }
                // A chain that ends nowhere in the zone is not shown: the name that was asked does exist.
                _ if !message.answers.is_empty() => {
                    return Resolved::Done(no_data(reply, zone.soa(zone.origin.clone())));
                }
                Found::NoData | Found::NxDomain => {
                    if found == Found::NxDomain {
                        message.metadata.response_code = ResponseCode::NXDomain;
                    }
                    message.authorities.extend(within.map(|owner| zone.soa(owner)));
                    return Resolved::Done(reply);
                }
            }
        }
        Resolved::Done(no_data(reply, zone.soa(zone.origin.clone())))
    }

    fn local(&self, zone: &Zone, name: &Name, kind: RecordType) -> Local {
        if let Some(found) = self.hosts.lookup(name, kind, self.ttl) {
            return Local::Found(found, None, Source::Hosts);
        }
        if zone.contains(name) {
            if !zone.complete {
                return Local::Unknown;
            }
            return Local::Found(zone.lookup(name, kind), Some(zone.origin.clone()), Source::Zone);
        }
        let Some(reverse) = labels(name).and_then(|labels| ReverseName::of(&labels)) else { return Local::Elsewhere };
        match zone.reverse_lookup(&reverse, kind) {
            Some(found) => Local::Found(found, Name::from_ascii(reverse.zone).ok(), Source::Zone),
            None if reverse.address.is_some() && !zone.complete => Local::Unknown,
            None => Local::Elsewhere,
        }
    }

    /// A name that others have to answer for: the one that was asked, or where the chain of ExternalNames leads.
    fn elsewhere(&self, zone: &Zone, name: Name, kind: RecordType, mut reply: Reply) -> Resolved {
        let in_chain = !reply.message.answers.is_empty();
        let server = zone.service(&zone.server);
        let own = server.iter().flat_map(|service| service.cluster_ips()).copied().collect::<Vec<_>>();
        reply.source = Source::Nobody;
        let code = match self.forwarder.route(&name, &own) {
            Route::Nowhere => ResponseCode::NXDomain,
            Route::Loop => ResponseCode::ServFail,
            Route::To(servers) => match self.forwarder.cached(&name, kind) {
                Some(answer) => {
                    reply.source = Source::Cache;
                    take_in(&mut reply, &name, answer);
                    return Resolved::Done(reply);
                }
                None => {
                    reply.source = self.forwarder.source(&name);
                    return Resolved::Elsewhere(Forwarded { name, kind, servers, reply });
                }
            },
        };
        // The alias itself is known, whatever becomes of its target.
        Resolved::Done(if in_chain { reply } else { reply.with_code(code) })
    }

    /// Asks the other servers.
    pub(crate) async fn ask(&self, forwarded: Forwarded) -> Reply {
        let Forwarded { name, kind, servers, .. } = &forwarded;
        self.counters.forward();
        match self.forwarder.ask(name, *kind, servers).await {
            Ok(answer) => answered(forwarded, answer),
            Err(error) => {
                debug!(%name, %kind, error = &error as &dyn std::error::Error, "query failed upstream");
                let reply = forwarded.reply;
                // The alias itself is known, whatever becomes of its target.
                let in_chain = !reply.message.answers.is_empty();
                if in_chain { reply } else { reply.with_code(ResponseCode::ServFail) }
            }
        }
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
