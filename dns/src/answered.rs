//! Which addresses names are answered with, for whoever goes by names: the policies of the wiring.
//!
//! Told before the reply is sent, so that nobody can use an address before it is known. Only what is answered on the cluster's
//! network counts: a question from the machine or of a tool changes nothing.

use crate::upstream::MAX_ALIASES;
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData};
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

/// Is told which addresses names are answered with.
pub trait AnswerListener: Debug + Send + Sync + 'static {
    /// Whether to be told of the zone's own names too, which are answered faster if not. Asked for every query.
    fn wants_zone(&self) -> bool;

    /// An asker is about to be told this. The reply waits for it.
    fn answered(&self, answers: &[NameAddress]);
}

/// A name, an address that it has, and how long the asker may remember that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddress {
    /// In lower case, without the dot at its end.
    pub name: String,
    /// One of its addresses.
    pub address: IpAddr,
    /// The shortest time to live on the way from the name to the address.
    pub ttl: Duration,
}

/// What a reply says of addresses: of the name that was asked for, and of each alias (CNAME) on its way. Records to which no
/// alias leads say nothing.
pub(crate) fn addresses(reply: &Message) -> Vec<NameAddress> {
    let Some(question) = reply.queries.first() else { return Vec::new() };
    let mut owner = question.name.clone();
    owner.set_fqdn(true);
    // Each name with the shortest life of the aliases from it to the end.
    let mut way: Vec<(Name, u32)> = vec![(owner.clone(), u32::MAX)];
    while way.len() <= MAX_ALIASES {
        let alias = reply.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == owner => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, ttl)) = alias else { break };
        way.iter_mut().for_each(|(_, shortest)| *shortest = ttl.min(*shortest));
        owner = target.clone();
        way.push((owner.clone(), u32::MAX));
    }
    let mut found = Vec::new();
    for record in reply.answers.iter().filter(|record| record.name == owner) {
        let Some(address) = record.data.ip_addr() else { continue };
        found.extend(way.iter().map(|(name, shortest)| NameAddress {
            name: name.to_lowercase().to_ascii().trim_end_matches('.').to_owned(),
            address,
            ttl: Duration::from_secs(record.ttl.min(*shortest).into()),
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};
    use hickory_proto::rr::{Record, RecordType};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// `(owner, ttl, address or target)`.
    fn told(question: &str, records: &[(&str, u32, &str)]) -> Vec<String> {
        let mut reply = Message::new(1, MessageType::Response, OpCode::Query);
        reply.add_query(Query::query(name(question), RecordType::A));
        reply.add_answers(records.iter().map(|(owner, ttl, data)| {
            let data = match data.parse::<IpAddr>() {
                Ok(IpAddr::V4(ip)) => RData::A(A(ip)),
                Ok(IpAddr::V6(ip)) => RData::AAAA(AAAA(ip)),
                Err(_) => RData::CNAME(CNAME(name(data))),
            };
            Record::from_rdata(name(owner), *ttl, data)
        }));
        let show = |told: NameAddress| format!("{} {} {}", told.name, told.address, told.ttl.as_secs());
        addresses(&reply).into_iter().map(show).collect()
    }

    #[test]
    fn every_alias_on_the_way_has_the_address_as_long_as_the_shortest_record_from_it_on() {
        let chain = [
            ("WWW.example.com.", 60, "cdn.example.net."),
            ("cdn.example.net.", 20, "edge.example.net."),
            ("Edge.Example.net.", 300, "192.0.2.1"),
            ("edge.example.net.", 10, "2001:db8::1"),
        ];
        assert_eq!(
            told("www.Example.com.", &chain),
            [
                "www.example.com 192.0.2.1 20",
                "cdn.example.net 192.0.2.1 20",
                "edge.example.net 192.0.2.1 300",
                "www.example.com 2001:db8::1 10",
                "cdn.example.net 2001:db8::1 10",
                "edge.example.net 2001:db8::1 10",
            ]
        );
    }

    #[test]
    fn records_that_the_question_does_not_lead_to_say_nothing() {
        let stray = [("a.example.", 60, "192.0.2.1"), ("victim.example.", 60, "192.0.2.66")];
        assert_eq!(told("a.example.", &stray), ["a.example 192.0.2.1 60"]);
        assert!(told("b.example.", &stray).is_empty());
        assert!(told("a.example.", &[("a.example.", 60, "elsewhere.example.")]).is_empty());
        assert!(told("a.example.", &[("a.example.", 60, "b.example."), ("b.example.", 60, "a.example.")]).is_empty());
    }
}
