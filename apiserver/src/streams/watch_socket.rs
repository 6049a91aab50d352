//! A watch over a WebSocket, as scripts in browsers have it: a text message for each event.
//!
//! Follows `HandleWS` in `k8s.io/apiserver/pkg/endpoints/handlers/watch.go`.

use crate::authentication::websocket;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures::{SinkExt, StreamExt};
use http::request::Parts;

/// A WebSocket that a watch is asked for on.
pub(crate) struct Socket {
    upgrade: WebSocketUpgrade,
    protocols: Vec<String>,
}

impl Socket {
    /// The one that the request asks for, if it does.
    pub(crate) async fn asked(parts: &mut Parts) -> Option<Socket> {
        if !websocket::is_asked(&parts.headers) {
            return None;
        }
        let protocols = websocket::protocols(&parts.headers).map(str::to_owned).collect();
        let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await.ok()?;
        Some(Socket { upgrade, protocols })
    }

    /// Sends the lines of a watch's answer, one message each, until they or the client end.
    pub(crate) fn carry(self, watch: Response) -> Response {
        let lines = watch.into_body();
        // The client's first protocol is as good as any: what is carried is the same.
        self.upgrade.protocols(self.protocols).on_upgrade(|socket| carry(socket, lines))
    }
}

async fn carry(socket: WebSocket, lines: Body) {
    let (mut sink, mut source) = socket.split();
    let mut lines = lines.into_data_stream();
    loop {
        tokio::select! {
            piece = lines.next() => {
                let Some(Ok(piece)) = piece else { break };
                // Pieces end where lines end.
                for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let text = String::from_utf8_lossy(line).into_owned();
                    if sink.send(Message::Text(text.into())).await.is_err() {
                        return;
                    }
                }
            }
            // What a client says is read and means nothing, except that it goes.
            said = source.next() => {
                if matches!(said, None | Some(Err(_) | Ok(Message::Close(_)))) {
                    break;
                }
            }
        }
    }
    let _ = sink.send(Message::Close(None)).await;
}
