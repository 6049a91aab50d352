//! `wget` as busybox has it: one file, few options, terse messages.

use super::Tool;
use super::http as web;
use super::options::{Options, Order, duration};
use super::resolver::Resolver;
use super::stdio::{Outcome, reason};
use crate::program::Container;
use base64::Engine;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

pub(super) const TOOLS: &[Tool] = &[Tool::new("wget", |c| Box::pin(wget(c)))];

/// busybox gives up after this long without data.
const TIMEOUT: Duration = Duration::from_secs(900);
const REDIRECTS: usize = 5;

const OPTIONS: &str = "q|quiet O:|output-document: T:|timeout: S|server-response c|continue P:|directory-prefix: U:|user-agent: \
    |spider |header: |post-data: |post-file: |no-check-certificate t:|tries: Y: n: |max-redirect: 4|inet4-only 6|inet6-only \
    |no-verbose v d |connect-timeout: |read-timeout:";

async fn wget(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], OPTIONS, Order::Permuted) {
        Ok(options) => options,
        Err(message) => {
            c.complain(format!("wget: {message}")).await;
            c.complain("Usage: wget [-cqS] [--spider] [-O FILE] [-T SEC] [--header STR] [--post-data STR] URL...")
                .await;
            return Ok(1);
        }
    };
    if options.operands.is_empty() {
        c.complain(
            "BusyBox wget\n\nUsage: wget [-cqS] [--spider] [-O FILE] [-T SEC] [--header STR] [--post-data STR] URL...",
        )
        .await;
        return Ok(1);
    }
    let limit = options.value("T").or(options.value("connect-timeout")).and_then(duration).unwrap_or(TIMEOUT);
    for url in options.operands.clone() {
        match fetch(c, &options, &url, limit).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(error),
            Err(error) => {
                c.complain(format!("wget: {error}")).await;
                return Ok(1);
            }
        }
    }
    Ok(0)
}

/// Waits no longer than `-T` for each step.
async fn within<T>(limit: Duration, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, step).await.unwrap_or_else(|_| Err(io::Error::other("download timed out")))
}

