//! GET with `watch=true`: the changes of a collection, one JSON line each, for as long as the client listens.
//!
//! The stream is pulled by the connection: a reader that stands still holds nobody up; when it has fallen behind the store's
//! history, it gets 410 and lists again. Objects are never serialised anew unless a selector or a table has to look inside.
//!
//! Follows KEP-956 (bookmarks) and KEP-3157 (WatchList).

use super::Call;
use crate::list_options::ListOptions;
use crate::negotiate::Form;
use crate::status::Status;
use crate::{ApiServer, encode, storage, table};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use store::{Batch, Compacted, Event, EventKind, KeyValue, Revision};
use tokio::time::{Instant, sleep_until};

/// Objects of the initial state go out in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// A running watch.
struct Watcher {
    call: Call,
    options: ListOptions,
    /// The state to begin with, not yet sent.
    initial: VecDeque<KeyValue>,
    /// Whether the end of the initial state is to be marked.
    mark_initial: bool,
    changes: store::Watch,
    /// Everything up to here has been sent.
    revision: Revision,
    bookmark_at: Instant,
    end_at: Instant,
    stopping: tokio::sync::watch::Receiver<bool>,
    /// The first table of a watch has headers.
    headers: bool,
    finished: bool,
    _running: Running,
}

/// Counts as a running watch as long as it lives.
struct Running(ApiServer);

