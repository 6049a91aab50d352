//! `curl`: the options, messages and exit statuses that scripts against HTTP services rely on.
//!
//! One transfer after another ([`transfer`]); [`report`] is `-v`, `-w` and the progress meter. Not here: protocols other than HTTP,
//! HTTP/2, proxies, cookies jars, multipart forms, URL globbing.

mod report;
mod tls;
mod transfer;
mod url;

#[cfg(test)]
mod tests;

use super::Tool;
use super::options::{Options, Order, duration};
use super::stdio::{Outcome, reason};
use crate::program::Container;
use http::{HeaderName, HeaderValue, Method};
use std::net::IpAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use transfer::{Failure, Transfer};

pub(super) const TOOLS: &[Tool] = &[Tool::new("curl", |c| Box::pin(curl(c)))];

/// The version whose messages these are.
const VERSION: &str = "8.11.1";

const OPTIONS: &str = "s|silent S|show-error v|verbose i|include I|head o:|output: O|remote-name w:|write-out: X:|request: \
    d:|data: |data-raw: |data-binary: |data-ascii: |data-urlencode: |json: H:|header: k|insecure L|location f|fail \
    |fail-with-body m:|max-time: |connect-timeout: |retry: |retry-delay: |retry-max-time: |retry-connrefused \
    |retry-all-errors u:|user: A:|user-agent: e:|referer: |resolve: |connect-to: 6|ipv6 4|ipv4 G|get b:|cookie: c: \
    0|http1.0 |http1.1 |http2 |http2-prior-knowledge |compressed x:|proxy: |noproxy: N|no-buffer #|progress-bar |cacert: \
    |capath: |cert: |key: |max-redirs: V|version h|help |url: T:|upload-file: |no-progress-meter |path-as-is g|globoff \
    q|disable |no-keepalive |keepalive-time: |tcp-nodelay |tlsv1.2 |tlsv1.3 |create-dirs D:|dump-header: |oauth2-bearer: \
    |stderr: |interface: |no-sessionid |http0.9 Z|parallel |limit-rate: y: Y: |trace-time |trace-ascii: j n";

/// What the command line asks for every URL.
struct Settings {
    silent: bool,
    show_error: bool,
    verbose: bool,
    include: bool,
    head: bool,
    method: Option<Method>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Vec<u8>>,
    content_type: Option<&'static str>,
    follow: bool,
    max_redirects: usize,
    fail: bool,
    fail_with_body: bool,
    max_time: Option<Duration>,
    connect_timeout: Option<Duration>,
    retries: u32,
    retry_delay: Option<Duration>,
    retry_refused: bool,
    retry_all: bool,
    user: Option<String>,
    agent: String,
    resolve: Vec<(String, u16, Vec<IpAddr>)>,
    connect_to: Vec<(String, String, String, String)>,
    family: Option<Family>,
    insecure: bool,
    authorities: Option<String>,
    write_out: Option<String>,
    no_meter: bool,
    head_to: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// A message and the status curl exits with.
struct Mistake(i32, String);

async fn curl(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], OPTIONS, Order::Permuted) {
        Ok(options) => options,
        Err(message) => {
            let message = match message.strip_prefix("unrecognized option: ") {
                Some(name) if name.len() == 1 => format!("option -{name}: is unknown"),
                Some(name) => format!("option --{name}: is unknown"),
                None => message,
            };
            c.complain(format!("curl: {message}")).await;
            c.complain("curl: try 'curl --help' or 'curl --manual' for more information").await;
            return Ok(2);
        }
    };
    if options.has("V") {
        let arch = std::env::consts::ARCH;
        c.print(format!("curl {VERSION} ({arch}-coracle) rustls\nProtocols: http https\nFeatures: IPv6 SSL\n")).await?;
        return Ok(0);
    }
    if options.has("h") {
        c.print(USAGE).await?;
        return Ok(0);
    }
    let mut urls = options.operands.clone();
    urls.extend(options.values("url").map(str::to_owned));
    if urls.is_empty() {
        c.complain("curl: (2) no URL specified").await;
        c.complain("curl: try 'curl --help' or 'curl --manual' for more information").await;
        return Ok(2);
    }
    let settings = match settings(c, &options).await {
        Ok(settings) => settings,
        Err(Mistake(status, message)) => {
            c.complain(format!("curl: {message}")).await;
            return Ok(status);
        }
    };
    let outputs: Vec<&str> = options.values("o").collect();
    let mut status = 0;
    for (at, url) in urls.iter().enumerate() {
        let output = match outputs.get(at) {
            Some(path) => Some((*path).to_owned()),
            None if options.has("O") => Some(remote_name(url)),
            None => None,
        };
        status = run(c, &settings, url, output).await?;
    }
    Ok(status)
}

