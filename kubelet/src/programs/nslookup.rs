//! `nslookup` and `host`, with BIND's output, and `getent hosts`.

use super::Tool;
use super::options::{Options, Order};
use super::resolver::{Config, Resolver, exchange, question};
use super::stdio::Outcome;
use super::system::refuse;
use crate::program::Container;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("getent", |c| Box::pin(getent(c))),
    Tool::new("host", |c| Box::pin(host(c))),
    Tool::new("nslookup", |c| Box::pin(nslookup(c))),
];

/// The name under which the addresses of an address are looked up (RFC 1035, 3.5; RFC 3596, 2.5).
pub(super) fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(address) => {
            let nibbles: String =
                address.octets().iter().rev().map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4)).collect();
            format!("{nibbles}ip6.arpa.")
        }
    }
}

/// A name without the dot at its end, as these tools print it.
fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

/// `NXDOMAIN`, as BIND writes response codes.
pub(super) fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => format!("RCODE{}", u16::from(other)),
    }
}

/// What a walk through the search list ended with.
struct Walk {
    /// The server that answered last.
    server: SocketAddr,
    /// The name that was asked last.
    asked: String,
    answers: Vec<Message>,
    /// The last response code; `None`: nobody answered.
    code: Option<ResponseCode>,
}

/// Asks for a name with the search list, of each type, until some server says something else than NXDOMAIN.
async fn walk(c: &Container, config: &Config, server: SocketAddr, name: &str, types: &[RecordType]) -> Walk {
    let mut walk = Walk { server, asked: name.to_owned(), answers: Vec::new(), code: None };
    for candidate in config.candidates(name) {
        let Ok(full) = Name::from_ascii(&candidate) else { continue };
        walk.asked = candidate.trim_end_matches('.').to_owned();
        let mut found = false;
        walk.answers.clear();
        for record_type in types {
            match ask(c, config, server, &full, *record_type).await {
                Ok(message) => {
                    walk.code = Some(message.metadata.response_code);
                    found |= message.metadata.response_code == ResponseCode::NoError && !message.answers.is_empty();
                    walk.answers.push(message);
                }
                Err(_) => {
                    walk.code = None;
                    return walk;
                }
            }
        }
        let over = matches!(walk.code, Some(code) if code != ResponseCode::NXDomain && code != ResponseCode::NoError);
        if found || over {
            return walk;
        }
    }
    walk
}

