//! `dig`, with the sections and comments of BIND's.

use super::nslookup::{code_name, reverse_name, server};
use super::resolver::{Resolver, exchange, question};
use super::stdio::Outcome;
use super::{Tool, clock};
use crate::program::Container;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

pub(super) const TOOLS: &[Tool] = &[Tool::new("dig", |c| Box::pin(dig(c)))];

/// UDP payload that dig announces (RFC 6891).
const PAYLOAD: u16 = 1232;

/// What to show.
struct Display {
    short: bool,
    commands: bool,
    comments: bool,
    question: bool,
    answer: bool,
    authority: bool,
    additional: bool,
    statistics: bool,
}

struct Command {
    server: Option<String>,
    port: u16,
    name: String,
    record_type: RecordType,
    search: bool,
    tcp: bool,
    edns: bool,
    recurse: bool,
    ignore_truncation: bool,
    timeout: Duration,
    tries: u32,
    display: Display,
}

/// Reads a command line; the error is what dig says.
fn parse(args: &[String]) -> Result<Command, String> {
    let mut command = Command {
        server: None,
        port: 53,
        name: String::new(),
        record_type: RecordType::A,
        search: false,
        tcp: false,
        edns: true,
        recurse: true,
        ignore_truncation: false,
        timeout: Duration::from_secs(5),
        tries: 3,
        display: Display {
            short: false,
            commands: true,
            comments: true,
            question: true,
            answer: true,
            authority: true,
            additional: true,
            statistics: true,
        },
    };
    let mut typed = false;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut next = || rest.next().cloned().ok_or_else(|| format!("option {arg} needs a value"));
        if let Some(server) = arg.strip_prefix('@') {
            command.server = Some(server.to_owned());
        } else if let Some(option) = arg.strip_prefix('+') {
            command.query_option(option)?;
        } else if arg == "-x" {
            let value = next()?;
            let address: IpAddr = value.parse().map_err(|_| format!("Invalid IP address {value}"))?;
            command.name = reverse_name(address);
            command.record_type = RecordType::PTR;
        } else if arg == "-t" {
            let value = next()?;
            command.record_type = record_type(&value).ok_or_else(|| format!("unknown query type {value}"))?;
            typed = true;
        } else if arg == "-p" {
            command.port = next()?.parse().map_err(|_| "Couldn't parse port number".to_owned())?;
        } else if arg == "-q" {
            command.name = next()?;
        } else if matches!(arg.as_str(), "-4" | "-6" | "-u" | "-r") {
        } else if arg.starts_with('-') && arg.len() > 1 {
            return Err(format!("Invalid option: {arg}"));
        } else if arg.eq_ignore_ascii_case("IN") {
        } else if !typed && record_type(arg).is_some() {
            // Before the name or after it.
            command.record_type = record_type(arg).unwrap_or(RecordType::A);
            typed = true;
        } else {
            command.name.clone_from(arg);
        }
    }
    if command.name.is_empty() {
        command.name = ".".to_owned();
        if !typed {
            command.record_type = RecordType::NS;
        }
    }
    Ok(command)
}

fn record_type(text: &str) -> Option<RecordType> {
    text.to_ascii_uppercase().parse().ok()
}

impl Command {
    fn query_option(&mut self, option: &str) -> Result<(), String> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let (name, on) = match name.strip_prefix("no") {
            Some(name) => (name, false),
            None => (name, true),
        };
        let display = &mut self.display;
        match name {
            "short" => display.short = on,
            "all" => {
                *display = Display {
                    short: display.short,
                    commands: on,
                    comments: on,
                    question: on,
                    answer: on,
                    authority: on,
                    additional: on,
                    statistics: on,
                };
            }
            "cmd" => display.commands = on,
            "comments" => display.comments = on,
            "question" => display.question = on,
            "answer" => display.answer = on,
            "authority" => display.authority = on,
            "additional" => display.additional = on,
            "stats" => display.statistics = on,
            "search" | "defname" => self.search = on,
            "tcp" | "vc" => self.tcp = on,
            "edns" | "dnssec" | "bufsize" | "cookie" | "subnet" => self.edns = on || name != "edns",
            "recurse" | "rec" => self.recurse = on,
            "ignore" => self.ignore_truncation = on,
            "time" | "timeout" => self.timeout = Duration::from_secs(value.parse().unwrap_or(5).clamp(1, 300)),
            "tries" => self.tries = value.parse().unwrap_or(3).clamp(1, 20),
            "retry" => self.tries = value.parse::<u32>().unwrap_or(2).clamp(0, 20) + 1,
            "domain" | "ndots" | "trace" | "identify" | "multiline" | "ttlid" | "ttlunits" | "class" | "qr"
            | "fail" | "nssearch" | "idnin" | "idnout" | "keepopen" | "split" | "crypto" | "adflag" | "cdflag"
            | "ad" | "cd" | "aaonly" | "showsearch" | "rrcomments" | "yaml" | "onesoa" | "expire" => {}
            _ => return Err(format!("Invalid option: +{option}")),
        }
        Ok(())
    }
}

