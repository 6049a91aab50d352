//! One question to one upstream server: UDP from a fresh socket, then TCP if the answer did not fit.
//!
//! Sockets are the operating system's. A datagram counts only if it comes from the server that was asked, and its id and
//! question are those that were sent (RFC 5452). Ids and ports are drawn anew for every try.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// DNS flag day 2020: what crosses the Internet unfragmented.
const PAYLOAD: u16 = 1232;
/// Aliases in one answer. No honest chain is longer, and none that resolvers follow.
pub(crate) const MAX_ALIASES: usize = 16;

/// What an upstream said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("no upstream answered in time")]
    TimedOut,
    #[error("no upstream could be reached")]
    Io(#[source] Arc<io::Error>),
    #[error("the upstream's answer cannot be read, or is to another question")]
    Malformed,
    #[error("the upstream's answer has more than {MAX_ALIASES} aliases")]
    Aliases,
    #[error("the upstream answered {0}")]
    Failed(ResponseCode),
    #[error("too many queries wait for upstreams")]
    Overload,
}

impl From<io::Error> for UpstreamError {
    fn from(error: io::Error) -> Self {
        UpstreamError::Io(Arc::new(error))
    }
}

impl UpstreamError {
    /// What the upstream itself had to say, if it is that.
    pub(crate) fn code(&self) -> Option<ResponseCode> {
        match self {
            UpstreamError::Failed(code) => Some(*code),
            _ => None,
        }
    }
}

/// Asks one server once. The caller limits the time.
pub(crate) async fn exchange(server: SocketAddr, question: &Query, id: u16) -> Result<Answer, UpstreamError> {
    let message = over_either(server, &request(question, id, true)?, question, id).await?;
    // RFC 6891 7: an old server does not know what EDNS is.
    if matches!(message.metadata.response_code, ResponseCode::FormErr | ResponseCode::NotImp) && message.edns.is_none()
    {
        return believed(over_either(server, &request(question, id, false)?, question, id).await?);
    }
    believed(message)
}

fn request(question: &Query, id: u16, edns: bool) -> Result<Vec<u8>, UpstreamError> {
    let mut request = Message::new(id, MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(question.clone());
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        request.set_edns(edns);
    }
    request.to_vec().map_err(|_| UpstreamError::Malformed)
}

/// What is taken from an answer to the right question.
pub(crate) fn believed(message: Message) -> Result<Answer, UpstreamError> {
    let aliases = |record: &&Record| matches!(record.record_type(), RecordType::CNAME | RecordType::DNAME);
    if message.answers.iter().filter(aliases).count() > MAX_ALIASES {
        return Err(UpstreamError::Aliases);
    }
    match message.metadata.response_code {
        code @ (ResponseCode::NoError | ResponseCode::NXDomain) => Ok(Answer {
            code,
            answers: message.answers,
            authorities: message.authorities,
            additionals: message.additionals,
        }),
        code => Err(UpstreamError::Failed(code)),
    }
}

async fn over_either(server: SocketAddr, request: &[u8], question: &Query, id: u16) -> Result<Message, UpstreamError> {
    let message = over_udp(server, request, question, id).await?;
    if message.metadata.truncation { over_tcp(server, request, question, id).await } else { Ok(message) }
}

async fn over_udp(server: SocketAddr, request: &[u8], question: &Query, id: u16) -> Result<Message, UpstreamError> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected, so that only this server is heard and "port unreachable" ends the try.
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is not the answer may be a forgery; the answer may still come.
        if let Some(message) = matching(&buffer[..length], question, id) {
            return Ok(message);
        }
    }
}

async fn over_tcp(server: SocketAddr, request: &[u8], question: &Query, id: u16) -> Result<Message, UpstreamError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(request.len()).map_err(|_| UpstreamError::Malformed)?;
    // In one write (RFC 7766 8).
    stream.write_all(&[&length.to_be_bytes(), request].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    matching(&answer, question, id).ok_or(UpstreamError::Malformed)
}

pub(crate) fn matching(bytes: &[u8], question: &Query, id: u16) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let ours = message.metadata.id == id && message.metadata.message_type == MessageType::Response;
    let [answered] = message.queries.as_slice() else { return None };
    let same = answered.name.eq_ignore_root(&question.name)
        && answered.query_type == question.query_type
        && answered.query_class == question.query_class;
    (ours && same).then_some(message)
}
