//! Requests and replies as bytes: what may be asked at all, EDNS0, sizes and truncation.

use crate::prebuilt::Sections;
use crate::query_log::Source;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

/// RFC 1035 4.2.1: what a UDP reply may have without EDNS0.
pub(crate) const MIN_PAYLOAD: u16 = 512;
/// The largest UDP reply sent, and the size advertised for requests.
pub(crate) const MAX_PAYLOAD: u16 = 4096;
/// RFC 1035 4.1.1.
const HEADER: usize = 12;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Replies have 512 bytes, or what the asker advertised; at most 4096.
    Udp,
    /// Replies have up to 65,535 bytes.
    Tcp,
}

/// A reply that still has to be filled or sent.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) message: Message,
    /// Bytes that the asker takes.
    limit: u16,
    /// Where what it says comes from.
    pub(crate) source: Source,
    /// The name that was found on a walk along the asker's search list.
    pub(crate) autopath: Option<Name>,
}

/// What to do with the bytes of a request.
#[derive(Debug)]
pub(crate) enum Received {
    /// Say nothing: it is no request.
    Noise,
    /// It cannot be answered; this says why.
    Refused(Reply),
    /// A question, and the reply to fill.
    Question(Query, Reply),
}

/// Reads a request and checks all that does not depend on the name.
pub(crate) fn receive(bytes: &[u8], transport: Transport) -> Received {
    let request = match Message::from_vec(bytes) {
        Ok(request) => request,
        Err(_) => return malformed(bytes),
    };
    if request.metadata.message_type == MessageType::Response {
        // Two servers answering each other's answers would never end.
        return Received::Noise;
    }
    let mut reply = Reply::to(&request, transport);
    if request.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return Received::Refused(reply.with_code(ResponseCode::BADVERS));
    }
    if request.metadata.op_code != OpCode::Query {
        return Received::Refused(reply.with_code(ResponseCode::NotImp));
    }
    let [question] = request.queries.as_slice() else {
        return Received::Refused(reply.with_code(ResponseCode::FormErr));
    };
    reply.message.queries.push(question.clone());
    let transfer = matches!(question.query_type, RecordType::AXFR | RecordType::IXFR);
    if transfer || question.query_class != DNSClass::IN {
        return Received::Refused(reply.with_code(ResponseCode::Refused));
    }
    let mut question = question.clone();
    question.name.set_fqdn(true);
    Received::Question(question, reply)
}

/// FORMERR for what has at least the header of a request.
fn malformed(bytes: &[u8]) -> Received {
    let Some(header) = bytes.get(..HEADER) else { return Received::Noise };
    if header[2] & 0x80 != 0 {
        return Received::Noise;
    }
    let id = u16::from_be_bytes([header[0], header[1]]);
    let op_code = OpCode::from_u8((header[2] >> 3) & 0xf);
    let message = Message::error_msg(id, op_code, ResponseCode::FormErr);
    Received::Refused(Reply::new(message, MIN_PAYLOAD))
}

impl Reply {
    fn new(message: Message, limit: u16) -> Reply {
        Reply { message, limit, source: Source::Server, autopath: None }
    }

    fn to(request: &Message, transport: Transport) -> Reply {
        let mut message = Message::response(request.metadata.id, request.metadata.op_code);
        message.metadata.recursion_desired = request.metadata.recursion_desired;
        message.metadata.checking_disabled = request.metadata.checking_disabled;
        message.metadata.recursion_available = true;
        let advertised = request.edns.as_ref().map_or(MIN_PAYLOAD, Edns::max_payload);
        let limit = match transport {
            Transport::Udp => advertised.clamp(MIN_PAYLOAD, MAX_PAYLOAD),
            Transport::Tcp => u16::MAX,
        };
        if let Some(edns) = &request.edns {
            let mut own = Edns::new();
            own.set_max_payload(MAX_PAYLOAD).set_dnssec_ok(edns.flags().dnssec_ok);
            message.set_edns(own);
        }
        Reply::new(message, limit)
    }

    pub(crate) fn with_code(mut self, code: ResponseCode) -> Reply {
        self.message.metadata.response_code = code;
        self
    }

    /// The reply's bytes, cut to what the asker takes.
    ///
    /// Additional records go first, from the end, and nobody misses them (RFC 2181 9); where an answer or authority
    /// record has to go too, TC is set and the asker comes back by TCP.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let message = &self.message;
        let required = message.answers.len() + message.authorities.len();
        let all = required + message.additionals.len();
        if let Some(bytes) = self.encode_first(all, false) {
            return bytes;
        }
        // No record is shorter than a root's without data.
        let most = usize::from(self.limit) / 11 + 1;
        let (mut fits, mut too_many) = (0, all.min(most));
        let mut best = self.encode_first(0, required > 0).unwrap_or_default();
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            match self.encode_first(middle, middle < required) {
                Some(bytes) => (fits, best) = (middle, bytes),
                None => too_many = middle,
            }
        }
        best
    }

    /// The message with the first `count` records over all sections; `None` if that does not fit.
    fn encode_first(&self, count: usize, truncated: bool) -> Option<Vec<u8>> {
        let message = &self.message;
        let mut left = count;
        let mut first = |section: &[Record]| {
            let taken = section.len().min(left);
            left -= taken;
            section[..taken].to_vec()
        };
        let mut cut = Message::response(message.metadata.id, message.metadata.op_code);
        cut.metadata = message.metadata;
        cut.metadata.truncation |= truncated;
        cut.queries.clone_from(&message.queries);
        cut.answers = first(&message.answers);
        cut.authorities = first(&message.authorities);
        cut.additionals = first(&message.additionals);
        cut.edns.clone_from(&message.edns);
        let mut bytes = Vec::with_capacity(usize::from(MIN_PAYLOAD));
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(self.limit);
        cut.emit(&mut encoder).ok()?;
        // The encoder leaves out what does not fit, the OPT record too: the counts in the header tell.
        let sections = [
            cut.queries.len(),
            cut.answers.len(),
            cut.authorities.len(),
            cut.additionals.len() + usize::from(cut.edns.is_some()),
        ];
        let written = bytes.get(4..HEADER)?.chunks_exact(2).map(|count| u16::from_be_bytes([count[0], count[1]]));
        written.map(usize::from).eq(sections).then_some(bytes)
    }
}

/// Answers and additional records as they stand behind the question that they answer; `None` if there are too many.
pub(crate) fn encode_sections(
    owner: &Name,
    kind: RecordType,
    ttl: u32,
    records: Vec<RData>,
    additionals: Vec<Record>,
) -> Option<Sections> {
    let mut message = Message::response(0, OpCode::Query);
    message.queries.push(Query::query(owner.clone(), kind));
    message.add_answers(records.into_iter().map(|data| Record::from_rdata(owner.clone(), ttl, data)));
    message.add_additionals(additionals);
    let question = HEADER + owner.to_bytes().ok()?.len() + 4;
    let bytes = Reply::new(message, u16::MAX).encode();
    let count = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let truncated = bytes.get(2)? & 0x02 != 0;
    let counts = [count(6)?, count(8)?, count(10)?];
    (!truncated).then_some(())?;
    Some(Sections { counts, bytes: bytes.get(question..)?.to_vec() })
}