/// The file that `-O` writes.
fn remote_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let after_scheme = path.split_once("://").map_or(path, |(_, rest)| rest);
    match after_scheme.split_once('/') {
        Some((_, path)) => {
            path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("curl_response").to_owned()
        }
        None => "curl_response".to_owned(),
    }
}

/// One URL with its retries.
async fn run(c: &mut Container, settings: &Settings, url: &str, output: Option<String>) -> Outcome {
    let mut left = settings.retries;
    let mut delay = Duration::from_secs(1);
    loop {
        let mut transfer = Transfer::new(settings, url, output.clone());
        let result = transfer.run(c).await;
        let failure = match result {
            Ok(()) => None,
            Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => return Err(error),
            Err(Failure::Output(error)) => {
                Some(Mistake(23, format!("(23) Failure writing output to destination: {}", reason(&error))))
            }
            Err(Failure::Curl(status, message)) => Some(Mistake(status, format!("({status}) {message}"))),
        };
        let transient = match &failure {
            Some(Mistake(28, _)) => true,
            Some(Mistake(7, _)) => settings.retry_refused || settings.retry_all,
            Some(_) => settings.retry_all || matches!(transfer.code, 408 | 429 | 500 | 502 | 503 | 504),
            None => matches!(transfer.code, 408 | 429 | 500 | 502 | 503 | 504),
        };
        if left > 0 && transient {
            let wait = settings.retry_delay.unwrap_or(delay);
            if !settings.silent || settings.show_error {
                let problem = match &failure {
                    Some(Mistake(28, _)) => "timeout".to_owned(),
                    Some(Mistake(7, _)) => "connection refused".to_owned(),
                    Some(_) | None if transfer.code > 0 => format!("HTTP error {}", transfer.code),
                    _ => "(retrying all errors)".to_owned(),
                };
                let seconds = wait.as_secs();
                let plural = if seconds == 1 { "" } else { "s" };
                let retries = if left == 1 { "retry" } else { "retries" };
                c.complain(format!(
                    "Warning: Problem: {problem}. Will retry in {seconds} second{plural}. {left} {retries} left."
                ))
                .await;
            }
            left -= 1;
            tokio::time::sleep(wait).await;
            delay = (delay * 2).min(Duration::from_secs(600));
            continue;
        }
        let status = failure.as_ref().map_or(0, |failure| failure.0);
        if let Some(template) = &settings.write_out {
            let message = failure.as_ref().map(|failure| failure.1.split_once(") ").map_or("", |(_, text)| text));
            let text = transfer.write_out(template, status, message.unwrap_or_default());
            c.print(text).await?;
        }
        if let Some(Mistake(_, message)) = failure
            && (!settings.silent || settings.show_error)
        {
            c.complain(format!("curl: {message}")).await;
        }
        c.stdout.flush().await?;
        return Ok(status);
    }
}

