//! port-forward as kubectl does it: SPDY/3.1, inside the binary messages of a WebSocket (`SPDY/3.1+portforward.k8s.io`, KEP-4006) or,
//! as older clients have it, on the connection itself (`portforward.k8s.io`).
//!
//! Per forwarded connection the client opens two streams, told apart by headers: `error` (on which a failure is said) and `data`.
//! For the other protocol see [`super::port_forward_channels`].

use super::forwarding::Forwarding;
use super::spdy_connection::{Connection, Headers, Stream, header};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The WebSocket protocol which is a tunnel for SPDY.
pub(super) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The protocol over SPDY.
pub(super) const SPDY: &str = "portforward.k8s.io";

/// A connection whose streams have not all been opened yet.
#[derive(Default)]
struct Pair {
    error: Option<Stream>,
    data: Option<Stream>,
}

fn port(headers: &Headers) -> Option<u16> {
    header(headers, "port")?.parse().ok().filter(|port| *port > 0)
}

fn accept(headers: &Headers) -> bool {
    matches!(header(headers, "streamtype"), Some("error" | "data")) && port(headers).is_some()
}

/// Both streams of a connection have one `requestid`. The oldest clients send none, and open the data stream right after the error stream.
fn request_id(stream: &Stream, is_error: bool) -> String {
    match header(&stream.headers, "requestid") {
        Some(id) => id.to_owned(),
        None if is_error => stream.id.to_string(),
        None => stream.id.wrapping_sub(2).to_string(),
    }
}

/// Forwards connections until the client has gone.
pub(super) async fn run(mut connection: Connection, forwarding: Forwarding) {
    let forwarding = Arc::new(forwarding);
    let (opened, mut streams) = mpsc::unbounded_channel();
    let mut pairs: HashMap<String, Pair> = HashMap::new();
    let mut connections = JoinSet::new();
    let handling = async {
        loop {
            let stream: Stream = tokio::select! {
                Some(stream) = streams.recv() => stream,
                Some(_) = connections.join_next() => continue,
                else => return,
            };
            let is_error = header(&stream.headers, "streamtype") == Some("error");
            let id = request_id(&stream, is_error);
            let mut pair = pairs.remove(&id).unwrap_or_default();
            *(if is_error { &mut pair.error } else { &mut pair.data }) = Some(stream);
            match pair {
                Pair { error: Some(error), data: Some(data) } => {
                    connections.spawn(forward(forwarding.clone(), data, error));
                }
                incomplete => {
                    pairs.insert(id, incomplete);
                }
            }
        }
    };
    tokio::select! {
        () = connection.run(accept, opened) => {}
        () = handling => {}
    }
    connections.shutdown().await;
    connection.close().await;
}

/// Forwards one connection until both directions have ended, or the client has reset it. The error stream ends in any case: the client
/// waits for it.
async fn forward(forwarding: Arc<Forwarding>, data: Stream, error: Stream) {
    let Stream { headers, mut input, reset, output, .. } = data;
    let port = port(&headers).unwrap_or_default();
    let forwarded = async {
        let (mut reader, mut writer) = match forwarding.dial(port).await {
            Ok(connection) => tokio::io::split(connection),
            Err(text) => {
                output.finish(b"").await;
                return text;
            }
        };
        let inward = async {
            while let Some(data) = input.recv().await {
                if writer.write_all(&data).await.is_err() {
                    break;
                }
            }
            let _ = writer.shutdown().await;
            // What the client still sends is dropped, and must not hold up the other connections.
            while input.recv().await.is_some() {}
        };
        let outward = async {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                if !output.data(&buffer[..length]).await {
                    return;
                }
            }
            output.finish(b"").await;
        };
        tokio::join!(inward, outward);
        String::new()
    };
    let text = tokio::select! {
        text = forwarded => text,
        _ = reset => String::new(),
    };
    error.output.finish(text.as_bytes()).await;
}
