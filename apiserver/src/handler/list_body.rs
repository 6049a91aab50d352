//! The body of a list: the stored bytes one after the other, each with its resourceVersion.
//!
//! A small list is one piece of known length. A large one is made piece by piece as the connection takes it: its memory is one
//! piece, whatever its length and however slowly it is read, and the client reads the first objects while the next are copied.

use crate::registry::ResourceKind;
use crate::status::Status;
use crate::{encode, storage};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use store::KeyValue;

/// Large lists go out in pieces of about this size.
const PIECE: usize = 64 * 1024;
/// What is added to the stored bytes of an object, at most.
const ADDED: usize = 48;

/// A list on its way to the client.
pub(super) struct ListBody {
    kind: Arc<ResourceKind>,
    /// What stands before the items; taken by the first piece.
    head: Vec<u8>,
    items: std::vec::IntoIter<KeyValue>,
    /// Of the items left, without what is added to them.
    left: usize,
    first: bool,
    ended: bool,
}

impl ListBody {
    pub(super) fn new(kind: Arc<ResourceKind>, items: Vec<KeyValue>, metadata: &Value) -> Self {
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(b"{\"kind\":");
        encode::push_json(&mut head, &format!("{}List", kind.kind));
        head.extend_from_slice(b",\"apiVersion\":");
        encode::push_json(&mut head, &kind.api_version());
        head.extend_from_slice(b",\"metadata\":");
        encode::push_json(&mut head, metadata);
        head.extend_from_slice(b",\"items\":[");
        let left = items.iter().map(|kv| kv.value.len()).sum();
        ListBody { kind, head, items: items.into_iter(), left, first: true, ended: false }
    }

    /// The answer with it.
    ///
    /// # Errors
    /// 500 if what is stored cannot be shown in the form of the kind's row.
    pub(super) fn answer(mut self) -> Result<Response, Status> {
        // What a view makes of an object may fail, which has to be said before the answer begins.
        if self.left < PIECE || self.kind.view_of.is_some() {
            let whole = self.piece(usize::MAX)?;
            return Ok(encode::json_bytes(StatusCode::OK, whole));
        }
        Ok(encode::json_bytes(StatusCode::OK, Body::new(self)))
    }

    /// The next objects, until there are so many bytes.
    fn piece(&mut self, size: usize) -> Result<Vec<u8>, Status> {
        let mut out = std::mem::take(&mut self.head);
        out.reserve(self.left.saturating_add(self.items.len() * ADDED).min(size.saturating_add(size / 4)) + 2);
        for kv in self.items.by_ref() {
            if !std::mem::take(&mut self.first) {
                out.push(b',');
            }
            self.left -= kv.value.len();
            storage::append(&self.kind, &mut out, &kv)?;
            if out.len() >= size {
                return Ok(out);
            }
        }
        out.extend_from_slice(b"]}");
        self.ended = true;
        Ok(out)
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = self.piece(PIECE).expect("only a view's objects can fail, and they never come in pieces");
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(self.left as u64);
        hint
    }
}
