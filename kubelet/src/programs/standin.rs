//! The stand-in for an image that is not run: it listens where the image would, so that Services, policies and probes have something
//! real to talk to.
//!
//! On TCP it answers HTTP with a page that says who it is (JSON for those who accept it) and echoes everything else; on UDP it echoes.
//! Which ports: those that the container declares, those that its probes and hooks ask, or, when there are neither, the port that the
//! image is known for. What the real image would do besides listening is not here.

use super::http::{Answer, Handler, answer, serve_connection};
use super::stdio::{SharedOutput, reason};
use crate::program::{Container, ExitStatus, Program};
use async_trait::async_trait;
use futures::future::BoxFuture;
use http::{Request, header};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netstack::{TcpListener, TcpStream, UdpSocket};
use serde_json::json;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// Connections of one port at once.
const CONNECTIONS: usize = 1024;
/// How long the first bytes of a connection may look like a request line that is not complete.
const UNDECIDED: Duration = Duration::from_millis(100);
const BUFFER: usize = 16 << 10;

/// Ports that images are known for, by the last component of their name.
const KNOWN: &[(&str, &[u16])] = &[
    ("nginx", &[80]),
    ("nginx-unprivileged", &[8080]),
    ("httpd", &[80]),
    ("caddy", &[80]),
    ("apache", &[80]),
    ("php-apache", &[80]),
    ("hpa-example", &[80]),
    ("wordpress", &[80]),
    ("traefik", &[80]),
    ("haproxy", &[80]),
    ("envoy", &[10000]),
    ("redis", &[6379]),
    ("valkey", &[6379]),
    ("redis-follower", &[6379]),
    ("gb-frontend", &[80]),
    ("memcached", &[11211]),
    ("postgres", &[5432]),
    ("mysql", &[3306]),
    ("mariadb", &[3306]),
    ("mongo", &[27017]),
    ("rabbitmq", &[5672]),
    ("nats", &[4222]),
    ("kafka", &[9092]),
    ("zookeeper", &[2181]),
    ("elasticsearch", &[9200]),
    ("opensearch", &[9200]),
    ("prometheus", &[9090]),
    ("grafana", &[3000]),
    ("vault", &[8200]),
    ("consul", &[8500]),
    ("minio", &[9000]),
    ("registry", &[5000]),
    ("echoserver", &[8080]),
    ("echo-server", &[8080]),
    ("hello-app", &[8080]),
    ("hello-kubernetes", &[8080]),
    ("kubernetes-bootcamp", &[8080]),
    ("node-hello", &[8080]),
    ("podinfo", &[9898]),
    ("httpbin", &[80]),
    ("go-httpbin", &[8080]),
];

struct StandIn;

/// The program.
pub fn program() -> Arc<dyn Program> {
    Arc::new(StandIn)
}

/// Its arguments for a container: `--image=…` and the ports to listen on, as `tcp:8080` and `udp:53`. Further options are
/// `--namespace=…` and `--node=…`.
pub fn arguments(container: &core::Container) -> Vec<String> {
    let image = container.image.clone().unwrap_or_default();
    let mut ports = BTreeSet::new();
    for port in container.ports.iter().flatten() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        // SCTP has no sockets here.
        if protocol != "sctp"
            && let Ok(number) = u16::try_from(port.container_port)
        {
            ports.insert((protocol, number));
        }
    }
    for probe in [&container.readiness_probe, &container.liveness_probe, &container.startup_probe].into_iter().flatten()
    {
        let over_http = probe.http_get.as_ref().map(|get| &get.port);
        let over_tcp = probe.tcp_socket.as_ref().map(|socket| &socket.port);
        for port in over_http.into_iter().chain(over_tcp) {
            if let IntOrString::Int(number) = port
                && let Ok(number) = u16::try_from(*number)
            {
                ports.insert(("tcp".to_owned(), number));
            }
        }
    }
    if ports.is_empty() {
        let name = super::images::repository(&image);
        let known = KNOWN.iter().find(|(known, _)| *known == name).map(|(_, ports)| *ports);
        ports.extend(known.into_iter().flatten().map(|port| ("tcp".to_owned(), *port)));
    }
    let ports = ports.into_iter().map(|(protocol, port)| format!("{protocol}:{port}"));
    ["standin".to_owned(), format!("--image={image}")].into_iter().chain(ports).collect()
}