impl Running {
    fn new(server: &ApiServer) -> Self {
        server.inner.metrics.watches.fetch_add(1, Ordering::Relaxed);
        Running(server.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.inner.metrics.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What wakes a watch.
enum Step {
    Batch(Result<Batch, Compacted>),
    Bookmark,
    End,
}

impl Call {
    pub(super) async fn watch(self) -> Result<Response, Status> {
        let mut options = ListOptions::new(&self.kind, &self.query, true)?;
        // The old form of watches has the name in its path.
        if !self.info.name.is_empty() {
            options.selector.require_name(&self.info.name);
        }
        let store = self.server.inner.store.clone();
        if let Some(version) = options.resource_version {
            self.not_in_the_future(Revision(version))?;
        }
        // Without a version, or with 0, a watch begins with the state; from a version on with what changes.
        let from_state =
            options.send_initial_events.unwrap_or(options.resource_version.is_none_or(|version| version == 0));
        let (initial, revision) = if from_state {
            let all = ListOptions { selector: options.selector.clone(), ..ListOptions::default() };
            let selected = self.select(&all).await?;
            (selected.items.into(), selected.revision)
        } else {
            let from = options.resource_version.filter(|version| *version > 0).map(Revision);
            (VecDeque::new(), from.unwrap_or_else(|| self.server.revision()))
        };
        let mut prefix = storage::prefix(&self.kind, self.namespace());
        if let (true, Some(name)) = (!self.kind.namespaced || !self.namespace().is_empty(), options.selector.name()) {
            prefix = self.kind.key(self.namespace(), name);
        }
        let now = Instant::now();
        let config = &self.server.inner.config;
        let watcher = Watcher {
            initial,
            mark_initial: options.send_initial_events == Some(true),
            changes: store.watch(&prefix, revision),
            revision,
            bookmark_at: now + config.bookmark_interval,
            end_at: now + options.timeout.unwrap_or(config.watch_timeout),
            stopping: self.server.stopping(),
            headers: true,
            finished: false,
            _running: Running::new(&self.server),
            options,
            call: self,
        };
        let lines = stream::unfold(watcher, |mut watcher| async move {
            let piece = watcher.next().await?;
            Some((Ok::<_, Infallible>(piece), watcher))
        });
        Ok(encode::json_bytes(StatusCode::OK, Body::from_stream(lines)))
    }
}

impl Watcher {
    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.is_empty() {
            if self.finished {
                return None;
            }
            if let Err(status) = self.advance(&mut out).await {
                self.finished = true;
                line(&mut out, "ERROR", |out| encode::push_json(out, &status.to_json()));
            }
        }
        Some(out.into())
    }

    async fn advance(&mut self, out: &mut Vec<u8>) -> Result<(), Status> {
        while let Some(kv) = self.initial.pop_front() {
            self.object(out, "ADDED", &kv)?;
            if out.len() >= PIECE {
                return Ok(());
            }
        }
        if std::mem::take(&mut self.mark_initial) && self.options.allow_bookmarks {
            self.bookmark(out, true);
        }
        if !out.is_empty() {
            return Ok(());
        }
        let step = tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => Step::End,
            batch = self.changes.next() => batch.map_or(Step::End, Step::Batch),
            () = sleep_until(self.end_at) => Step::End,
            () = sleep_until(self.bookmark_at), if self.options.allow_bookmarks => Step::Bookmark,
        };
        match step {
            Step::End => self.finish(out),
            Step::Batch(batch) => {
                self.batch(out, batch)?;
                // What is already there goes out with it.
                while out.len() < PIECE {
                    match self.changes.next().now_or_never() {
                        Some(Some(batch)) => self.batch(out, batch)?,
                        _ => break,
                    }
                }
            }
            Step::Bookmark => {
                self.bookmark_at += self.call.server.inner.config.bookmark_interval;
                self.bookmark(out, false);
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.finished = true;
        if self.options.allow_bookmarks {
            self.bookmark(out, false);
        }
    }

    fn batch(&mut self, out: &mut Vec<u8>, batch: Result<Batch, Compacted>) -> Result<(), Status> {
        let batch = batch.map_err(|Compacted { asked, oldest }| {
            Status::failure(410, "Expired", format!("too old resource version: {} ({})", asked.0, oldest.0))
        })?;
        self.revision = batch.revision;
        if batch.events.is_empty() && self.options.allow_bookmarks {
            self.bookmark(out, false);
        }
        for event in &batch.events {
            self.event(out, event)?;
        }
        Ok(())
    }

    /// With a selector, an object that begins to match has been added, and one that no longer does has been deleted.
    fn event(&mut self, out: &mut Vec<u8>, event: &Event) -> Result<(), Status> {
        let kind = &self.call.kind;
        let selector = &self.options.selector;
        let at = event.kv.mod_revision;
        if selector.is_empty() {
            let what = match (event.kind, &event.previous) {
                (EventKind::Delete, _) => "DELETED",
                (EventKind::Put, None) => "ADDED",
                (EventKind::Put, Some(_)) => "MODIFIED",
            };
            return self.object(out, what, &event.kv);
        }
        let matched = match &event.previous {
            Some(before) => selector.matches_stored(kind, before)?,
            None => false,
        };
        let matches = event.kind == EventKind::Put && selector.matches_stored(kind, &event.kv)?;
        match (matched, matches) {
            (false, false) => Ok(()),
            (false, true) => self.object(out, "ADDED", &event.kv),
            (true, true) => self.object(out, "MODIFIED", &event.kv),
            (true, false) => {
                let last = event.previous.clone().unwrap_or_else(|| event.kv.clone());
                self.object(out, "DELETED", &KeyValue { mod_revision: at, ..last })
            }
        }
    }

    fn object(&mut self, out: &mut Vec<u8>, what: &str, kv: &KeyValue) -> Result<(), Status> {
        let kind = &self.call.kind;
        if self.call.media.form == Form::Object {
            let mut object = Vec::new();
            storage::append(kind, &mut object, kv)?;
            line(out, what, |out| out.extend_from_slice(&object));
            return Ok(());
        }
        let object = storage::decode(kind, kv)?;
        let metadata = json!({"resourceVersion": kv.mod_revision.0.to_string()});
        let shown = self.shown(Some(&object), metadata);
        line(out, what, |out| encode::push_json(out, &shown));
        Ok(())
    }

    /// An object, or none of it for a bookmark, in a form that is not its own.
    fn shown(&mut self, object: Option<&Value>, metadata: Value) -> Value {
        let call = &self.call;
        match call.media.form {
            Form::Table { version, include } => {
                let headers = std::mem::take(&mut self.headers);
                table::table(&call.kind, object, (version, include), metadata, headers, call.server.now())
            }
            Form::Metadata { version } => match object {
                Some(object) => table::partial(object, version),
                None => {
                    json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata})
                }
            },
            Form::Object => {
                json!({"kind": call.kind.kind, "apiVersion": call.kind.api_version(), "metadata": metadata})
            }
        }
    }

    /// Tells the client how far it has come.
    fn bookmark(&mut self, out: &mut Vec<u8>, initial_end: bool) {
        let mut metadata = json!({"resourceVersion": self.revision.0.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let shown = self.shown(None, metadata);
        line(out, "BOOKMARK", |out| encode::push_json(out, &shown));
    }
}

fn line(out: &mut Vec<u8>, what: &str, object: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(what.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object(out);
    out.extend_from_slice(b"}\n");
}
