//! One transfer of curl: name, connection, request, response, redirects.

use super::url::{Target, resolved};
use super::{Family, Settings, report, tls};
use crate::program::Container;
use crate::programs::http::{self as client, Exchange, Stream};
use crate::programs::resolver::Resolver;
use crate::programs::stdio::reason;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

/// curl's own limit for connecting.
const CONNECT: Duration = Duration::from_secs(300);

/// Why a transfer failed.
pub(super) enum Failure {
    /// curl's status and message.
    Curl(i32, String),
    /// The output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

/// When the phases of a transfer were done, since its start.
#[derive(Clone, Copy, Default)]
pub(super) struct Times {
    pub(super) name: Duration,
    pub(super) connected: Duration,
    pub(super) secured: Duration,
    pub(super) first_byte: Duration,
    pub(super) redirects: Duration,
    pub(super) total: Duration,
}

/// A transfer and what `-w` can say of it.
pub(super) struct Transfer<'s> {
    settings: &'s Settings,
    pub(super) url: String,
    pub(super) effective: String,
    pub(super) output: Option<String>,
    begun: Instant,
    pub(super) times: Times,
    /// The response's status; 0: there was none.
    pub(super) code: u16,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) header_bytes: usize,
    pub(super) content_type: String,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    pub(super) redirects: usize,
    pub(super) redirect_url: String,
    pub(super) method: Method,
    pub(super) version: &'static str,
    pub(super) connects: usize,
    /// The body's announced length, for messages.
    expected: Option<u64>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resolving,
    Connecting,
    Transferring,
}

impl<'s> Transfer<'s> {
    pub(super) fn new(settings: &'s Settings, url: &str, output: Option<String>) -> Self {
        Transfer {
            settings,
            url: url.to_owned(),
            effective: url.to_owned(),
            output,
            begun: Instant::now(),
            times: Times::default(),
            code: 0,
            received: 0,
            sent: 0,
            header_bytes: 0,
            content_type: String::new(),
            local: None,
            remote: None,
            redirects: 0,
            redirect_url: String::new(),
            method: Method::GET,
            version: "0",
            connects: 0,
            expected: None,
            phase: Phase::Resolving,
        }
    }

    /// Runs the transfer within `--max-time`.
    pub(super) async fn run(&mut self, c: &mut Container) -> Result<(), Failure> {
        let result = match self.settings.max_time {
            Some(limit) => match tokio::time::timeout(limit, self.follow(c)).await {
                Ok(result) => result,
                Err(_) => Err(Failure::Curl(28, self.timed_out())),
            },
            None => self.follow(c).await,
        };
        self.times.total = self.begun.elapsed();
        if self.settings.verbose {
            match &result {
                Ok(()) => {
                    let host = Target::parse(&self.effective).map(|target| target.host).unwrap_or_default();
                    c.complain(format!("* Connection #0 to host {host} left intact")).await;
                }
                Err(Failure::Curl(_, message)) => {
                    c.complain(format!("* {message}\n* closing connection #0")).await;
                }
                Err(Failure::Output(_)) => {}
            }
        }
        result
    }

    fn timed_out(&self) -> String {
        let millis = self.begun.elapsed().as_millis();
        match self.phase {
            Phase::Resolving => format!("Resolving timed out after {millis} milliseconds"),
            Phase::Connecting => format!("Connection timed out after {millis} milliseconds"),
            Phase::Transferring => {
                let received = self.received;
                match self.expected {
                    Some(expected) => {
                        format!(
                            "Operation timed out after {millis} milliseconds with {received} out of {expected} bytes received"
                        )
                    }
                    None => format!("Operation timed out after {millis} milliseconds with {received} bytes received"),
                }
            }
        }
    }

