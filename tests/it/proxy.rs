//! `coracle proxy`: a program of this machine reaches names and addresses of the cluster, without root.

use crate::support::{Terminal, http as http_client};
use coracle::{Cluster, Container, FunctionPod};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

const CORACLE: &str = env!("CARGO_BIN_EXE_coracle");

/// Says its name, then sends back what it is sent.
async fn echo(container: Container) -> i32 {
    let Ok(listener) = container.host.tcp_listen(80) else { return 1 };
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(&mut stream);
            tokio::io::copy(&mut from, &mut to).await
        });
    }
    0
}

/// Answers every request with its first line.
async fn web(container: Container) -> i32 {
    let Ok(listener) = container.host.tcp_listen(80) else { return 1 };
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await?;
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            let host = lines.iter().find(|line| line.to_lowercase().starts_with("host:")).cloned().unwrap_or_default();
            let text = format!("{}\n{host}\n", lines[0]);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
            stream.write_all(format!("{head}{text}").as_bytes()).await?;
            stream.shutdown().await
        });
    }
    0
}

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{port: 7, targetPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
";

struct Bench {
    cluster: Cluster,
    proxy: SocketAddr,
    _terminal: Terminal,
    _child: Child,
}

async fn bench() -> Bench {
    let mut terminal = Terminal::new(&[Path::new(CORACLE)]);
    let socket = terminal.dir().join("api.sock");
    let cluster = Cluster::builder().seed(3).unix_socket(&socket).start().await.expect("a cluster");
    terminal.set("CORACLE_SOCKET", &socket);
    cluster.apply(SERVICES).await.expect("applied");
    cluster.run_pod(FunctionPod::new("echo").label("app", "echo").port(80), echo).await.expect("a pod");
    cluster.run_pod(FunctionPod::new("web").label("app", "web").port(80), web).await.expect("a pod");
    cluster.settled().await;
    let mut command = terminal.command(CORACLE);
    let mut child = command.args(["proxy", "--port", "0"]).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let line = lines.next_line().await.expect("readable").expect("a line");
    let address = line.rsplit(' ').next().expect("a word").parse();
    let proxy = address.unwrap_or_else(|_| panic!("no address in {line:?}"));
    // Its later lines must not meet a closed pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Bench { cluster, proxy, _terminal: terminal, _child: child }
}

/// Asks the SOCKS5 proxy for a name; the reply's code, and the stream.
async fn socks(proxy: SocketAddr, host: &str, port: u16) -> (u8, TcpStream) {
    let mut stream = TcpStream::connect(proxy).await.expect("the proxy listens");
    stream.write_all(&[5, 1, 0]).await.expect("written");
    let mut method = [0; 2];
    stream.read_exact(&mut method).await.expect("a method");
    assert_eq!(method, [5, 0]);
    let length = u8::try_from(host.len()).expect("a short name");
    let request = [&[5, 1, 0, 3, length], host.as_bytes(), &port.to_be_bytes()].concat();
    stream.write_all(&request).await.expect("written");
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).await.expect("a reply");
    (reply[1], stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks5_client_reaches_services_by_every_form_of_their_name() {
    let bench = bench().await;
    for name in ["echo", "echo.default", "echo.default.svc", "echo.default.svc.cluster.local"] {
        let (reply, mut stream) = socks(bench.proxy, name, 7).await;
        assert_eq!(reply, 0, "{name}");
        let sent: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let (mut from, mut to) = stream.split();
        let mut back = vec![0; sent.len()];
        let (written, read) = tokio::join!(to.write_all(&sent), from.read_exact(&mut back));
        written.expect("written");
        read.expect("read");
        assert!(back == sent, "{name}: what came back is not what was sent");
    }
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_refused_with_the_reason() {
    let bench = bench().await;
    assert_eq!(socks(bench.proxy, "nobody.default", 80).await.0, 5, "no endpoint: connection refused");
    assert_eq!(
        socks(bench.proxy, "nothing.default.svc.cluster.local", 80).await.0,
        4,
        "no such name: host unreachable"
    );
    let (code, text) = http_client::get(bench.proxy, "http://nobody.default/").await.expect("an answer");
    assert_eq!(code, 502, "{text}");
    assert_eq!(http_client::get(bench.proxy, "/").await.expect("an answer").0, 400);
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_client_reaches_services_in_absolute_form_and_by_connect() {
    let bench = bench().await;
    let (code, text) = http_client::get(bench.proxy, "http://web.default/a?b=c").await.expect("an answer");
    assert_eq!((code, text.as_str()), (200, "GET /a?b=c HTTP/1.1\nhost: web.default\n"));
    let mut stream = TcpStream::connect(bench.proxy).await.expect("the proxy listens");
    stream.write_all(b"CONNECT echo.default:7 HTTP/1.1\r\nHost: echo.default:7\r\n\r\n").await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"hello").await.expect("written");
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.expect("read");
    assert_eq!(&back, b"hello");
    bench.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_places_are_connected_to_from_this_machine() {
    let bench = bench().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let accepted = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.write_all(b"machine").await.expect("written");
    });
    let (reply, mut stream) = socks(bench.proxy, "127.0.0.1", port).await;
    assert_eq!(reply, 0);
    let mut said = String::new();
    stream.read_to_string(&mut said).await.expect("read");
    assert_eq!(said, "machine");
    accepted.await.expect("accepted");
    bench.cluster.stop().await;
}
