//! Answers from memory: a Service's records as they stand on the wire, put behind the question as it came.
//!
//! What pods ask all day (addresses, SRV, and names that the search list makes up) is answered here without building a
//! message. Every record's owner is a pointer to the question (RFC 1035 4.1.4), so one copy serves whatever case the name
//! was asked in. [`crate::resolver`] answers all else, and the same questions with the same records; a test compares them.

use crate::lookup::{Found, SOA_TIMES};
use crate::request::Request;
use crate::service::{Key, ServiceRecords};
use crate::wire::{MAX_PAYLOAD, MIN_PAYLOAD, Transport, encode_sections};
use crate::zone::Zone;
use hickory_proto::rr::Name;
use parking_lot::RwLock;
use rand::Rng;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const SOA: u16 = 6;
const NXDOMAIN: u8 = 3;

/// Where every message's question begins.
const QUESTION: u16 = 12;
/// Owner, type, class, time to live and length of a record whose owner is a pointer.
const RECORD: usize = 12;
/// An OPT record without options.
const OPT_RECORD: usize = 11;

/// A Service with its answers.
#[derive(Debug)]
pub(crate) struct ServiceAnswers {
    pub(crate) records: ServiceRecords,
    /// The A and AAAA records of the Service's own name.
    v4: Box<[u8]>,
    v6: Box<[u8]>,
    /// SRV answers by the lower-case name, made when they are first asked for: few ever are.
    srv: RwLock<Vec<SrvAnswer>>,
}

/// A lower-case name and its answer.
type SrvAnswer = (Box<[u8]>, Arc<Sections>);

/// What follows the question.
#[derive(Debug)]
pub(crate) struct Sections {
    /// Records in the answer, authority and additional sections.
    pub(crate) counts: [u16; 3],
    pub(crate) bytes: Vec<u8>,
}

/// What the zone has for a question.
enum Answer<'a> {
    NxDomain,
    NoData,
    /// Records of one size.
    Records(&'a [u8], usize),
    Address(IpAddr),
    Sections(Arc<Sections>),
}

impl ServiceAnswers {
    pub(crate) fn new(records: ServiceRecords, ttl: u32) -> ServiceAnswers {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        let mut add = |address: IpAddr| {
            if seen.insert(address) {
                put_address(if address.is_ipv4() { &mut v4 } else { &mut v6 }, address, ttl);
            }
        };
        match &records {
            ServiceRecords::ClusterIp { addresses, .. } => addresses.iter().for_each(|ip| add(*ip)),
            ServiceRecords::Headless { endpoints } => endpoints.iter().for_each(|end| add(end.address)),
            ServiceRecords::ExternalName(_) => {}
        }
        ServiceAnswers { records, v4: v4.into(), v6: v6.into(), srv: RwLock::default() }
    }

    fn own(&self, kind: u16) -> Option<Answer<'_>> {
        let records = match kind {
            A => &self.v4,
            AAAA => &self.v6,
            _ => return None,
        };
        match &self.records {
            ServiceRecords::ExternalName(_) => None,
            ServiceRecords::Headless { endpoints } if endpoints.is_empty() => Some(Answer::NxDomain),
            _ if records.is_empty() => Some(Answer::NoData),
            _ => Some(Answer::Records(records, record_size(kind))),
        }
    }

    fn endpoint(&self, label: &[u8], kind: u16) -> Option<Answer<'_>> {
        let endpoints = self.records.endpoints();
        // They are in the order of their labels.
        let first = endpoints.partition_point(|endpoint| endpoint.label.as_bytes() < label);
        let mut named = endpoints[first..].iter().take_while(|endpoint| endpoint.label.as_bytes() == label);
        let (one, more) = (named.next(), named.next());
        match (one, more) {
            (None, _) => Some(Answer::NxDomain),
            (Some(endpoint), None) if kind == A || kind == AAAA => {
                let has = endpoint.address.is_ipv4() == (kind == A);
                Some(if has { Answer::Address(endpoint.address) } else { Answer::NoData })
            }
            _ => None,
        }
    }
}