    /// Requests the URL, and where redirects lead.
    async fn follow(&mut self, c: &mut Container) -> Result<(), Failure> {
        let with_body = self.settings.body.is_some() && !self.settings.is_query();
        let mut method = match &self.settings.method {
            Some(method) => method.clone(),
            None if self.settings.head => Method::HEAD,
            None if with_body => Method::POST,
            None => Method::GET,
        };
        let mut url = self.url.clone();
        if self.settings.is_query()
            && let Some(body) = &self.settings.body
        {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&String::from_utf8_lossy(body));
        }
        loop {
            let mut target = Target::parse(&url)?;
            self.effective = format!("{}://{}{}", target.scheme, target.authority(), target.path);
            self.method = method.clone();
            let body = if with_body && method != Method::GET && method != Method::HEAD {
                self.settings.body.clone()
            } else {
                None
            };
            // `--connect-to` changes where to connect, not what to ask for.
            let asked_for = target.authority();
            self.divert(&mut target);
            let exchange = self.request(c, &target, &asked_for, method.clone(), body).await?;
            let location = exchange.response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let location = match (exchange.response.status().as_u16(), location) {
                (300..=399, Some(location)) => Some(resolved(&self.effective, location)),
                _ => None,
            };
            let Some(location) = location else {
                return self.receive(c, exchange, false).await;
            };
            if !self.settings.follow {
                self.redirect_url = location;
                return self.receive(c, exchange, false).await;
            }
            if self.redirects >= self.settings.max_redirects {
                let most = self.settings.max_redirects;
                return Err(Failure::Curl(47, format!("Maximum ({most}) redirects followed")));
            }
            self.redirects += 1;
            if matches!(self.code, 301..=303) && method == Method::POST && self.settings.method.is_none() {
                method = Method::GET;
            }
            self.receive(c, exchange, true).await?;
            if self.settings.verbose {
                c.complain(format!("* Issue another request to this URL: '{location}'")).await;
            }
            self.times.redirects = self.begun.elapsed();
            url = location;
        }
    }

    fn divert(&self, target: &mut Target) {
        for (host, port, to_host, to_port) in &self.settings.connect_to {
            let fits =
                (host.is_empty() || *host == target.host) && (port.is_empty() || *port == target.port.to_string());
            if fits {
                if !to_host.is_empty() {
                    target.host.clone_from(to_host);
                }
                if let Ok(port) = to_port.parse() {
                    target.port = port;
                }
                return;
            }
        }
    }

    async fn addresses(&mut self, c: &Container, target: &Target) -> Result<Vec<IpAddr>, Failure> {
        self.phase = Phase::Resolving;
        let host = target.host.trim_matches(['[', ']']);
        let given = self.settings.resolve.iter().find(|(name, port, _)| {
            (name == "*" || name.eq_ignore_ascii_case(host)) && (*port == 0 || *port == target.port)
        });
        let mut addresses = match given {
            Some((_, _, addresses)) => addresses.clone(),
            None => {
                let unresolved = || Failure::Curl(6, format!("Could not resolve host: {host}"));
                Resolver::new(&c.host, &c.files).addresses(host).await.map_err(|_| unresolved())?
            }
        };
        addresses.retain(|address| match self.settings.family {
            Some(Family::V4) => address.is_ipv4(),
            Some(Family::V6) => address.is_ipv6(),
            None => true,
        });
        if addresses.is_empty() {
            return Err(Failure::Curl(6, format!("Could not resolve host: {host}")));
        }
        self.times.name = self.begun.elapsed();
        Ok(addresses)
    }

    async fn connect(&mut self, c: &mut Container, target: &Target) -> Result<Box<dyn Stream>, Failure> {
        let limit = self.settings.connect_timeout.unwrap_or(CONNECT);
        let connecting = async {
            let addresses = self.addresses(c, target).await?;
            self.phase = Phase::Connecting;
            let begun = Instant::now();
            let mut failure = io::Error::from(io::ErrorKind::NotFound);
            for address in addresses {
                let remote = SocketAddr::new(address, target.port);
                if self.settings.verbose {
                    c.complain(format!("*   Trying {remote}...")).await;
                }
                match c.host.tcp_connect(remote).await {
                    Ok(stream) => {
                        self.local = Some(stream.local_addr());
                        self.remote = Some(remote);
                        self.connects += 1;
                        return Ok(stream);
                    }
                    Err(error) => {
                        if self.settings.verbose {
                            let why = reason(&error);
                            c.complain(format!("* connect to {address} port {} failed: {why}", target.port)).await;
                        }
                        failure = error;
                    }
                }
            }
            let status = if failure.kind() == io::ErrorKind::TimedOut { 28 } else { 7 };
            let (host, port, millis) = (&target.host, target.port, begun.elapsed().as_millis());
            let host = host.trim_matches(['[', ']']);
            Err(Failure::Curl(
                status,
                format!("Failed to connect to {host} port {port} after {millis} ms: Couldn't connect to server"),
            ))
        };
        let stream = match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => connected?,
            Err(_) => return Err(Failure::Curl(28, self.timed_out())),
        };
        self.times.connected = self.begun.elapsed();
        if self.settings.verbose
            && let Some(remote) = self.remote
        {
            c.complain(format!("* Connected to {} ({}) port {}", target.host, remote.ip(), remote.port())).await;
        }
        if target.scheme == "http" {
            return Ok(Box::new(stream));
        }
        let stream =
            tls::connect(stream, &target.host, self.settings.authorities.as_deref(), self.settings.insecure).await;
        match stream {
            Ok(stream) => {
                self.times.secured = self.begun.elapsed();
                Ok(Box::new(stream))
            }
            Err((status, message)) => Err(Failure::Curl(status, message)),
        }
    }

    /// Sends one request and waits for the head of its response.
    async fn request(
        &mut self,
        c: &mut Container,
        target: &Target,
        authority: &str,
        method: Method,
        body: Option<Vec<u8>>,
    ) -> Result<Exchange, Failure> {
        let stream = self.connect(c, target).await?;
        self.phase = Phase::Transferring;
        let path: Uri = target
            .path
            .parse()
            .map_err(|_| Failure::Curl(3, "URL rejected: Malformed input to a URL function".to_owned()))?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = method;
        *request.uri_mut() = path;
        let headers = request.headers_mut();
        let set = |headers: &mut http::HeaderMap, name: header::HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(headers, header::HOST, authority);
        if let Some(user) = self.settings.user.as_ref().or(target.user.as_ref()) {
            let user = if user.contains(':') { user.clone() } else { format!("{user}:") };
            set(headers, header::AUTHORIZATION, &format!("Basic {}", BASE64_STANDARD.encode(user)));
        }
        set(headers, header::USER_AGENT, &self.settings.agent);
        set(headers, header::ACCEPT, "*/*");
        if let Some(body) = body {
            if let Some(content_type) = self.settings.content_type {
                set(headers, header::CONTENT_TYPE, content_type);
            }
            set(headers, header::CONTENT_LENGTH, &body.len().to_string());
            self.sent = body.len() as u64;
            *request.body_mut() = Full::new(Bytes::from(body));
        }
        let mut replaced = Vec::new();
        for (name, value) in &self.settings.headers {
            let headers = request.headers_mut();
            if !replaced.contains(name) {
                headers.remove(name);
                replaced.push(name.clone());
            }
            if !value.is_empty() {
                headers.append(name.clone(), value.clone());
            }
        }
        if self.settings.verbose {
            let mut text = format!("> {} {} HTTP/1.1\n", request.method(), request.uri());
            for line in client::header_lines(request.headers()) {
                text.push_str(&format!("> {line}\n"));
            }
            c.complain(format!("{text}> \n* Request completely sent off")).await;
        }
        let exchange = match client::send(stream, request).await {
            Ok(exchange) => exchange,
            Err(error) => return Err(failure_of(&error)),
        };
        self.times.first_byte = self.begun.elapsed();
        let response = &exchange.response;
        self.code = response.status().as_u16();
        self.version = if response.version() == http::Version::HTTP_10 { "1" } else { "1.1" };
        self.content_type = response
            .headers()
            .get(header::CONTENT_TYPE)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .unwrap_or_default();
        Ok(exchange)
    }

    /// Writes head and body where they are wanted.
    async fn receive(&mut self, c: &mut Container, exchange: Exchange, discard: bool) -> Result<(), Failure> {
        let status_line = client::status_line(&exchange.response);
        let lines = client::header_lines(exchange.response.headers());
        let head: String = std::iter::once(&status_line).chain(&lines).map(|line| format!("{line}\r\n")).collect();
        let head = head + "\r\n";
        self.header_bytes += head.len();
        if self.settings.verbose {
            let text: String = std::iter::once(&status_line).chain(&lines).map(|line| format!("< {line}\n")).collect();
            c.complain(format!("{text}< ")).await;
        }
        if let Some(path) = self.settings.head_to.clone() {
            if path == "-" {
                c.print(&head).await?;
            } else {
                let path = c.path(&path);
                c.files.append(&path, head.as_bytes())?;
            }
        }
        let failed = self.code >= 400 && (self.settings.fail || self.settings.fail_with_body);
        let silent_failure = failed && !self.settings.fail_with_body;
        let mut output = match (&self.output, discard || silent_failure) {
            (_, true) | (None, _) => None,
            (Some(path), false) => match path.as_str() {
                "-" => None,
                path => Some(c.create(path, false)?),
            },
        };
        if (self.settings.include || self.settings.head) && !silent_failure {
            match &mut output {
                Some(output) => output.write_all(head.as_bytes()).await?,
                None => c.print(&head).await?,
            }
        }
        self.expected = exchange
            .response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .filter(|_| self.method != Method::HEAD);
        let Exchange { response, connection } = exchange;
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(_) => {
                    let left = self.expected.unwrap_or(0).saturating_sub(self.received);
                    let message = match self.expected {
                        Some(_) => format!("end of response with {left} bytes missing"),
                        None => "transfer closed with outstanding read data remaining".to_owned(),
                    };
                    return Err(Failure::Curl(18, message));
                }
            };
            let Some(bytes) = frame.data_ref() else { continue };
            self.received += bytes.len() as u64;
            if discard || silent_failure {
                continue;
            }
            match &mut output {
                Some(output) => output.write_all(bytes).await?,
                None => c.print(bytes).await?,
            }
        }
        drop(connection);
        if let Some(mut output) = output {
            output.flush().await?;
        }
        self.times.total = self.begun.elapsed();
        if !discard && !self.settings.no_meter && (self.output.is_some() || !c.tty) {
            let meter = report::meter(self);
            c.complain(meter).await;
        }
        if failed {
            return Err(Failure::Curl(22, format!("The requested URL returned error: {}", self.code)));
        }
        Ok(())
    }
}

/// What curl says when the exchange failed.
fn failure_of(error: &hyper::Error) -> Failure {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return Failure::Curl(52, "Empty reply from server".to_owned());
    }
    if error.is_parse() {
        return Failure::Curl(1, "Received HTTP/0.9 when not allowed".to_owned());
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::ConnectionReset => {
                    Failure::Curl(56, "Recv failure: Connection reset by peer".to_owned())
                }
                io::ErrorKind::TimedOut => Failure::Curl(56, "Recv failure: Operation timed out".to_owned()),
                io::ErrorKind::BrokenPipe => Failure::Curl(55, "Send failure: Broken pipe".to_owned()),
                _ => Failure::Curl(56, format!("Recv failure: {}", reason(error))),
            };
        }
        cause = inner.source();
    }
    Failure::Curl(52, "Empty reply from server".to_owned())
}
