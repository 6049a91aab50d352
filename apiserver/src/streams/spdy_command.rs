//! exec and attach over SPDY: a stream each for stdin, stdout, stderr, resize and error, told apart by the header `streamtype`.
//!
//! The client opens them all before anything runs. This is how client-go spoke before KEP-4006, how it still speaks where a WebSocket
//! is refused, and how many programs built on it do. Follows upstream's `remotecommand` (v1 to v4).

use super::remote_command::{Ends, RemoteCommand, outcome, terminal_size};
use super::spdy_connection::{Connection, Headers, Stream, header};
use crate::pod_streams::TerminalSize;
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

/// The protocols in which exec and attach are spoken.
pub(super) const PROTOCOLS: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// Within this time all streams have to be opened.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);

const TYPES: [&str; 5] = ["error", "stdin", "stdout", "stderr", "resize"];

fn accept(headers: &Headers) -> bool {
    header(headers, "streamtype").is_some_and(|kind| TYPES.contains(&kind))
}

/// Runs a command over a connection on which `protocol` was agreed, to its end or the client's.
pub(super) async fn run(mut connection: Connection, protocol: &str, command: RemoteCommand) {
    let (opened, streams) = mpsc::unbounded_channel();
    tokio::select! {
        _ = connection.run(accept, opened) => {}
        () = execute(streams, protocol, command) => {}
    }
    connection.close().await;
}

async fn execute(mut opened: mpsc::UnboundedReceiver<Stream>, protocol: &str, command: RemoteCommand) {
    let wanted = command.wanted;
    // Resizing came with v3.
    let resizes = wanted.tty && (protocol.starts_with("v3") || protocol.starts_with("v4"));
    let expected: Vec<&str> = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr),
        ("resize", resizes),
    ]
    .into_iter()
    .filter_map(|(kind, is_wanted)| is_wanted.then_some(kind))
    .collect();
    let mut streams: HashMap<String, Stream> = HashMap::new();
    let opening = async {
        while !expected.iter().all(|kind| streams.contains_key(*kind)) {
            let Some(stream) = opened.recv().await else { return };
            let kind = header(&stream.headers, "streamtype").unwrap_or_default().to_owned();
            streams.insert(kind, stream);
        }
    };
    if tokio::time::timeout(STREAM_CREATION_TIMEOUT, opening).await.is_err() {
        return;
    }
    let Some(error) = streams.remove("error") else { return };
    let (Ends { stdin, stdout, stderr, resized }, running) = command.start();
    let mut stream = |kind| streams.remove(kind);
    let (keys, sizes, out, err) = (stream("stdin"), stream("resize"), stream("stdout"), stream("stderr"));
    let input = async {
        tokio::join!(copy_in(keys, stdin), resize(sizes, resized));
        std::future::pending::<()>().await;
    };
    let output = async { tokio::join!(running, copy_out(stdout, out), copy_out(stderr, err)).0 };
    let result = tokio::select! {
        result = output => result,
        () = input => return,
    };
    error.output.finish(&outcome(result, protocol.starts_with("v4"))).await;
}

async fn copy_in(from: Option<Stream>, to: Option<DuplexStream>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(data) = from.input.recv().await {
        if to.write_all(&data).await.is_err() {
            break;
        }
    }
    drop(to);
    // What the client still sends is dropped, and must not hold up the other streams.
    while from.input.recv().await.is_some() {}
}

async fn copy_out(from: Option<DuplexStream>, to: Option<Stream>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    let mut buffer = vec![0; 32 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if !to.output.data(&buffer[..length]).await {
            return;
        }
    }
    to.output.finish(b"").await;
}

async fn resize(stream: Option<Stream>, resized: mpsc::Sender<TerminalSize>) {
    let Some(mut stream) = stream else { return };
    // A stream of JSON documents; each comes in one frame.
    while let Some(text) = stream.input.recv().await {
        for line in text.split(|byte| *byte == b'\n') {
            if let Some(size) = terminal_size(line) {
                let _ = resized.try_send(size);
            }
        }
    }
}