async fn settings(c: &mut Container, options: &Options) -> Result<Settings, Mistake> {
    let seconds = |name: &str| match options.value(name) {
        None => Ok(None),
        Some(text) => match duration(text) {
            Some(time) if time.is_zero() => Ok(None),
            Some(time) => Ok(Some(time)),
            None => Err(Mistake(2, format!("option --{name}: expected a proper numerical parameter"))),
        },
    };
    let mut body: Option<Vec<u8>> = None;
    let mut content_type = None;
    for (key, value) in options.iter() {
        let part = match key {
            "d" | "data-ascii" => {
                content_type = content_type.or(Some("application/x-www-form-urlencoded"));
                let mut bytes = data(c, value).await?;
                if value.starts_with('@') {
                    bytes.retain(|byte| !matches!(byte, b'\n' | b'\r'));
                }
                bytes
            }
            "data-raw" => {
                content_type = content_type.or(Some("application/x-www-form-urlencoded"));
                value.as_bytes().to_vec()
            }
            "data-binary" => {
                content_type = content_type.or(Some("application/x-www-form-urlencoded"));
                data(c, value).await?
            }
            "data-urlencode" => {
                content_type = content_type.or(Some("application/x-www-form-urlencoded"));
                match value.split_once('=') {
                    Some(("", text)) => super::http::encoded(text).into_bytes(),
                    Some((name, text)) => format!("{name}={}", super::http::encoded(text)).into_bytes(),
                    None => super::http::encoded(value).into_bytes(),
                }
            }
            "json" => {
                content_type = Some("application/json");
                data(c, value).await?
            }
            "T" => match c.content(value).await {
                Ok(bytes) => bytes,
                Err(_) => return Err(Mistake(26, format!("cannot open '{value}'"))),
            },
            _ => continue,
        };
        body = Some(match body {
            Some(mut before) => {
                if key != "json" && key != "T" {
                    before.push(b'&');
                }
                before.extend(part);
                before
            }
            None => part,
        });
    }
    let mut headers = Vec::new();
    if options.has("json") {
        headers.push((http::header::ACCEPT, HeaderValue::from_static("application/json")));
    }
    if let Some(token) = options.value("oauth2-bearer") {
        let value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Mistake(43, "(43) A libcurl function was given a bad argument".to_owned()))?;
        headers.push((http::header::AUTHORIZATION, value));
    }
    for (name, header) in [("b", http::header::COOKIE), ("e", http::header::REFERER)] {
        if let Some(value) = options.value(name).and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.push((header, value));
        }
    }
    for header in options.values("H") {
        // `Name:` without a value removes a header, `Name;` sends it empty.
        let (name, value) = match header.split_once(':') {
            Some((name, value)) => (name, value.trim()),
            None => (header.trim_end_matches(';'), ""),
        };
        let parsed =
            HeaderName::from_bytes(name.trim().as_bytes()).ok().zip(HeaderValue::from_bytes(value.as_bytes()).ok());
        headers.extend(parsed);
    }
    let method = match options.value("X") {
        Some(method) => match Method::from_bytes(method.as_bytes()) {
            Ok(method) => Some(method),
            Err(_) => return Err(Mistake(3, format!("(3) invalid request method '{method}'"))),
        },
        None if options.has("T") => Some(Method::PUT),
        None => None,
    };
    let mut resolve = Vec::new();
    for entry in options.values("resolve") {
        let mut parts = entry.splitn(3, ':');
        let parsed = (|| {
            let host = parts.next()?.trim_start_matches('+').to_owned();
            let port = match parts.next()? {
                "*" => 0,
                port => port.parse().ok()?,
            };
            let addresses: Option<Vec<IpAddr>> =
                parts.next()?.split(',').map(|address| address.trim_matches(['[', ']']).parse().ok()).collect();
            Some((host, port, addresses?))
        })();
        match parsed {
            Some(parsed) => resolve.push(parsed),
            None => return Err(Mistake(49, format!("(49) Couldn't parse CURLOPT_RESOLVE entry '{entry}'"))),
        }
    }
    let mut connect_to = Vec::new();
    for entry in options.values("connect-to") {
        let parts: Vec<&str> = entry.split(':').collect();
        let [host, port, to_host, to_port] = parts[..] else {
            return Err(Mistake(49, format!("(49) Invalid connect-to string '{entry}'")));
        };
        connect_to.push((host.to_owned(), port.to_owned(), to_host.to_owned(), to_port.to_owned()));
    }
    let authorities = match options.value("cacert").map(str::to_owned) {
        Some(path) => match c.content(&path).await {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(_) => {
                return Err(Mistake(77, format!("(77) error setting certificate verify locations:  CAfile: {path}")));
            }
        },
        None => None,
    };
    let number = |name: &str| {
        options
            .number::<u32>(name)
            .map_err(|_| Mistake(2, format!("option --{name}: expected a proper numerical parameter")))
    };
    let as_query = options.has("G");
    Ok(Settings {
        silent: options.has("s"),
        show_error: options.has("S"),
        verbose: options.has("v"),
        include: options.has("i"),
        head: options.has("I"),
        method,
        headers,
        content_type: if as_query { None } else { content_type },
        body,
        follow: options.has("L"),
        max_redirects: number("max-redirs")?.unwrap_or(50) as usize,
        fail: options.has("f"),
        fail_with_body: options.has("fail-with-body"),
        max_time: seconds("m")?,
        connect_timeout: seconds("connect-timeout")?,
        retries: number("retry")?.unwrap_or(0),
        retry_delay: seconds("retry-delay")?,
        retry_refused: options.has("retry-connrefused"),
        retry_all: options.has("retry-all-errors"),
        user: options.value("u").map(str::to_owned),
        agent: options.value("A").map_or_else(|| format!("curl/{VERSION}"), str::to_owned),
        resolve,
        connect_to,
        family: match (options.has("4"), options.has("6")) {
            (_, true) => Some(Family::V6),
            (true, false) => Some(Family::V4),
            (false, false) => None,
        },
        insecure: options.has("k"),
        authorities,
        write_out: match options.value("w") {
            Some(file) if file.starts_with('@') => {
                let bytes = c.content(&file[1..]).await.unwrap_or_default();
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            other => other.map(str::to_owned),
        },
        no_meter: options.has("no-progress-meter") || options.has("s") || options.has("v") || options.has("N"),
        head_to: options.value("D").map(str::to_owned),
    }
    .with_query(as_query))
}

