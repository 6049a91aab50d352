//! The stub resolver: names to addresses as the C library of a pod finds them.
//!
//! Follows resolv.conf(5) and glibc: /etc/hosts first; then the search list as `ndots` says, A and AAAA in parallel, every nameserver
//! in turn, a truncated answer again over TCP. In-process pods use [`lookup`]; the tools ask single questions with `Resolver::ask`.
//!
//! Not here: caching, DNSSEC, mDNS, IDNA.

use super::stdio::seed;
use crate::files::Files;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use netstack::Host;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nameservers that are asked, as in glibc (`MAXNS`).
const NAMESERVERS: usize = 3;
/// Domains of the search list, as Kubernetes allows.
const SEARCHES: usize = 32;
/// Largest `ndots`, as in glibc.
const NDOTS: usize = 15;
/// A UDP answer cannot be larger.
const DATAGRAM: usize = 65_535;

/// The addresses of a name, of the families that `host` has first.
///
/// # Errors
/// `NotFound`: there is no such name, or it has no addresses. `TimedOut`: no nameserver answered. `Other`: they answered with a failure.
pub async fn lookup(host: &Host, files: &Files, name: &str) -> io::Result<Vec<IpAddr>> {
    Resolver::new(host, files).addresses(name).await
}

/// The full names that a resolver with this `/etc/resolv.conf` asks for in turn when it looks `name` up.
pub fn search_names(resolv_conf: &str, name: &str) -> Vec<String> {
    Config::parse(resolv_conf).candidates(name)
}

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) nameservers: Vec<IpAddr>,
    pub(crate) search: Vec<String>,
    pub(crate) ndots: usize,
    pub(crate) timeout: Duration,
    pub(crate) attempts: usize,
    /// `use-vc`: always TCP.
    pub(crate) tcp: bool,
}

impl Config {
    /// Reads resolv.conf(5). What it does not understand it skips.
    pub(crate) fn parse(text: &str) -> Config {
        let mut config = Config {
            nameservers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            tcp: false,
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address: Option<IpAddr> = words.next().and_then(|word| word.split('%').next()?.parse().ok());
                    if config.nameservers.len() < NAMESERVERS {
                        config.nameservers.extend(address);
                    }
                }
                Some("search" | "domain") => {
                    let domains = words.take(SEARCHES).map(|word| word.trim_end_matches('.').to_owned());
                    config.search = domains.filter(|domain| !domain.is_empty()).collect();
                }
                Some("options") => words.for_each(|option| config.option(option)),
                _ => {}
            }
        }
        if config.nameservers.is_empty() {
            config.nameservers.push(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        config
    }

    fn option(&mut self, option: &str) {
        let (name, value) = option.split_once(':').unwrap_or((option, ""));
        let number = value.parse::<usize>();
        match (name, number) {
            ("ndots", Ok(ndots)) => self.ndots = ndots.min(NDOTS),
            // glibc's limits: at most 30 s and 5 attempts.
            ("timeout", Ok(seconds)) => self.timeout = Duration::from_secs(seconds.clamp(1, 30) as u64),
            ("attempts", Ok(attempts)) => self.attempts = attempts.clamp(1, 5),
            ("use-vc", _) => self.tcp = true,
            _ => {}
        }
    }

    /// The full names to ask for, in order.
    pub(crate) fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let dots = name.matches('.').count();
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}."));
        let as_is = format!("{name}.");
        if dots >= self.ndots {
            std::iter::once(as_is).chain(searched).collect()
        } else {
            searched.chain([as_is]).collect()
        }
    }
}