/// Who the stand-in says it is.
struct Identity {
    hostname: String,
    namespace: String,
    node: String,
    image: String,
    addresses: Vec<String>,
    log: SharedOutput,
}

#[async_trait]
impl Program for StandIn {
    async fn run(&self, mut container: Container) -> ExitStatus {
        let option = |name: &str| {
            container
                .args
                .iter()
                .find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
                .to_owned()
        };
        let (image, mut namespace, node) = (option("--image"), option("--namespace"), option("--node"));
        if namespace.is_empty() {
            let file = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
            let bytes = container.files.read(file).unwrap_or_default();
            namespace = String::from_utf8_lossy(&bytes).trim().to_owned();
        }
        let log = SharedOutput::new(std::mem::replace(&mut container.stdout, Box::new(tokio::io::sink())));
        let mut listening: Vec<BoxFuture<'static, io::Error>> = Vec::new();
        let mut names = Vec::new();
        let identity = Arc::new(Identity {
            hostname: container.hostname.clone(),
            namespace,
            node,
            image,
            addresses: container.host.addresses().iter().map(ToString::to_string).collect(),
            log: log.clone(),
        });
        for argument in container.args.clone() {
            let Some((protocol, port)) = argument.split_once(':') else { continue };
            let Ok(port) = port.parse::<u16>() else { continue };
            let opened: io::Result<BoxFuture<'static, io::Error>> = match protocol {
                "tcp" => container.host.tcp_listen(port).map(|listener| {
                    let server: BoxFuture<'static, io::Error> = Box::pin(serve_tcp(listener, identity.clone()));
                    server
                }),
                "udp" => container.host.udp_bind(port).map(|socket| {
                    let server: BoxFuture<'static, io::Error> = Box::pin(serve_udp(socket));
                    server
                }),
                _ => continue,
            };
            match opened {
                Ok(server) => {
                    names.push(argument);
                    listening.push(server);
                }
                Err(error) => {
                    container.complain(format!("stand-in: cannot listen on {argument}: {}", reason(&error))).await;
                    return 1;
                }
            }
        }
        let image = &identity.image;
        let line = match names.is_empty() {
            true => format!("stand-in for image {image}: no ports are declared, so it listens on none\n"),
            false => format!("stand-in for image {image}: listening on {}\n", names.join(", ")),
        };
        let _ = log.clone().write_all(line.as_bytes()).await;
        if listening.is_empty() {
            std::future::pending::<()>().await;
        }
        let (error, _, _) = futures::future::select_all(listening).await;
        container.complain(format!("stand-in: {}", reason(&error))).await;
        1
    }
}

async fn serve_tcp(listener: TcpListener, identity: Arc<Identity>) -> io::Error {
    let port = listener.local_port();
    let page = identity.clone();
    let handler: Handler = Arc::new(move |request, client| {
        let identity = page.clone();
        Box::pin(async move { identity.page(&request, client, port).await })
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, client)) => {
                    connections.spawn(converse(stream, client, handler.clone()));
                }
                Err(error) => return error,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum Opening {
    Http,
    Other,
    /// They may become a request line yet.
    Undecided,
}

fn opening(bytes: &[u8]) -> Opening {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        Opening::Http
    } else if METHODS.iter().any(|method| method.starts_with(bytes)) {
        Opening::Undecided
    } else {
        Opening::Other
    }
}

/// HTTP for those who speak it, an echo for all others.
async fn converse(stream: TcpStream, client: SocketAddr, handler: Handler) {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut first = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let reading = from.read(&mut buffer);
        let read = match first.is_empty() {
            // Those who wait for the server to speak may wait as long as they like.
            true => reading.await,
            false => match tokio::time::timeout(UNDECIDED, reading).await {
                Ok(read) => read,
                Err(_) => break,
            },
        };
        match read {
            Ok(length @ 1..) => first.extend_from_slice(&buffer[..length]),
            _ => break,
        }
        match opening(&first) {
            Opening::Undecided => {}
            Opening::Other => break,
            Opening::Http => {
                let whole = tokio::io::join(io::Cursor::new(first).chain(from), to);
                return serve_connection(whole, client, handler).await;
            }
        }
    }
    if to.write_all(&first).await.is_err() {
        return;
    }
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..length]).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn serve_udp(socket: UdpSocket) -> io::Error {
    let mut buffer = vec![0; 65_535];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                let _ = socket.send_to(&buffer[..length], client).await;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return error,
        }
    }
}

