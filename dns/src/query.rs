//! One question asked in process, and its answer as text: for tools that show what a pod would be told.
//!
//! It goes the way of every other request ([`Resolver::answer`](crate::resolver::Resolver::answer)), as over TCP, so that
//! nothing is truncated.

use crate::sync::Dns;
use crate::wire::Transport;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use serde::Serialize;
use std::str::FromStr;

/// An answer as text, in the words of RFC 1035's master files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The full name that was asked for.
    pub name: String,
    /// The type that was asked for, such as `A`.
    pub record_type: String,
    /// `NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED`, …
    pub rcode: String,
    /// Whether the answer is the zone's own.
    pub authoritative: bool,
    /// The answer section.
    pub answers: Vec<AnswerRecord>,
    /// The authority section: on a negative answer the SOA that says how long it may be remembered.
    pub authorities: Vec<AnswerRecord>,
    /// The additional section, EDNS aside.
    pub additionals: Vec<AnswerRecord>,
}

/// One record of an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerRecord {
    /// Whose it is.
    pub name: String,
    /// How long it may be remembered, in seconds.
    pub ttl: u32,
    /// Such as `A` or `SRV`.
    pub record_type: String,
    /// Its data.
    pub data: String,
}

/// Why a question cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The text is no domain name.
    #[error("{name:?} is not a domain name: {why}")]
    Name {
        /// The text.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The text is no record type.
    #[error("{0:?} is not a record type; try A, AAAA, SRV, PTR, CNAME, TXT, NS or SOA")]
    Type(String),
}

impl Dns {
    /// Asks for the records of `record_type` (`A`, `SRV`, …) at the full name `name`; no search list is applied.
    ///
    /// # Errors
    /// The name or the type is none. What the server has to say, NXDOMAIN included, is an answer.
    pub async fn query(&self, name: &str, record_type: &str) -> Result<Answer, QueryError> {
        let mut owner = Name::from_str(name).map_err(|why| {
            let why = why.to_string().trim_end_matches([':', ' ']).to_lowercase();
            QueryError::Name { name: name.to_owned(), why }
        })?;
        owner.set_fqdn(true);
        let kind = RecordType::from_str(&record_type.to_ascii_uppercase())
            .map_err(|_| QueryError::Type(record_type.to_owned()))?;
        let mut request = Message::new(0, MessageType::Query, OpCode::Query);
        request.metadata.recursion_desired = true;
        request.queries.push(Query::query(owner.clone(), kind));
        let reply = match request.to_vec() {
            Ok(bytes) => self.reply(&bytes, Transport::Tcp).await,
            Err(why) => return Err(QueryError::Name { name: name.to_owned(), why: why.to_string() }),
        };
        let reply = reply.unwrap_or_else(|| Message::error_msg(0, OpCode::Query, ResponseCode::ServFail));
        let records = |records: &[Record]| records.iter().map(AnswerRecord::new).collect();
        Ok(Answer {
            name: owner.to_string(),
            record_type: kind.to_string(),
            rcode: rcode(reply.metadata.response_code),
            authoritative: reply.metadata.authoritative,
            answers: records(&reply.answers),
            authorities: records(&reply.authorities),
            additionals: records(&reply.additionals),
        })
    }
}

impl AnswerRecord {
    fn new(record: &Record) -> Self {
        AnswerRecord {
            name: record.name.to_string(),
            ttl: record.ttl,
            record_type: record.record_type().to_string(),
            data: record.data.to_string(),
        }
    }
}

/// The mnemonics of the IANA registry, as `dig` prints them.
pub(crate) fn rcode(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::BADVERS => "BADVERS".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}
