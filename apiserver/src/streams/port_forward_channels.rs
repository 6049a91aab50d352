//! port-forward as the Python client and kube-rs do it: `v4.channel.k8s.io` with two channels per port.
//!
//! `?ports=80,443`: channel 2i is the data of the i-th port, 2i+1 its errors; the first message on each says the port (little-endian).
//! In `v4.base64.channel.k8s.io` messages are text, as in [`super::channels`]. There is no half-close: the session ends with its client,
//! or when no port has a connection left.

use super::channels::{close, message, payload};
use super::forwarding::Forwarding;
use super::{HEARTBEAT, Status};
use axum::extract::ws::{Message, WebSocket, close_code};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The protocols spoken here.
pub(super) const PROTOCOLS: &[&str] = &["v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

const WINDOW: usize = 16;
/// Channel numbers are one byte, and in base64 one character.
const MOST_PORTS: usize = 100;

/// The ports of a request. Only this protocol has them there.
pub(super) fn ports<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, Status> {
    let mut ports = Vec::new();
    for text in values.flat_map(|value| value.split(',')).map(str::trim) {
        let port: u16 = text.parse().map_err(|_| Status::bad_request(format!("unable to parse {text:?} as a port")))?;
        if port == 0 {
            return Err(Status::bad_request(format!("port {text:?} must be > 0")));
        }
        ports.push(port);
    }
    match ports.len() {
        0 => Err(Status::bad_request(r#"query parameter "ports" is required"#)),
        1..=MOST_PORTS => Ok(ports),
        many => Err(Status::bad_request(format!("query parameter \"ports\" has {many} ports: at most {MOST_PORTS}"))),
    }
}

pub(super) async fn run(socket: WebSocket, base64: bool, forwarding: Forwarding, ports: Vec<u16>) {
    let (mut sink, mut source) = socket.split();
    let (sender, mut outgoing) = mpsc::channel::<Message>(64);
    let forwarding = std::sync::Arc::new(forwarding);
    let mut inputs = Vec::new();
    let mut connections = JoinSet::new();
    for (index, port) in ports.into_iter().enumerate() {
        let channel = (2 * index) as u8;
        for channel in [channel, channel + 1] {
            if sink.send(message(base64, channel, &port.to_le_bytes())).await.is_err() {
                return;
            }
        }
        let (input, receiver) = mpsc::channel(WINDOW);
        inputs.push(input);
        let forwarding = forwarding.clone();
        let sender = sender.clone();
        connections.spawn(async move {
            let forward = Forward { base64, port, channel, output: sender };
            forward.run(&forwarding, receiver).await;
        });
    }
    drop(sender);
    let mut heartbeat = super::heartbeat();
    let code = loop {
        tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => if sink.send(message).await.is_err() { return },
                None => break close_code::NORMAL,
            },
            _ = heartbeat.tick() => if sink.send(Message::Pong(Bytes::from_static(b"alive"))).await.is_err() { return },
            message = source.next() => {
                let data = match message {
                    Some(Ok(Message::Binary(data))) => data,
                    Some(Ok(Message::Text(text))) => Bytes::from(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_))) | None => break close_code::NORMAL,
                    Some(Err(_)) => break close_code::PROTOCOL,
                };
                let Some((channel, payload)) = payload(base64, data) else { continue };
                let Some(input) = inputs.get(usize::from(channel) / 2).filter(|_| channel % 2 == 0) else { continue };
                let sending = input.send(payload);
                tokio::pin!(sending);
                loop {
                    tokio::select! {
                        _ = &mut sending => break,
                        Some(message) = outgoing.recv() => if sink.send(message).await.is_err() { return },
                        _ = heartbeat.tick() => {
                            if sink.send(Message::Pong(Bytes::from_static(b"alive"))).await.is_err() { return }
                        }
                    }
                }
            },
        }
        heartbeat.reset_after(HEARTBEAT);
    };
    connections.shutdown().await;
    close(&mut sink, &mut source, code, "").await;
}

struct Forward {
    base64: bool,
    port: u16,
    channel: u8,
    output: mpsc::Sender<Message>,
}

impl Forward {
    /// Forwards the port's one connection until the pod has ended it.
    async fn run(self, forwarding: &Forwarding, mut input: mpsc::Receiver<Bytes>) {
        let connection = match forwarding.dial(self.port).await {
            Ok(connection) => connection,
            Err(text) => {
                let _ = self.output.send(message(self.base64, self.channel + 1, text.as_bytes())).await;
                return;
            }
        };
        let (mut reader, mut writer) = tokio::io::split(connection);
        let inward = async {
            while let Some(data) = input.recv().await {
                if writer.write_all(&data).await.is_err() {
                    break;
                }
            }
            let _ = writer.shutdown().await;
            // What the client still sends is dropped, and must not hold up the other ports.
            while input.recv().await.is_some() {}
            std::future::pending::<()>().await
        };
        let outward = async {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                if self.output.send(message(self.base64, self.channel, &buffer[..length])).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = inward => {}
            () = outward => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_between_1_and_65535_and_at_least_one() {
        let read = |texts: &[&str]| ports(texts.iter().copied()).map_err(|status| status.message);
        assert_eq!(read(&["80,443", "8080"]), Ok(vec![80, 443, 8080]));
        assert_eq!(read(&[]), Err(r#"query parameter "ports" is required"#.to_owned()));
        assert_eq!(read(&["http"]), Err(r#"unable to parse "http" as a port"#.to_owned()));
        assert_eq!(read(&["0"]), Err(r#"port "0" must be > 0"#.to_owned()));
        assert!(read(&["1"; 101]).is_err());
    }
}