impl Identity {
    async fn page(&self, request: &Request<Incoming>, client: SocketAddr, port: u16) -> Answer {
        let (method, uri, version) = (request.method(), request.uri(), request.version());
        let line = format!("{client} \"{method} {uri} {version:?}\" 200 port {port}\n");
        let _ = self.log.clone().write_all(line.as_bytes()).await;
        let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let headers = super::http::header_lines(request.headers());
        if accepts.contains("application/json") {
            let headers: serde_json::Map<String, serde_json::Value> = headers
                .iter()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            let body = json!({
                "standIn": true,
                "pod": self.hostname,
                "namespace": self.namespace,
                "node": self.node,
                "ips": self.addresses,
                "image": self.image,
                "port": port,
                "client": client.to_string(),
                "request": { "method": method.as_str(), "uri": uri.to_string(), "headers": headers },
            });
            return answer(200, "application/json", format!("{body}\n"));
        }
        let facts = [
            ("Stand-in for", self.image.as_str()),
            ("Pod", self.hostname.as_str()),
            ("Namespace", self.namespace.as_str()),
            ("Node", self.node.as_str()),
        ];
        let mut body = String::new();
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            body.push_str(&format!("{name}: {value}\n"));
        }
        body.push_str(&format!("IP: {}\nPort: {port}\nClient: {client}\n\n", self.addresses.join(", ")));
        body.push_str(&format!("{method} {uri} {version:?}\n"));
        headers.iter().for_each(|line| body.push_str(&format!("{line}\n")));
        answer(200, "text/plain; charset=utf-8", body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::harness::{Machine, network, serving_program};

    fn container(value: serde_json::Value) -> core::Container {
        serde_json::from_value(value).expect("a container")
    }

    #[test]
    fn it_listens_on_declared_ports_those_of_probes_or_those_the_image_is_known_for() {
        let ports = |value| arguments(&container(value))[2..].to_vec();
        assert_eq!(
            ports(json!({"name": "c", "image": "x", "ports": [
                {"containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 1, "protocol": "SCTP"}]})),
            ["tcp:8080", "udp:53"]
        );
        assert_eq!(
            ports(json!({"name": "c", "image": "x", "readinessProbe": {"httpGet": {"port": 9000}}})),
            ["tcp:9000"]
        );
        assert_eq!(ports(json!({"name": "c", "image": "docker.io/library/nginx:1.27"})), ["tcp:80"]);
        assert!(ports(json!({"name": "c", "image": "x"})).is_empty());
    }

    #[test]
    fn a_request_line_is_known_by_its_method() {
        assert_eq!(opening(b"GET / HTTP/1.1"), Opening::Http);
        assert_eq!(opening(b"PO"), Opening::Undecided);
        assert_eq!(opening(b"GETX"), Opening::Other);
        assert_eq!(opening(b"\x16\x03"), Opening::Other);
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_who_it_is_over_http_and_echoes_the_rest() {
        let network = network();
        let server = Machine::at(&network, "10.0.0.2");
        let client = Machine::at(&network, "10.0.0.1");
        let args = ["standin", "--image=nginx:1.27", "--namespace=default", "tcp:80", "udp:53"];
        let _running = serving_program(program(), &server, &args);
        let page = client.run(&["curl", "-s", "10.0.0.2/x"], "").await.stdout;
        assert!(
            page.starts_with(
                "Stand-in for: nginx:1.27\nPod: web-0\nNamespace: default\nIP: 10.0.0.2\nPort: 80\nClient: 10.0.0.1:"
            ),
            "{page}"
        );
        assert!(page.contains("\nGET /x HTTP/1.1\n"), "{page}");
        let page = client.run(&["curl", "-s", "-H", "Accept: application/json", "10.0.0.2"], "").await.stdout;
        let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
        assert_eq!(page["pod"], "web-0");
        assert_eq!(client.run(&["nc", "10.0.0.2", "80"], "hello\n").await.stdout, "hello\n");
        assert_eq!(client.run(&["nc", "-u", "-w", "1", "10.0.0.2", "53"], "hello\n").await.stdout, "hello\n");
    }
}