/// A resolver of one host.
#[derive(Clone, Copy)]
pub(crate) struct Resolver<'a> {
    host: &'a Host,
    files: &'a Files,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(host: &'a Host, files: &'a Files) -> Self {
        Resolver { host, files }
    }

    /// What /etc/resolv.conf says now.
    pub(crate) fn config(&self) -> Config {
        Config::parse(&self.text("/etc/resolv.conf"))
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.files.read(path).unwrap_or_default()).into_owned()
    }

    /// See [`lookup`].
    pub(crate) async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = literal.parse() {
            return Ok(vec![address]);
        }
        let mut addresses = addresses_in_hosts(&self.text("/etc/hosts"), name);
        if addresses.is_empty() && matches!(name.trim_end_matches('.'), "localhost") {
            addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        }
        if addresses.is_empty() {
            addresses = self.in_dns(name).await?;
        }
        let own = self.host.addresses();
        // RFC 6724 in short: what this host has an address for comes first.
        addresses.sort_by_key(|address| !own.iter().any(|own| own.is_ipv4() == address.is_ipv4()));
        Ok(addresses)
    }

    async fn in_dns(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let config = self.config();
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "Name or service not known");
        for candidate in config.candidates(name) {
            let Ok(full) = Name::from_ascii(&candidate) else {
                continue;
            };
            let (v4, v6) =
                tokio::join!(self.ask(&config, &full, RecordType::A), self.ask(&config, &full, RecordType::AAAA));
            let mut addresses = Vec::new();
            let mut unanswered = None;
            for answer in [v4, v6] {
                match answer {
                    Ok(message) => match message.metadata.response_code {
                        ResponseCode::NoError => addresses.extend(addresses_in(&message)),
                        ResponseCode::NXDomain => {}
                        // glibc goes on with the search list and remembers that a server failed.
                        _ => failure = io::Error::other("Temporary failure in name resolution"),
                    },
                    Err(error) => unanswered = Some(error),
                }
            }
            if !addresses.is_empty() {
                return Ok(addresses);
            }
            if let Some(error) = unanswered {
                return Err(io::Error::new(error.kind(), "Temporary failure in name resolution"));
            }
        }
        Err(failure)
    }

    /// Asks the nameservers one question about a full name: the first answer that is not a server's failure, or else the last failure.
    pub(crate) async fn ask(&self, config: &Config, name: &Name, record_type: RecordType) -> io::Result<Message> {
        let mut failed: io::Result<Message> = Err(io::ErrorKind::TimedOut.into());
        for _ in 0..config.attempts {
            for server in &config.nameservers {
                let server = SocketAddr::new(*server, 53);
                let question = question(name, record_type);
                match exchange(self.host, server, question, config.timeout, config.tcp).await {
                    Ok(message) => match message.metadata.response_code {
                        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp => failed = Ok(message),
                        _ => return Ok(message),
                    },
                    Err(error) => {
                        if failed.is_err() {
                            failed = Err(error);
                        }
                    }
                }
            }
        }
        failed
    }
}

/// The question for a name, to be given an id when it is sent.
pub(crate) fn question(name: &Name, record_type: RecordType) -> Message {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), record_type));
    message
}

/// Sends a question to one server and waits for its answer. A truncated answer is asked for again over TCP.
pub(crate) async fn exchange(
    host: &Host,
    server: SocketAddr,
    message: Message,
    timeout: Duration,
    tcp: bool,
) -> io::Result<Message> {
    let answered = async {
        if !tcp {
            let answer = over_udp(host, server, message.clone()).await?;
            if !answer.metadata.truncation {
                return Ok(answer);
            }
        }
        over_tcp(host, server, message).await
    };
    tokio::time::timeout(timeout, answered).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

fn encoded(message: &Message) -> io::Result<Vec<u8>> {
    message.to_vec().map_err(io::Error::other)
}

/// The id of a question. The source port, which the network draws from its generator, is the only chance in it: a run can be repeated.
fn id(port: u16, message: &Message) -> u16 {
    let about = message.queries.first().map(|query| (query.name().to_ascii(), u16::from(query.query_type())));
    seed((port, about)) as u16
}

async fn over_udp(host: &Host, server: SocketAddr, mut message: Message) -> io::Result<Message> {
    let socket = host.udp_bind(0)?;
    message.metadata.id = id(socket.local_port(), &message);
    socket.send_to(&encoded(&message)?, server).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        // Somebody else's datagram is not an answer (RFC 5452, 4).
        if from != server {
            continue;
        }
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if answers(&answer, &message) => return Ok(answer),
            _ => continue,
        }
    }
}

async fn over_tcp(host: &Host, server: SocketAddr, mut message: Message) -> io::Result<Message> {
    let mut stream = host.tcp_connect(server).await?;
    message.metadata.id = id(stream.local_addr().port(), &message);
    let bytes = encoded(&message)?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await?;
    stream.flush().await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    match Message::from_vec(&answer) {
        Ok(answer) if answers(&answer, &message) => Ok(answer),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn answers(answer: &Message, question: &Message) -> bool {
    answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && (answer.queries.is_empty() || answer.queries == question.queries)
}

/// The addresses in an answer.
pub(crate) fn addresses_in(message: &Message) -> Vec<IpAddr> {
    message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .collect()
}

/// The addresses that the text of an `/etc/hosts` gives to `name`.
pub fn addresses_in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    hosts
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|known| known.eq_ignore_ascii_case(name)).then_some(address)
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
