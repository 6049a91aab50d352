//! Small servers that tutorials deploy: busybox `httpd`, `hashicorp/http-echo`, `traefik/whoami`, Google's `hello-app`.

use super::Tool;
use super::http::{Answer, Handler, answer, header_lines, parameters, serve, text};
use super::options::{Options, Order};
use super::stdio::{Outcome, SharedOutput};
use super::system::refuse;
use crate::files::{Kind, resolve};
use crate::program::Container;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

pub(super) const TOOLS: &[Tool] = &[
    Tool::new("hello-app", |c| Box::pin(hello_app(c))),
    Tool::new("http-echo", |c| Box::pin(http_echo(c))),
    Tool::new("httpd", |c| Box::pin(httpd(c))),
    Tool::new("whoami-server", |c| Box::pin(whoami(c))),
];

/// Largest answer of `/data`.
const DATA: usize = 16 << 20;

/// The port in `80`, `:80` or `0.0.0.0:80`.
fn port_of(text: &str) -> Option<u16> {
    text.rsplit(':').next()?.parse().ok()
}

/// Shares standard output with the connections that log to it.
fn log_of(c: &mut Container) -> SharedOutput {
    let log = SharedOutput::new(std::mem::replace(&mut c.stdout, Box::new(tokio::io::sink())));
    c.stdout = Box::new(log.clone());
    log
}

async fn httpd(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "f p: h: v i u: c: r: e: d: m:", Order::Permuted) {
        Ok(options) => options,
        Err(message) => return refuse(c, message, 1).await,
    };
    if !options.has("f") {
        return refuse(c, "there is no background to go to: use -f", 1).await;
    }
    let port = match options.value("p").map(port_of) {
        None => 80,
        Some(Some(port)) => port,
        Some(None) => return refuse(c, "invalid port", 1).await,
    };
    let root = c.path(options.value("h").unwrap_or("."));
    let listener = c.host.tcp_listen(port)?;
    let files = c.files.clone();
    let handler: Handler = Arc::new(move |request, _| {
        let path = resolve("/", request.uri().path());
        let mut path = format!("{}{path}", root.trim_end_matches('/'));
        if files.kind(&path) == Some(Kind::Directory) {
            path = format!("{}/index.html", path.trim_end_matches('/'));
        }
        let kind = match path.rsplit('.').next() {
            Some("html" | "htm") => "text/html",
            Some("json") => "application/json",
            Some("css") => "text/css",
            Some("js") => "text/javascript",
            Some("txt") => "text/plain",
            _ => "application/octet-stream",
        };
        let response = match files.read(&path) {
            Ok(bytes) => answer(200, kind, bytes),
            Err(_) => answer(
                404,
                "text/html",
                "<HTML><HEAD><TITLE>404 Not Found</TITLE></HEAD>\n<BODY><H1>404 Not Found</H1>\nThe requested URL was not found\n</BODY></HTML>\n",
            ),
        };
        Box::pin(async move { response })
    });
    Err(serve(listener, handler).await)
}

/// A flag as Go reads it: `-text=x`, `--text x`.
fn flag<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    args.iter().enumerate().find_map(|(at, arg)| {
        let flag = arg.strip_prefix("--").or(arg.strip_prefix('-'))?;
        match flag.split_once('=') {
            Some((found, value)) => (found == name).then_some(value),
            None => (flag == name).then(|| args.get(at + 1).map(String::as_str)).flatten(),
        }
    })
}

async fn http_echo(c: &mut Container) -> Outcome {
    let args = c.args.clone();
    let message = flag(&args, "text").or(c.variable("ECHO_TEXT")).map(str::to_owned);
    let Some(message) = message else {
        c.complain("Missing -text option!").await;
        return Ok(127);
    };
    let Some(port) = port_of(flag(&args, "listen").unwrap_or(":5678")) else {
        return refuse(c, "invalid -listen address", 127).await;
    };
    let listener = c.host.tcp_listen(port)?;
    let log = log_of(c);
    let _ = log.clone().write_all(format!("[INFO] server is listening on :{port}\n").as_bytes()).await;
    let handler: Handler = Arc::new(move |request, client| {
        let (message, log) = (message.clone(), log.clone());
        Box::pin(async move {
            let mut answer = match request.uri().path() {
                "/health" => answer(200, "application/json; charset=utf-8", "{\"status\":\"ok\"}\n"),
                _ => text(200, format!("{message}\n")),
            };
            let line = format!("{client} \"{} {}\" 200\n", request.method(), request.uri());
            let _ = log.clone().write_all(line.as_bytes()).await;
            answer.headers_mut().insert("X-App-Name", HeaderValue::from_static("http-echo"));
            answer
        })
    });
    Err(serve(listener, handler).await)
}

