//! The small servers of agnhost: `serve-hostname`, `porter`, `liveness`, `test-webserver`.

use super::{Log, flags, number};
use crate::files::Kind;
use crate::program::Container;
use crate::programs::http::{Handler, answer, parameters, serve, text};
use crate::programs::stdio::{Outcome, reason};
use futures::future::BoxFuture;
use http::{HeaderValue, header};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

/// Waits for whichever server ends first.
async fn all(servers: Vec<BoxFuture<'static, io::Error>>) -> Outcome {
    if servers.is_empty() {
        std::future::pending::<()>().await;
    }
    let (error, _, _) = futures::future::select_all(servers).await;
    Err(error)
}

pub(super) async fn serve_hostname(c: &mut Container) -> Outcome {
    let flags = flags(&c.args[2..]);
    let on = |name: &str, default: bool| {
        flags.iter().rev().find(|(flag, _)| flag == name).map_or(default, |(_, value)| value != "false")
    };
    let port: u16 = number(&flags, "port").unwrap_or(9376);
    let log = Log::of(c);
    let hostname = c.hostname.clone();
    let mut servers: Vec<BoxFuture<'static, io::Error>> = Vec::new();
    if on("udp", false) {
        let socket = c.host.udp_bind(port)?;
        let hostname = hostname.clone();
        servers.push(Box::pin(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                match socket.recv_from(&mut buffer).await {
                    Ok((_, client)) => {
                        let _ = socket.send_to(hostname.as_bytes(), client).await;
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(error) => return error,
                }
            }
        }));
    }
    if on("tcp", false) {
        let listener = c.host.tcp_listen(port)?;
        let hostname = hostname.clone();
        servers.push(Box::pin(async move {
            loop {
                match listener.accept().await {
                    Ok((mut stream, _)) => {
                        let _ = stream.write_all(format!("{hostname}\n").as_bytes()).await;
                        let _ = stream.shutdown().await;
                    }
                    Err(error) => return error,
                }
            }
        }));
    } else if on("http", true) {
        let listener = c.host.tcp_listen(port)?;
        let close = on("close", false);
        let handler: Handler = Arc::new(move |_, client| {
            let (log, hostname) = (log.clone(), hostname.clone());
            Box::pin(async move {
                log.line(format!("HTTP request from {client}")).await;
                let mut answer = text(200, hostname);
                if close {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            })
        });
        servers.push(Box::pin(serve(listener, handler)));
    }
    all(servers).await
}

/// Serves the value of `SERVE_PORT_<n>` over HTTP on port n, and that of `SERVE_UDP_PORT_<n>` over UDP.
pub(super) async fn porter(c: &mut Container) -> Outcome {
    let mut servers: Vec<BoxFuture<'static, io::Error>> = Vec::new();
    for (name, value) in c.env.clone() {
        let over_udp = name.starts_with("SERVE_UDP_PORT_");
        let port = ["SERVE_PORT_", "SERVE_TCP_PORT_", "SERVE_UDP_PORT_"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .and_then(|port| port.parse::<u16>().ok());
        let Some(port) = port else { continue };
        if over_udp {
            let socket = c.host.udp_bind(port)?;
            servers.push(Box::pin(async move {
                let mut buffer = vec![0; 65_535];
                loop {
                    match socket.recv_from(&mut buffer).await {
                        Ok((_, client)) => {
                            let _ = socket.send_to(value.as_bytes(), client).await;
                        }
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                        Err(error) => return error,
                    }
                }
            }));
        } else {
            let listener = c.host.tcp_listen(port)?;
            let handler: Handler = Arc::new(move |request, _| {
                let value = value.clone();
                let query = request.uri().query().map(parameters).unwrap_or_default();
                let code = query.iter().find(|(name, _)| name == "code").and_then(|(_, code)| code.parse().ok());
                Box::pin(async move { text(code.unwrap_or(200), value) })
            });
            servers.push(Box::pin(serve(listener, handler)));
        }
    }
    all(servers).await
}

/// Healthy for its first 10 seconds.
pub(super) async fn liveness(c: &mut Container) -> Outcome {
    let started = Instant::now();
    let listener = c.host.tcp_listen(8080)?;
    let handler: Handler = Arc::new(move |request, _| {
        let alive = started.elapsed();
        let path = request.uri().path().to_owned();
        let location =
            parameters(request.uri().query().unwrap_or_default()).into_iter().find(|(name, _)| name == "loc");
        Box::pin(async move {
            match path.as_str() {
                "/healthz" if alive.as_secs_f64() > 10.0 => text(500, format!("error: {}", alive.as_secs_f64())),
                "/healthz" => text(200, "ok"),
                "/started" => text(200, format!("{}s", alive.as_secs_f64())),
                "/redirect" => {
                    let mut answer = text(302, "");
                    if let Some(location) = location.and_then(|(_, to)| HeaderValue::from_str(&to).ok()) {
                        answer.headers_mut().insert(header::LOCATION, location);
                    }
                    answer
                }
                _ => text(404, "404 page not found\n"),
            }
        })
    });
    Err(serve(listener, handler).await)
}

/// The container's files over HTTP on port 80.
pub(super) async fn test_webserver(c: &mut Container) -> Outcome {
    let port = number(&flags(&c.args[2..]), "port").unwrap_or(80);
    let listener = c.host.tcp_listen(port)?;
    let files = c.files.clone();
    let handler: Handler = Arc::new(move |request, _| {
        let path = crate::files::resolve("/", request.uri().path());
        let response = match files.kind(&path) {
            Some(Kind::Directory) => {
                let names = files.list(&path).unwrap_or_default();
                let links: String = names.iter().map(|name| format!("<a href=\"{name}\">{name}</a>\n")).collect();
                answer(200, "text/html; charset=utf-8", format!("<pre>\n{links}</pre>\n"))
            }
            Some(Kind::File { .. }) => match files.read(&path) {
                Ok(bytes) => answer(200, "text/plain; charset=utf-8", bytes),
                Err(error) => text(500, reason(&error)),
            },
            None => text(404, "404 page not found\n"),
        };
        Box::pin(async move { response })
    });
    Err(serve(listener, handler).await)
}