async fn ask(
    c: &Container,
    config: &Config,
    server: SocketAddr,
    name: &Name,
    record_type: RecordType,
) -> io::Result<Message> {
    let mut failure = io::ErrorKind::TimedOut.into();
    for _ in 0..config.attempts.max(1) {
        match exchange(&c.host, server, question(name, record_type), config.timeout, config.tcp).await {
            Ok(message) => return Ok(message),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The server named on the command line, or the first of resolv.conf.
pub(super) async fn server(c: &Container, config: &Config, named: Option<&str>, port: u16) -> Option<SocketAddr> {
    let address = match named {
        Some(name) => *Resolver::new(&c.host, &c.files).addresses(name).await.ok()?.first()?,
        None => *config.nameservers.first()?,
    };
    Some(SocketAddr::new(address, port))
}

async fn nslookup(c: &mut Container) -> Outcome {
    let mut config = Resolver::new(&c.host, &c.files).config();
    let mut record_type = None;
    let mut port = 53;
    let mut operands = Vec::new();
    let args = c.args.clone();
    for arg in &args[1..] {
        let Some(option) = arg.strip_prefix('-') else {
            operands.push(arg.clone());
            continue;
        };
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "type" | "query" | "q" | "querytype" | "ty" => match value.to_ascii_uppercase().parse::<RecordType>() {
                Ok(parsed) => record_type = Some(parsed),
                Err(_) => return refuse(c, format!("unknown query type: {value}"), 1).await,
            },
            "port" => port = value.parse().unwrap_or(53),
            "timeout" => config.timeout = Duration::from_secs(value.parse().unwrap_or(5).clamp(1, 60)),
            "retry" => config.attempts = value.parse().unwrap_or(2).clamp(1, 10),
            "vc" => config.tcp = true,
            "nosearch" => config.search.clear(),
            _ => {}
        }
    }
    let Some(name) = operands.first().cloned() else {
        return refuse(c, "usage: nslookup [-type=QUERY_TYPE] [-debug] HOST [DNS_SERVER]", 1).await;
    };
    let Some(server) = server(c, &config, operands.get(1).map(String::as_str), port).await else {
        let named = operands.get(1).cloned().unwrap_or_default();
        c.print(format!("nslookup: couldn't get address for '{named}': not found\n")).await?;
        return Ok(1);
    };
    let header = format!("Server:\t\t{}\nAddress:\t{}#{}\n\n", server.ip(), server.ip(), server.port());
    if let Ok(address) = name.parse::<IpAddr>() {
        let reversed = reverse_name(address);
        let full = Name::from_ascii(&reversed).map_err(io::Error::other)?;
        return match ask(c, &config, server, &full, RecordType::PTR).await {
            Ok(message) if message.answers.is_empty() => {
                let code = code_name(message.metadata.response_code);
                c.print(format!("** server can't find {}: {code}\n\n", reversed.trim_end_matches('.'))).await?;
                Ok(1)
            }
            Ok(message) => {
                let lines: String = message.answers.iter().map(|record| format!("{}\n", long_form(record))).collect();
                c.print(format!("{lines}\n")).await?;
                Ok(0)
            }
            Err(_) => unreachable_server(c, server).await,
        };
    }
    let types = match record_type {
        Some(record_type) => vec![record_type],
        None => vec![RecordType::A, RecordType::AAAA],
    };
    let walk = walk(c, &config, server, &name, &types).await;
    match walk.code {
        None => unreachable_server(c, walk.server).await,
        Some(_) if walk.answers.iter().any(|message| !message.answers.is_empty()) => {
            let mut text = header;
            let mut seen = std::collections::BTreeSet::new();
            for record in walk.answers.iter().flat_map(|message| &message.answers) {
                let line = match &record.data {
                    RData::A(address) => format!("Name:\t{}\nAddress: {address}\n", plain(&record.name)),
                    RData::AAAA(address) => format!("Name:\t{}\nAddress: {address}\n", plain(&record.name)),
                    _ => format!("{}\n", long_form(record)),
                };
                if seen.insert(line.clone()) {
                    text.push_str(&line);
                }
            }
            c.print(text + "\n").await?;
            Ok(0)
        }
        Some(ResponseCode::NoError) => {
            c.print(format!("{header}*** Can't find {}: No answer\n\n", walk.asked)).await?;
            Ok(1)
        }
        Some(code) => {
            // BIND's nslookup names what was typed when the whole search list was in vain.
            c.print(format!("{header}** server can't find {}: {}\n\n", walk.asked, code_name(code))).await?;
            Ok(1)
        }
    }
}

async fn unreachable_server(c: &mut Container, server: SocketAddr) -> Outcome {
    let (ip, port) = (server.ip(), server.port());
    let line = format!(";; communications error to {ip}#{port}: timed out\n");
    c.print(format!("{line}{line};; no servers could be reached\n\n")).await?;
    Ok(1)
}

/// A record as nslookup prints those that are not addresses.
fn long_form(record: &hickory_proto::rr::Record) -> String {
    let owner = plain(&record.name);
    match &record.data {
        RData::CNAME(name) => format!("{owner}\tcanonical name = {}.", plain(&name.0)),
        RData::PTR(name) => format!("{owner}\tname = {}.", plain(&name.0)),
        RData::NS(name) => format!("{owner}\tnameserver = {}.", plain(&name.0)),
        RData::SRV(srv) => {
            format!("{owner}\tservice = {} {} {} {}.", srv.priority, srv.weight, srv.port, plain(&srv.target))
        }
        RData::TXT(_) => format!("{owner}\ttext = {}", record.data),
        RData::MX(mx) => format!("{owner}\tmail exchanger = {} {}.", mx.preference, plain(&mx.exchange)),
        RData::SOA(soa) => format!(
            "{owner}\n\torigin = {}\n\tmail addr = {}\n\tserial = {}\n\trefresh = {}\n\tretry = {}\n\texpire = {}\n\tminimum = {}",
            plain(&soa.mname),
            plain(&soa.rname),
            soa.serial,
            soa.refresh,
            soa.retry,
            soa.expire,
            soa.minimum
        ),
        data => format!("{owner}\t{} = {data}", record.record_type()),
    }
}

async fn host(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "t: a v T 4 6 W: R: N: s", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    let Some(name) = options.operands.first().cloned() else {
        return refuse(c, "usage: host [-t type] hostname [server]", 1).await;
    };
    let mut config = Resolver::new(&c.host, &c.files).config();
    config.tcp |= options.has("T");
    if let Some(seconds) = options.value("W").and_then(|text| text.parse().ok()) {
        config.timeout = Duration::from_secs(seconds);
    }
    let Some(server) = server(c, &config, options.operands.get(1).map(String::as_str), 53).await else {
        c.print(format!("host: couldn't get address for '{}': not found\n", options.operands[1])).await?;
        return Ok(1);
    };
    if options.operands.len() > 1 {
        let ip = server.ip();
        c.print(format!("Using domain server:\nName: {}\nAddress: {ip}#53\nAliases: \n\n", options.operands[1]))
            .await?;
    }
    let types = match options.value("t").map(|text| text.to_ascii_uppercase().parse::<RecordType>()) {
        Some(Ok(record_type)) => vec![record_type],
        Some(Err(_)) => return refuse(c, "invalid type", 2).await,
        None if name.parse::<IpAddr>().is_ok() => vec![RecordType::PTR],
        None => vec![RecordType::A, RecordType::AAAA],
    };
    let asked = match name.parse::<IpAddr>() {
        Ok(address) => reverse_name(address),
        Err(_) => name.clone(),
    };
    let walk = walk(c, &config, server, &asked, &types).await;
    let Some(code) = walk.code else {
        c.print(";; connection timed out; no servers could be reached\n").await?;
        return Ok(1);
    };
    let records: Vec<_> = walk.answers.iter().flat_map(|message| &message.answers).collect();
    if records.is_empty() {
        let text = match code {
            ResponseCode::NoError => {
                format!("{name} has no {} record\n", types.first().map(ToString::to_string).unwrap_or_default())
            }
            code => format!("Host {} not found: {}({})\n", walk.asked, u16::from(code), code_name(code)),
        };
        c.print(text).await?;
        return Ok(1);
    }
    let mut text = String::new();
    let mut seen = std::collections::BTreeSet::new();
    for record in records {
        let owner = plain(&record.name);
        let line = match &record.data {
            RData::A(address) => format!("{owner} has address {address}\n"),
            RData::AAAA(address) => format!("{owner} has IPv6 address {address}\n"),
            RData::CNAME(target) => format!("{owner} is an alias for {}.\n", plain(&target.0)),
            RData::PTR(target) => format!("{owner} domain name pointer {}.\n", plain(&target.0)),
            RData::SRV(srv) => {
                format!("{owner} has SRV record {} {} {} {}.\n", srv.priority, srv.weight, srv.port, plain(&srv.target))
            }
            data => format!("{owner} has {} record {data}\n", record.record_type()),
        };
        if seen.insert(line.clone()) {
            text.push_str(&line);
        }
    }
    c.print(text).await?;
    Ok(0)
}

/// `getent hosts NAME`: as the C library resolves.
async fn getent(c: &mut Container) -> Outcome {
    let (database, name) = match &c.args[1..] {
        [database, name] => (database.clone(), name.clone()),
        [database] if database == "hosts" => {
            let hosts = c.files.read("/etc/hosts")?;
            c.print(hosts).await?;
            return Ok(0);
        }
        _ => return refuse(c, "usage: getent database [key]", 1).await,
    };
    if !matches!(database.as_str(), "hosts" | "ahosts" | "ahostsv4" | "ahostsv6") {
        return refuse(c, format!("Unknown database: {database}"), 1).await;
    }
    let Ok(addresses) = Resolver::new(&c.host, &c.files).addresses(&name).await else { return Ok(2) };
    let wanted = |address: &IpAddr| match database.as_str() {
        "ahostsv4" => address.is_ipv4(),
        "ahostsv6" => address.is_ipv6(),
        _ => true,
    };
    let mut text = String::new();
    for address in addresses.into_iter().filter(wanted) {
        if database == "hosts" {
            text.push_str(&format!("{:<15} {name}\n", address.to_string()));
        } else {
            text.push_str(&format!("{:<15} STREAM {name}\n{0:<15} DGRAM  \n{0:<15} RAW    \n", address.to_string()));
        }
    }
    c.print(&text).await?;
    Ok(if text.is_empty() { 2 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::harness::{Machine, network};
    use crate::programs::resolver::tests::{Manner, client, serve};
    use expect_test::expect;

    const ZONE: &[(&str, &str)] = &[("web.default.svc.cluster.local.", "10.96.0.7")];

    #[tokio::test(start_paused = true)]
    async fn nslookup_prints_server_name_and_address() {
        let network = network();
        let _server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Plain);
        let client = client(&network, "");
        let ran = client.run(&["nslookup", "web"], "").await;
        expect![[r#"
            Server:		10.0.0.53
            Address:	10.0.0.53#53

            Name:	web.default.svc.cluster.local
            Address: 10.96.0.7

        "#]]
        .assert_eq(&ran.stdout);
        assert_eq!(ran.status, 0);
        let unknown = client.run(&["nslookup", "nobody.default.svc.cluster.local."], "").await;
        assert_eq!(unknown.status, 1);
        assert!(
            unknown.stdout.contains("** server can't find nobody.default.svc.cluster.local: NXDOMAIN"),
            "{unknown:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn host_prints_sentences() {
        let network = network();
        let _server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Plain);
        let client = client(&network, "");
        let ran = client.run(&["host", "web"], "").await;
        assert_eq!(ran.stdout, "web.default.svc.cluster.local has address 10.96.0.7\n");
        let ran = client.run(&["getent", "hosts", "web"], "").await;
        assert_eq!(ran.stdout, "10.96.0.7       web\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_reported_in_the_end() {
        let network = network();
        let _server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Silent);
        let client = client(&network, "");
        let ran = client.run(&["nslookup", "web"], "").await;
        assert_eq!(ran.status, 1);
        assert!(ran.stdout.ends_with(";; no servers could be reached\n\n"), "{ran:?}");
    }

    #[test]
    fn addresses_are_reversed_for_pointers() {
        assert_eq!(reverse_name("10.96.0.7".parse().expect("an address")), "7.0.96.10.in-addr.arpa.");
        assert!(reverse_name("fd00::8".parse().expect("an address")).starts_with("8.0.0.0."));
    }
}