impl Zone {
    /// Writes the reply to a request, if it is one of those that are answered here.
    pub(crate) fn answer_at_once(
        &self,
        request: &Request<'_>,
        transport: Transport,
        order: &parking_lot::Mutex<impl Rng>,
        reply: &mut Vec<u8>,
    ) -> bool {
        let Some(answer) = self.prebuilt(request) else { return false };
        let edns = request.edns.map_or(0, |_| OPT_RECORD);
        let limit = match (transport, request.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, None) => MIN_PAYLOAD.into(),
            (Transport::Udp, Some(edns)) => edns.payload.clamp(MIN_PAYLOAD, MAX_PAYLOAD).into(),
        };
        let [id_high, id_low, flags, more_flags] = request.id_and_flags();
        reply.clear();
        // QR, AA and what was asked of RD; RA and CD.
        reply.extend([id_high, id_low, 0x84 | flags & 0x01, 0x80 | more_flags & 0x10]);
        reply.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        reply.extend_from_slice(request.question());
        let mut counts = [0u16; 3];
        match answer {
            Answer::NoData | Answer::NxDomain => {
                if matches!(answer, Answer::NxDomain) {
                    reply[3] |= NXDOMAIN;
                }
                self.put_soa(reply, request);
                counts[1] = 1;
            }
            Answer::Address(address) => {
                put_address(reply, address, self.ttl);
                counts[0] = 1;
            }
            Answer::Records(records, size) => {
                let (all, begin) = (records.len() / size, reply.len());
                let taken = all.min(limit.saturating_sub(begin + edns) / size);
                reply.extend_from_slice(records);
                if all > 1 {
                    shuffle(&mut reply[begin..], size, taken, &mut *order.lock());
                }
                if taken < all {
                    reply.truncate(begin + taken * size);
                    reply[2] |= 0x02;
                }
                counts[0] = u16::try_from(taken).unwrap_or(u16::MAX);
            }
            Answer::Sections(sections) => {
                if reply.len() + sections.bytes.len() + edns > limit {
                    return false;
                }
                reply.extend_from_slice(&sections.bytes);
                counts = sections.counts;
            }
        }
        if let Some(edns) = request.edns {
            let [high, low] = MAX_PAYLOAD.to_be_bytes();
            reply.extend([0, 0, 41, high, low, 0, 0, u8::from(edns.dnssec_ok) << 7, 0, 0, 0]);
            counts[2] += 1;
        }
        for (place, count) in reply[6..12].chunks_exact_mut(2).zip(counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        true
    }

