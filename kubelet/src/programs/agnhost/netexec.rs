//! `agnhost netexec`: an HTTP and a UDP server that answer who and where they are, and dial and run commands on request.

use super::{Log, flags, go_duration, number};
use crate::program::Container;
use crate::programs::http::{self as web, Answer, answer, encoded, parameters, text};
use crate::programs::launch::Surroundings;
use crate::programs::resolver::Resolver;
use crate::programs::stdio::{Outcome, reason};
use crate::programs::{clock, launch};
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use netstack::UdpSocket;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long `/dial` waits for one answer.
const DIAL: Duration = Duration::from_secs(5);
/// Largest answer of a dialled server, and largest upload.
const BODY: usize = 16 << 20;
/// Most tries of one `/dial`.
const TRIES: usize = 1000;

struct Server {
    surroundings: Surroundings,
    log: Log,
    /// The status to exit with.
    exit: watch::Sender<Option<i32>>,
}

pub(super) async fn run(c: &mut Container) -> Outcome {
    let flags = flags(&c.args[2..]);
    let http_port: i32 = number(&flags, "http-port").unwrap_or(8080);
    let udp_port: i32 = number(&flags, "udp-port").unwrap_or(8081);
    let delay: u64 = number(&flags, "delay-shutdown").unwrap_or(0);
    let log = Log::of(c);
    let (exit, mut exited) = watch::channel(None);
    let server = Arc::new(Server { surroundings: Surroundings::of(c), log: log.clone(), exit });
    let listener = match u16::try_from(http_port) {
        Ok(port) => match c.host.tcp_listen(port) {
            Ok(listener) => Some(listener),
            Err(error) => {
                log.line(format!("listen tcp :{port}: bind: {}", reason(&error).to_lowercase())).await;
                return Ok(1);
            }
        },
        Err(_) => None,
    };
    let socket = match u16::try_from(udp_port) {
        Ok(port) => match c.host.udp_bind(port) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log.line(format!("listen udp :{port}: bind: {}", reason(&error).to_lowercase())).await;
                return Ok(1);
            }
        },
        Err(_) => None,
    };
    let over_http = async {
        match listener {
            Some(listener) => {
                log.line(format!("Started HTTP server on port {http_port}")).await;
                let server = server.clone();
                let handler: web::Handler = Arc::new(move |request, client| {
                    let server = server.clone();
                    Box::pin(async move { server.respond(request, client).await })
                });
                web::serve(listener, handler).await
            }
            None => std::future::pending().await,
        }
    };
    let over_udp = async {
        match socket {
            Some(socket) => {
                log.line(format!("Started UDP server on port  {udp_port}")).await;
                server.serve_udp(socket).await
            }
            None => std::future::pending().await,
        }
    };
    let mut signals = c.signals.clone();
    let terminated = async {
        match signals.wait_for(|signal| matches!(signal, 1 | 2 | 15)).await.map(|signal| *signal) {
            Ok(signal) if delay > 0 => {
                log.line(format!("Sleeping {delay} seconds before terminating...")).await;
                tokio::time::sleep(Duration::from_secs(delay)).await;
                let _ = signal;
                0
            }
            Ok(signal) => 128 + signal,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        error = over_http => Err(error),
        error = over_udp => Err(error),
        status = terminated => Ok(status),
        status = async { exited.wait_for(Option::is_some).await.map(|status| *status) } => Ok(status.ok().flatten().unwrap_or(0)),
    }
}