async fn dig(c: &mut Container) -> Outcome {
    let command = match parse(&c.args[1..]) {
        Ok(command) => command,
        Err(message) => {
            c.complain(format!("{message}\nUsage:  dig [@global-server] [domain] [q-type] {{q-opt}}")).await;
            return Ok(1);
        }
    };
    let config = Resolver::new(&c.host, &c.files).config();
    let Some(server) = server(c, &config, command.server.as_deref(), command.port).await else {
        let named = command.server.unwrap_or_default();
        c.complain(format!("dig: couldn't get address for '{named}': not found")).await;
        return Ok(10);
    };
    let names = if command.search { config.candidates(&command.name) } else { vec![command.name.clone()] };
    if command.display.commands && !command.display.short {
        let words = c.args[1..].join(" ");
        c.print(format!("\n; <<>> DiG 9.18.28 <<>> {words}\n;; global options: +cmd\n")).await?;
    }
    let mut last = None;
    for name in names {
        let Ok(mut full) = Name::from_ascii(&name) else {
            c.print(format!("dig: '{name}' is not a legal name (bad label)\n")).await?;
            return Ok(10);
        };
        full.set_fqdn(true);
        let begun = Instant::now();
        let message = match ask(c, &command, server, &full).await? {
            Some(message) => message,
            None => {
                c.print(";; no servers could be reached\n").await?;
                return Ok(9);
            }
        };
        let found =
            message.metadata.response_code != ResponseCode::NXDomain && !(command.search && message.answers.is_empty());
        last = Some((message, begun.elapsed()));
        if found {
            break;
        }
    }
    if let Some((message, took)) = last {
        let text = if command.display.short { short(&message) } else { whole(&message, &command, server, took) };
        c.print(text).await?;
    }
    Ok(0)
}

async fn ask(c: &mut Container, command: &Command, server: SocketAddr, name: &Name) -> io::Result<Option<Message>> {
    for _ in 0..command.tries {
        let mut question = question(name, command.record_type);
        question.metadata.recursion_desired = command.recurse;
        question.metadata.authentic_data = true;
        if command.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            question.set_edns(edns);
        }
        match exchange(&c.host, server, question, command.timeout, command.tcp).await {
            Ok(message) => return Ok(Some(message)),
            Err(error) => {
                let why = match error.kind() {
                    io::ErrorKind::ConnectionRefused => "connection refused",
                    io::ErrorKind::HostUnreachable => "host unreachable",
                    io::ErrorKind::NetworkUnreachable => "network unreachable",
                    io::ErrorKind::UnexpectedEof => "end of file",
                    _ => "timed out",
                };
                let (ip, port) = (server.ip(), server.port());
                c.print(format!(";; communications error to {ip}#{port}: {why}\n")).await?;
            }
        }
    }
    Ok(None)
}

fn short(message: &Message) -> String {
    message.answers.iter().map(|record| format!("{}\n", data(&record.data))).collect()
}

/// Record data as a zone file has it.
fn data(data: &RData) -> String {
    match data {
        RData::TXT(txt) => {
            let parts: Vec<String> =
                txt.txt_data.iter().map(|part| format!("\"{}\"", String::from_utf8_lossy(part))).collect();
            parts.join(" ")
        }
        other => other.to_string(),
    }
}

fn line(record: &Record) -> String {
    let name = record.name.to_ascii();
    let (ttl, class, kind) = (record.ttl, record.dns_class, record.record_type());
    format!("{}\t{ttl}\t{class}\t{kind}\t{}\n", padded(&name), data(&record.data))
}

/// A name and the tabs that bring the next column to position 24.
fn padded(name: &str) -> String {
    let tabs = 2usize.saturating_sub(name.len() / 8);
    format!("{name}{}", "\t".repeat(tabs))
}