    fn prebuilt(&self, request: &Request<'_>) -> Option<Answer<'_>> {
        if !self.complete || !matches!(request.kind, A | AAAA | SRV) {
            return None;
        }
        let below = request.label_count().checked_sub(usize::from(self.origin.num_labels()))?;
        if below == 0 || request.name().get(request.label_start(below)..)? != &*self.origin_wire {
            return None;
        }
        match request.label(below - 1) {
            b"svc" => {}
            b"pod" | b"dns" | b"dns-version" => return None,
            _ => return Some(Answer::NxDomain),
        }
        let namespace = below.checked_sub(2).map(|index| request.label(index))?;
        let Some(service) = below.checked_sub(3) else {
            return if self.has_namespace_label(namespace) { None } else { Some(Answer::NxDomain) };
        };
        let key = &request.name()[request.label_start(service)..request.label_start(below - 1)];
        let Some(answers) = self.answers.get(key).filter(|_| self.has_namespace_label(namespace)) else {
            return Some(Answer::NxDomain);
        };
        match service {
            0 if request.kind == SRV => self.srv_at_once(answers, request),
            0 => answers.own(request.kind),
            1 if request.kind == SRV => None,
            1 => answers.endpoint(request.label(0), request.kind),
            2 if request.kind == SRV => self.srv_at_once(answers, request),
            2 => None,
            _ => Some(Answer::NxDomain),
        }
    }

    fn srv_at_once<'a>(&self, answers: &'a ServiceAnswers, request: &Request<'_>) -> Option<Answer<'a>> {
        let name = request.name();
        if let Some((_, made)) = answers.srv.read().iter().find(|(known, _)| **known == *name) {
            return Some(Answer::Sections(made.clone()));
        }
        let labels = (0..request.label_count()).map(|index| request.label(index));
        let mut owner = Name::from_labels(labels).ok()?;
        owner.set_fqdn(true);
        match self.lookup(&owner, request.kind.into()) {
            Found::Data { ttl, records, additionals } => {
                let made = Arc::new(encode_sections(&owner, request.kind.into(), ttl, records, additionals)?);
                // Two that ask at the same time have both made it; the names that have an answer are few.
                answers.srv.write().push((name.into(), made.clone()));
                Some(Answer::Sections(made))
            }
            Found::NoData => Some(Answer::NoData),
            Found::NxDomain => Some(Answer::NxDomain),
            Found::Alias(_) => None,
        }
    }

    fn has_namespace_label(&self, label: &[u8]) -> bool {
        std::str::from_utf8(label).is_ok_and(|namespace| self.has_namespace(namespace))
    }

    /// The zone's SOA record, whose names end where the question's name does.
    fn put_soa(&self, reply: &mut Vec<u8>, request: &Request<'_>) {
        let origin = usize::from(QUESTION) + request.name().len() - self.origin_wire.len();
        let pointer = (0xC000 | u16::try_from(origin).unwrap_or(QUESTION)).to_be_bytes();
        let (server, contact) = (b"\x02ns\x03dns", b"\x0ahostmaster");
        let length = server.len() + contact.len() + 2 * pointer.len() + 20;
        put_head(reply, pointer, SOA, self.ttl, u16::try_from(length).unwrap_or_default());
        reply.extend_from_slice(server);
        reply.extend_from_slice(&pointer);
        reply.extend_from_slice(contact);
        reply.extend_from_slice(&pointer);
        reply.extend_from_slice(&self.serial.to_be_bytes());
        SOA_TIMES.iter().for_each(|time| reply.extend_from_slice(&time.to_be_bytes()));
        reply.extend_from_slice(&self.ttl.to_be_bytes());
    }
}

/// The name of a Service and its namespace as they stand on the wire, which is where its answers are found.
pub(crate) fn wire_key(key: &Key) -> Box<[u8]> {
    let label = |text: &str| [&[u8::try_from(text.len()).unwrap_or(u8::MAX)], text.as_bytes()].concat();
    [label(&key.name), label(&key.namespace)].concat().into()
}

fn record_size(kind: u16) -> usize {
    RECORD + if kind == A { 4 } else { 16 }
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr, ttl: u32) {
    let owner = (0xC000 | QUESTION).to_be_bytes();
    match address {
        IpAddr::V4(ip) => {
            put_head(bytes, owner, A, ttl, 4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            put_head(bytes, owner, AAAA, ttl, 16);
            bytes.extend_from_slice(&ip.octets());
        }
    }
}

fn put_head(bytes: &mut Vec<u8>, owner: [u8; 2], kind: u16, ttl: u32, length: u16) {
    let ([kind_high, kind_low], [t3, t2, t1, t0], [high, low]) =
        (kind.to_be_bytes(), ttl.to_be_bytes(), length.to_be_bytes());
    bytes.extend_from_slice(&[owner[0], owner[1], kind_high, kind_low, 0, 1, t3, t2, t1, t0, high, low]);
}

/// Brings `taken` records, chosen and ordered by chance, to the front.
fn shuffle(records: &mut [u8], size: usize, taken: usize, rng: &mut impl Rng) {
    let all = records.len() / size;
    for place in 0..taken.min(all.saturating_sub(1)) {
        let chosen = rng.random_range(place..all);
        if chosen != place {
            let (front, back) = records.split_at_mut(chosen * size);
            front[place * size..][..size].swap_with_slice(&mut back[..size]);
        }
    }
}