impl Server {
    async fn respond(&self, request: Request<Incoming>, client: SocketAddr) -> Answer {
        let path = request.uri().path().to_owned();
        self.log.line(format!("{} {path}", request.method())).await;
        let query = parameters(request.uri().query().unwrap_or_default());
        let value = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match path.as_str() {
            "/hostname" | "/hostName" => text(200, self.surroundings.hostname.clone()),
            "/clientip" => text(200, client.to_string()),
            "/healthz" | "/readyz" => text(200, ""),
            "/echo" => {
                let code = value("code").and_then(|code| code.parse().ok()).filter(|code| (200..600).contains(code));
                text(code.unwrap_or(200), value("msg").unwrap_or_default().to_owned())
            }
            "/header" => match value("key") {
                Some(key) => {
                    let value = request.headers().get(key).map(|value| value.as_bytes().to_vec());
                    text(200, value.unwrap_or_default())
                }
                None => {
                    let mut all = Map::new();
                    for (name, value) in request.headers() {
                        let value = Value::from(String::from_utf8_lossy(value.as_bytes()).into_owned());
                        match all.entry(web::canonical(name.as_str())).or_insert_with(|| json!([])) {
                            Value::Array(values) => values.push(value),
                            other => *other = value,
                        }
                    }
                    text(200, Value::Object(all).to_string())
                }
            },
            "/redirect" => {
                let code = value("code").and_then(|code| code.parse().ok()).filter(|code| (300..400).contains(code));
                let mut answer = text(code.unwrap_or(302), "");
                if let Some(location) = value("location").and_then(|location| HeaderValue::from_str(location).ok()) {
                    answer.headers_mut().insert(header::LOCATION, location);
                }
                answer
            }
            "/exit" => {
                let status = value("code").and_then(|code| code.parse().ok()).unwrap_or(0);
                if let Some(wait) = value("wait").and_then(go_duration) {
                    tokio::time::sleep(wait).await;
                }
                self.exit.send_replace(Some(status));
                text(200, "")
            }
            "/shutdown" => {
                self.exit.send_replace(Some(0));
                text(200, "")
            }
            "/shell" => {
                let form = match request.method() {
                    &http::Method::POST => body_of(request).await.unwrap_or_default(),
                    _ => Bytes::new(),
                };
                let form = parameters(&String::from_utf8_lossy(&form));
                let posted = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
                let command = value("shellCommand").or(value("cmd")).map(str::to_owned);
                let command = command.or_else(|| posted("shellCommand")).or_else(|| posted("cmd")).unwrap_or_default();
                self.shell(command).await
            }
            "/dial" => self.dial(&value).await,
            "/upload" => self.upload(request).await,
            "/" => text(200, format!("NOW: {}", clock::now())),
            _ => text(404, "404 page not found\n"),
        }
    }

    async fn shell(&self, command: String) -> Answer {
        let args = vec!["sh".to_owned(), "-c".to_owned(), command];
        let (status, output) = launch::capture(&self.surroundings, args).await;
        let mut result = Map::new();
        if !output.is_empty() {
            result.insert("output".to_owned(), Value::from(String::from_utf8_lossy(&output).into_owned()));
        }
        if status != 0 {
            result.insert("error".to_owned(), Value::from(format!("exit status {status}")));
        }
        text(200, Value::Object(result).to_string())
    }