async fn fetch(c: &mut Container, options: &Options, url: &str, limit: Duration) -> io::Result<()> {
    let quiet = options.has("q");
    let mut url = url.to_owned();
    for _ in 0..=REDIRECTS {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", &url));
        if scheme != "http" && scheme != "https" {
            return Err(io::Error::other(format!("not an http or ftp url: {url}")));
        }
        let secure = scheme == "https";
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let default = if secure { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().map_err(|_| io::Error::other(format!("bad port spec '{authority}'")))?;
                (host, port)
            }
            _ => (authority, default),
        };
        let bad = || io::Error::other(format!("bad address '{host}'"));
        let addresses =
            within(limit, async { Resolver::new(&c.host, &c.files).addresses(host).await.map_err(|_| bad()) }).await?;
        let remote = SocketAddr::new(*addresses.first().ok_or_else(bad)?, port);
        if !quiet {
            c.complain(format!("Connecting to {authority} ({remote})")).await;
        }
        let stream = within(limit, async {
            web::connect(&c.host, &addresses, port).await.map_err(|error| {
                let why = reason(&error);
                io::Error::other(format!("can't connect to remote host ({}): {why}", remote.ip()))
            })
        })
        .await?;
        let stream: Box<dyn web::Stream> = if secure {
            let shaken = super::curl::secure(stream, host).await.map_err(|(_, message)| io::Error::other(message));
            Box::new(shaken?)
        } else {
            Box::new(stream)
        };
        let body = match (options.value("post-data"), options.value("post-file").map(str::to_owned)) {
            (Some(text), _) => Some(text.as_bytes().to_vec()),
            (None, Some(path)) => Some(c.content(&path).await?),
            (None, None) => None,
        };
        let method = match (&body, options.has("spider")) {
            (Some(_), _) => "POST",
            (None, true) => "HEAD",
            (None, false) => "GET",
        };
        let path = match path {
            "" => "/".to_owned(),
            path if path.starts_with('?') => format!("/{path}"),
            path => path.to_owned(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path.split('#').next().unwrap_or("/"))
            .header(header::HOST, authority)
            .header(header::USER_AGENT, options.value("U").unwrap_or("Wget"))
            .header(header::CONNECTION, "close");
        if let Some(user) = user {
            let credentials = base64::prelude::BASE64_STANDARD.encode(user);
            request = request.header(header::AUTHORIZATION, format!("Basic {credentials}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let mut request = request.body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(io::Error::other)?;
        for line in options.values("header") {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let parsed =
                HeaderName::from_bytes(name.trim().as_bytes()).ok().zip(HeaderValue::from_str(value.trim()).ok());
            if let Some((name, value)) = parsed {
                request.headers_mut().insert(name, value);
            }
        }
        let exchange = within(limit, async {
            web::send(stream, request).await.map_err(|_| io::Error::other("error getting response"))
        })
        .await?;
        let status = exchange.response.status();
        if options.has("S") {
            let lines: String =
                web::header_lines(exchange.response.headers()).iter().map(|line| format!("\n  {line}")).collect();
            c.complain(format!("  {}{lines}", web::status_line(&exchange.response))).await;
        }
        if status.is_redirection()
            && let Some(location) = exchange.response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok())
        {
            url = if location.contains("://") {
                location.to_owned()
            } else {
                format!("{scheme}://{authority}{location}")
            };
            continue;
        }
        if !status.is_success() {
            let line = web::status_line(&exchange.response);
            return Err(io::Error::other(format!("server returned error: {line}")));
        }
        if options.has("spider") {
            if !quiet {
                c.complain("remote file exists").await;
            }
            return Ok(());
        }
        return save(c, options, &path, exchange, limit).await;
    }
    Err(io::Error::other("too many redirections"))
}

async fn save(
    c: &mut Container,
    options: &Options,
    path: &str,
    exchange: web::Exchange,
    limit: Duration,
) -> io::Result<()> {
    let named = path.split(['?', '#']).next().unwrap_or_default().rsplit('/').next().filter(|name| !name.is_empty());
    let named = named.unwrap_or("index.html");
    let target = match (options.value("O"), options.value("P")) {
        (Some(target), _) => target.to_owned(),
        (None, Some(directory)) => format!("{}/{named}", directory.trim_end_matches('/')),
        (None, None) => named.to_owned(),
    };
    let quiet = options.has("q");
    if options.value("O").is_none() && c.files.kind(&c.path(&target)).is_some() {
        return Err(io::Error::other(format!("can't open '{target}': File exists")));
    }
    let mut output = match target.as_str() {
        "-" | "/dev/stdout" => None,
        target => Some(
            c.create(target, false)
                .map_err(|error| io::Error::other(format!("can't open '{target}': {}", reason(&error))))?,
        ),
    };
    if !quiet && output.is_some() {
        c.complain(format!("saving to '{target}'")).await;
    }
    let web::Exchange { response, connection } = exchange;
    let mut body = response.into_body();
    let mut received = 0;
    loop {
        let frame = within(limit, async { body.frame().await.transpose().map_err(io::Error::other) }).await?;
        let Some(frame) = frame else { break };
        let Some(bytes) = frame.data_ref() else { continue };
        received += bytes.len();
        match &mut output {
            Some(output) => output.write_all(bytes).await?,
            None => c.print(bytes).await?,
        }
    }
    drop(connection);
    if let Some(output) = &mut output {
        output.flush().await?;
    }
    if !quiet {
        let shown = if target == "-" { "-" } else { named };
        c.complain(format!("{shown:<20} 100% |********************************| {received:>5}  0:00:00 ETA")).await;
        if output.is_some() {
            c.complain(format!("'{target}' saved")).await;
        } else {
            c.complain("written to stdout").await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::programs::harness::{Machine, network, serving};

    #[tokio::test(start_paused = true)]
    async fn wget_fetches_and_fails_as_busybox_does() {
        let network = network();
        let server = Machine::at(&network, "10.0.0.2");
        let client = Machine::at(&network, "10.0.0.1");
        let _silent =
            network.attach_raw(&["10.0.0.9".parse().expect("an address")], netstack::PortTag(9)).expect("attached");
        let _running = serving(&server, &["agnhost", "netexec"]);
        let ran = client.run(&["wget", "-qO-", "http://10.0.0.2:8080/hostname"], "").await;
        assert_eq!((ran.stdout.as_str(), ran.status), ("web-0", 0), "{}", ran.stderr);
        let ran = client.run(&["wget", "10.0.0.2:8080/hostname"], "").await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        assert!(ran.stderr.starts_with("Connecting to 10.0.0.2:8080 (10.0.0.2:8080)\nsaving to 'hostname'\n"));
        assert_eq!(client.files.read("/hostname").expect("saved"), "web-0");
        for (args, message) in [
            (&["-T", "1", "10.0.0.9"][..], "wget: download timed out\n"),
            (&["10.0.0.2:81"][..], "wget: can't connect to remote host (10.0.0.2): Connection refused\n"),
            (&["nowhere"][..], "wget: bad address 'nowhere'\n"),
            (&["10.0.0.2:8080/nothing"][..], "wget: server returned error: HTTP/1.1 404 Not Found\n"),
        ] {
            let command: Vec<&str> = ["wget", "-q", "-O-"].iter().chain(args).copied().collect();
            let ran = client.run(&command, "").await;
            assert_eq!((ran.stderr.as_str(), ran.status), (message, 1), "{args:?}");
        }
    }
}