async fn hello_app(c: &mut Container) -> Outcome {
    let port = c.variable("PORT").and_then(|port| port.parse().ok()).unwrap_or(8080);
    let listener = c.host.tcp_listen(port)?;
    let hostname = c.hostname.clone();
    let handler: Handler = Arc::new(move |_, _| {
        let page = format!("Hello, world!\nVersion: 1.0.0\nHostname: {hostname}\n");
        Box::pin(async move { text(200, page) })
    });
    Err(serve(listener, handler).await)
}

struct Whoami {
    hostname: String,
    name: String,
    addresses: Vec<String>,
}

async fn whoami(c: &mut Container) -> Outcome {
    let args = c.args.clone();
    let port = flag(&args, "port").or(c.variable("WHOAMI_PORT_NUMBER")).and_then(port_of).unwrap_or(80);
    let name = flag(&args, "name").or(c.variable("WHOAMI_NAME")).unwrap_or_default().to_owned();
    let own = c.host.addresses().into_iter().map(|address| address.to_string());
    let addresses = ["127.0.0.1".to_owned(), "::1".to_owned()].into_iter().chain(own).collect();
    let listener = c.host.tcp_listen(port)?;
    c.complain(format!("Starting up on port {port}")).await;
    let whoami = Arc::new(Whoami { hostname: c.hostname.clone(), name, addresses });
    let handler: Handler = Arc::new(move |request, client| {
        let whoami = whoami.clone();
        Box::pin(async move { whoami.answer(&request, client) })
    });
    Err(serve(listener, handler).await)
}

impl Whoami {
    fn answer(&self, request: &Request<Incoming>, client: SocketAddr) -> Answer {
        let query = parameters(request.uri().query().unwrap_or_default());
        let headers = header_lines(request.headers());
        match request.uri().path() {
            "/health" => text(200, ""),
            "/data" => {
                let size =
                    query.iter().find(|(name, _)| name == "size").and_then(|(_, size)| size.parse::<usize>().ok());
                text(200, vec![b'-'; size.unwrap_or(1).min(DATA)])
            }
            "/api" => {
                let headers: serde_json::Map<String, serde_json::Value> = headers
                    .iter()
                    .filter_map(|line| line.split_once(": "))
                    .map(|(name, value)| (name.to_owned(), json!([value])))
                    .collect();
                let body = json!({
                    "hostname": self.hostname,
                    "ip": self.addresses,
                    "headers": headers,
                    "url": request.uri().to_string(),
                    "host": request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or_default(),
                    "method": request.method().as_str(),
                    "name": self.name,
                    "remoteAddr": client.to_string(),
                });
                answer(200, "application/json", body.to_string())
            }
            _ => {
                let mut page = String::new();
                if !self.name.is_empty() {
                    page.push_str(&format!("Name: {}\n", self.name));
                }
                page.push_str(&format!("Hostname: {}\n", self.hostname));
                self.addresses.iter().for_each(|address| page.push_str(&format!("IP: {address}\n")));
                let (method, uri, version) = (request.method(), request.uri(), request.version());
                page.push_str(&format!("RemoteAddr: {client}\n{method} {uri} {version:?}\n"));
                headers.iter().for_each(|line| page.push_str(&format!("{line}\n")));
                text(200, page + "\n")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::programs::harness::{Machine, network, serving};

    #[tokio::test(start_paused = true)]
    async fn the_servers_of_tutorials_answer_as_expected() {
        let network = network();
        let server = Machine::at(&network, "10.0.0.2");
        let client = Machine::at(&network, "10.0.0.1");
        server.files.write("/www/index.html", "home").expect("room");
        let _all = [
            serving(&server, &["http-echo", "-text=hello", "-listen=:5678"]),
            serving(&server, &["whoami-server", "--port", "81"]),
            serving(&server, &["hello-app"]),
            serving(&server, &["httpd", "-f", "-p", "8000", "-h", "/www"]),
        ];
        let get = async |at: &str| client.run(&["curl", "-s", &format!("10.0.0.2:{at}")], "").await.stdout;
        assert_eq!(get("5678").await, "hello\n");
        let page = get("81/path").await;
        assert!(
            page.starts_with("Hostname: web-0\nIP: 127.0.0.1\nIP: ::1\nIP: 10.0.0.2\nRemoteAddr: 10.0.0.1:"),
            "{page}"
        );
        assert!(page.contains("\nGET /path HTTP/1.1\nHost: 10.0.0.2:81\n"), "{page}");
        assert_eq!(get("8080").await, "Hello, world!\nVersion: 1.0.0\nHostname: web-0\n");
        assert_eq!(get("8000/").await, "home");
        assert!(get("8000/none").await.contains("404 Not Found"));
    }
}