    /// Asks another server `tries` times and tells what it said.
    async fn dial<'q>(&self, value: &(dyn Fn(&str) -> Option<&'q str> + Sync)) -> Answer {
        let (Some(host), Some(port)) = (value("host"), value("port")) else {
            return text(400, "host or port is missing");
        };
        let Ok(port) = port.parse::<u16>() else {
            return text(400, format!("invalid port {port:?}"));
        };
        let protocol = value("protocol").unwrap_or("http").to_ascii_lowercase();
        let request = value("request").unwrap_or("hostname").to_owned();
        let tries = value("tries").map_or(Ok(1), str::parse::<usize>);
        let tries = match tries {
            Ok(tries) if (1..=TRIES).contains(&tries) => tries,
            _ => return text(400, format!("tries must be between 1 and {TRIES}")),
        };
        if !matches!(protocol.as_str(), "http" | "udp") {
            return text(400, format!("unsupported protocol {protocol}"));
        }
        let (mut responses, mut errors) = (Vec::new(), Vec::new());
        let resolver = Resolver::new(&self.surroundings.host, &self.surroundings.files);
        match resolver.addresses(host).await {
            Err(error) => errors.push(format!("lookup {host}: {error}")),
            Ok(addresses) => {
                let to = SocketAddr::new(addresses[0], port);
                for _ in 0..tries {
                    let answered = async {
                        match protocol.as_str() {
                            "http" => self.dial_http(to, host, &request).await,
                            _ => self.dial_udp(to, &request).await,
                        }
                    };
                    match tokio::time::timeout(DIAL, answered).await {
                        Ok(Ok(response)) => responses.push(response),
                        Ok(Err(error)) => errors.push(error),
                        Err(_) => errors.push(format!("{protocol} {to}: i/o timeout")),
                    }
                }
            }
        }
        let mut result = Map::new();
        if !responses.is_empty() {
            result.insert("responses".to_owned(), Value::from(responses));
        }
        if !errors.is_empty() {
            result.insert("errors".to_owned(), Value::from(errors));
        }
        text(200, Value::Object(result).to_string())
    }

    async fn dial_http(&self, to: SocketAddr, host: &str, path: &str) -> Result<String, String> {
        let failed = |error: &dyn std::fmt::Display| format!("Get \"http://{to}/{path}\": {error}");
        let stream = self.surroundings.host.tcp_connect(to).await.map_err(|error| {
            let why = reason(&error).to_lowercase();
            format!("Get \"http://{to}/{path}\": dial tcp {to}: connect: {why}")
        })?;
        let escaped: String = path
            .split_inclusive(['/', '?', '=', '&'])
            .map(|part| match part.char_indices().last() {
                Some((at, end)) if "/?=&".contains(end) => format!("{}{end}", encoded(&part[..at])),
                _ => encoded(part),
            })
            .collect();
        let request = Request::get(format!("/{escaped}"))
            .header(header::HOST, format!("{host}:{}", to.port()))
            .header(header::USER_AGENT, "Go-http-client/1.1")
            .body(Full::new(Bytes::new()))
            .map_err(|error| failed(&error))?;
        let exchange = web::send(Box::new(stream), request).await.map_err(|error| failed(&error))?;
        let body = Limited::new(exchange.response.into_body(), BODY).collect().await;
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn dial_udp(&self, to: SocketAddr, request: &str) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("udp {to}: {}", reason(&error).to_lowercase());
        let socket = self.surroundings.host.udp_bind(0).map_err(failed)?;
        socket.send_to(request.as_bytes(), to).await.map_err(failed)?;
        let mut buffer = vec![0; 65_535];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.map_err(failed)?;
            if from == to {
                return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        }
    }

    /// Saves the body under `/uploads`. A multipart form is stored as it comes.
    async fn upload(&self, request: Request<Incoming>) -> Answer {
        let Some(body) = body_of(request).await else {
            return answer(400, "application/json", json!({"error": "cannot read the upload"}).to_string());
        };
        let path = format!("/uploads/upload-{:08x}", crate::programs::stdio::seed(&body) as u32);
        match self.surroundings.files.write(&path, body) {
            Ok(()) => answer(201, "application/json", json!({"output": path}).to_string()),
            Err(error) => answer(500, "application/json", json!({"error": reason(&error)}).to_string()),
        }
    }

    async fn serve_udp(&self, socket: UdpSocket) -> std::io::Error {
        let mut buffer = vec![0; 65_535];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // A client that has gone is no reason to stop.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return error,
            };
            let command = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.log.line(format!("Received UDP datagram {:?} from {client}", command.trim_end())).await;
            let (name, rest) =
                command.trim_end_matches(['\n', '\r']).split_once(' ').unwrap_or((command.trim_end(), ""));
            let reply = match name.to_ascii_lowercase().as_str() {
                "hostname" => self.surroundings.hostname.clone(),
                "clientip" => client.to_string(),
                "echo" => rest.to_owned(),
                _ => {
                    self.log.line(format!("Unknown udp command: {name}")).await;
                    continue;
                }
            };
            let _ = socket.send_to(reply.as_bytes(), client).await;
        }
    }
}

async fn body_of(request: Request<Incoming>) -> Option<Bytes> {
    Limited::new(request.into_body(), BODY).collect().await.ok().map(|body| body.to_bytes())
}