fn whole(message: &Message, command: &Command, server: SocketAddr, took: Duration) -> String {
    let display = &command.display;
    let metadata = &message.metadata;
    let mut text = String::new();
    if display.comments {
        let flags = [
            ("qr", true),
            ("aa", metadata.authoritative),
            ("tc", metadata.truncation),
            ("rd", metadata.recursion_desired),
            ("ra", metadata.recursion_available),
            ("ad", metadata.authentic_data),
            ("cd", metadata.checking_disabled),
        ];
        let flags: String = flags.iter().filter(|(_, set)| *set).map(|(flag, _)| format!(" {flag}")).collect();
        let extra = usize::from(message.edns.is_some());
        text.push_str(&format!(
            ";; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: {}, id: {}\n;; flags:{flags}; QUERY: {}, ANSWER: {}, AUTHORITY: {}, ADDITIONAL: {}\n",
            code_name(metadata.response_code),
            metadata.id,
            message.queries.len(),
            message.answers.len(),
            message.authorities.len(),
            message.additionals.len() + extra,
        ));
        if command.recurse && !metadata.recursion_available {
            text.push_str(";; WARNING: recursion requested but not available\n");
        }
        text.push('\n');
        if let Some(edns) = &message.edns
            && display.additional
        {
            let payload = edns.max_payload();
            text.push_str(&format!(";; OPT PSEUDOSECTION:\n; EDNS: version: 0, flags:; udp: {payload}\n"));
        }
    }
    if display.question {
        if display.comments {
            text.push_str(";; QUESTION SECTION:\n");
        }
        for query in &message.queries {
            let name = query.name().to_ascii();
            text.push_str(&format!(
                ";{}\t{}\t{}\n",
                padded(&format!(" {name}"))[1..].to_owned() + "\t",
                query.query_class(),
                query.query_type()
            ));
        }
        text.push('\n');
    }
    let sections = [
        ("ANSWER", display.answer, &message.answers),
        ("AUTHORITY", display.authority, &message.authorities),
        ("ADDITIONAL", display.additional, &message.additionals),
    ];
    for (name, shown, records) in sections {
        if !shown || records.is_empty() {
            continue;
        }
        if display.comments {
            text.push_str(&format!(";; {name} SECTION:\n"));
        }
        text.extend(records.iter().map(line));
        if display.comments {
            text.push('\n');
        }
    }
    if display.statistics {
        let (ip, port) = (server.ip(), server.port());
        let protocol = if command.tcp { "TCP" } else { "UDP" };
        let when = clock::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("%a %b %d %H:%M:%S UTC %Y").to_string();
        let size = message.to_vec().map(|bytes| bytes.len()).unwrap_or(0);
        text.push_str(&format!(
            ";; Query time: {} msec\n;; SERVER: {ip}#{port}({ip}) ({protocol})\n;; WHEN: {when}\n;; MSG SIZE  rcvd: {size}\n\n",
            took.as_millis()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::programs::harness::{Machine, network};
    use crate::programs::resolver::tests::{Manner, client, serve};

    const ZONE: &[(&str, &str)] = &[("web.default.svc.cluster.local.", "10.96.0.7")];

    #[tokio::test(start_paused = true)]
    async fn dig_shows_sections_or_just_the_data() {
        let network = network();
        let _server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Plain);
        let client = client(&network, "");
        let short = client.run(&["dig", "+short", "web.default.svc.cluster.local"], "").await;
        assert_eq!(short.stdout, "10.96.0.7\n");
        let searched = client.run(&["dig", "+search", "+short", "web"], "").await;
        assert_eq!(searched.stdout, "10.96.0.7\n");
        let tcp = client
            .run(&["dig", "+tcp", "+noall", "+answer", "@10.0.0.53", "web.default.svc.cluster.local", "A"], "")
            .await;
        assert_eq!(tcp.stdout, "web.default.svc.cluster.local.\t30\tIN\tA\t10.96.0.7\n");
        let whole = client.run(&["dig", "web"], "").await;
        assert!(whole.stdout.contains("status: NXDOMAIN"), "{}", whole.stdout);
        assert!(whole.stdout.contains(";; SERVER: 10.0.0.53#53(10.0.0.53) (UDP)"), "{}", whole.stdout);
    }

    #[tokio::test(start_paused = true)]
    async fn dig_tells_when_nobody_answers() {
        let network = network();
        let _server = serve(Machine::at(&network, "10.0.0.53"), ZONE, Manner::Silent);
        let client = client(&network, "");
        let ran = client.run(&["dig", "+time=1", "+tries=2", "web"], "").await;
        assert_eq!(ran.status, 9);
        assert!(ran.stdout.contains(";; communications error to 10.0.0.53#53: timed out\n"), "{}", ran.stdout);
        let odd = client.run(&["dig", "+nonsense", "web"], "").await;
        assert_eq!(odd.status, 1);
    }
}