impl Settings {
    /// `-G`: the data become the query.
    fn with_query(mut self, as_query: bool) -> Settings {
        if as_query {
            self.method.get_or_insert(Method::GET);
        }
        self
    }

    fn is_query(&self) -> bool {
        self.body.is_some() && self.content_type.is_none() && self.method == Some(Method::GET)
    }
}

/// The bytes of `-d`: `@file` is a file's content.
async fn data(c: &mut Container, value: &str) -> Result<Vec<u8>, Mistake> {
    match value.strip_prefix('@') {
        Some(path) => match c.content(path).await {
            Ok(bytes) => Ok(bytes),
            Err(_) => Err(Mistake(26, format!("option -d: error encountered when reading a file '{path}'"))),
        },
        None => Ok(value.as_bytes().to_vec()),
    }
}

const USAGE: &str = "Usage: curl [options...] <url>
 -d, --data <data>           HTTP POST data
 -f, --fail                  Fail fast with no output on HTTP errors
 -h, --help <subject>        Get help for commands
 -o, --output <file>         Write to file instead of stdout
 -O, --remote-name           Write output to file named as remote file
 -i, --show-headers          Show response headers in output
 -s, --silent                Silent mode
 -T, --upload-file <file>    Transfer local FILE to destination
 -u, --user <user:password>  Server user and password
 -A, --user-agent <name>     Send User-Agent <name> to server
 -v, --verbose               Make the operation more talkative
 -V, --version               Show version number and quit
";

/// TLS without a check of the certificate, as busybox's `wget` does it.
pub(super) async fn secure(stream: netstack::TcpStream, host: &str) -> Result<impl super::http::Stream, (i32, String)> {
    tls::connect(stream, host, None, true).await
}
