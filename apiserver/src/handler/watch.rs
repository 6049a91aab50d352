//! GET with `watch=true`: the changes of a collection, one JSON line each, for as long as the client listens.
//!
//! The lines are pulled by the connection: a reader that stands still holds nobody up; when it has fallen behind the store's
//! history, it gets 410 and lists again. What happens now comes from the kind's hub ([`crate::fan_out`]), encoded once for all watchers;
//! what happened before is read from the store's history.
//!
//! Follows KEP-956 (bookmarks) and KEP-3157 (WatchList).

use super::Call;
use crate::fan_out::{Hub, Mail, Subscription, What, object_line};
use crate::list_options::ListOptions;
use crate::negotiate::Form;
use crate::status::Status;
use crate::{ApiServer, encode, storage, table};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use store::{Batch, Compacted, Event, KeyValue, Revision};
use tokio::time::{Instant, Sleep, sleep_until};

/// Lines go out in pieces of about this size at most.
const PIECE: usize = 64 * 1024;

/// A running watch.
struct Watcher {
    call: Call,
    options: ListOptions,
    /// The state to begin with, not yet sent.
    initial: VecDeque<KeyValue>,
    /// Whether the end of the initial state is to be marked.
    mark_initial: bool,
    hub: Arc<Hub>,
    source: Source,
    /// Everything up to here has been sent.
    revision: Revision,
    bookmark_at: Instant,
    end_at: Instant,
    /// Of the two, what comes first.
    timer: Pin<Box<Sleep>>,
    /// The first table of a watch has headers.
    headers: bool,
    finished: bool,
    _running: Running,
}

/// Where the changes come from.
enum Source {
    /// From the history, up to a revision after which they are in the mailbox.
    Past {
        changes: store::Watch,
        until: Revision,
        present: Option<Subscription>,
    },
    Present(Subscription),
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

impl Call {
    pub(super) async fn watch(mut self) -> Result<Response, Status> {
        let mut options = ListOptions::new(&self.kind, &self.query, true)?;
        // The old form of watches has the name in its path.
        if !self.info.name.is_empty() {
            options.selector.require_name(&self.info.name);
        }
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
        // It may stay for an hour; nobody reads them any more.
        self.headers = HeaderMap::new();
        let now = Instant::now();
        let config = &self.server.inner.config;
        let hub = self.server.inner.hubs.of(&self.server, &self.kind);
        let mut watcher = Watcher {
            initial,
            mark_initial: options.send_initial_events == Some(true),
            source: source(&self, &options, &hub, revision),
            hub,
            revision,
            bookmark_at: now + config.bookmark_interval,
            end_at: now + options.timeout.unwrap_or(config.watch_timeout),
            timer: Box::pin(sleep_until(now)),
            headers: true,
            finished: false,
            _running: Running::new(&self.server),
            options,
            call: self,
        };
        watcher.set_timer();
        Ok(encode::json_bytes(StatusCode::OK, Body::new(watcher)))
    }
}

/// The changes after `revision` that the options select.
fn source(call: &Call, options: &ListOptions, hub: &Arc<Hub>, revision: Revision) -> Source {
    let (subscription, reached) = hub.clone().subscribe(call.namespace(), &options.selector);
    if revision >= reached {
        return Source::Present(subscription);
    }
    let mut prefix = storage::prefix(&call.kind, call.namespace());
    if let (true, Some(name)) = (!call.kind.namespaced || !call.namespace().is_empty(), options.selector.name()) {
        prefix = call.kind.key(call.namespace(), name);
    }
    let changes = call.server.inner.store.watch_past(&prefix, revision);
    Source::Past { changes, until: reached, present: Some(subscription) }
}

/// Lines on their way out: those of others as they are, as long as there is only one.
#[derive(Default)]
enum Out {
    #[default]
    Nothing,
    Shared(Bytes),
    Own(Vec<u8>),
}

impl Out {
    fn len(&self) -> usize {
        match self {
            Out::Nothing => 0,
            Out::Shared(line) => line.len(),
            Out::Own(lines) => lines.len(),
        }
    }

    fn push(&mut self, line: Bytes) {
        match self {
            Out::Nothing => *self = Out::Shared(line),
            _ => self.own().extend_from_slice(&line),
        }
    }

    fn own(&mut self) -> &mut Vec<u8> {
        match self {
            Out::Own(_) => {}
            Out::Nothing => *self = Out::Own(Vec::new()),
            Out::Shared(line) => *self = Out::Own(line.to_vec()),
        }
        match self {
            Out::Own(lines) => lines,
            _ => unreachable!("made so above"),
        }
    }

    fn line(&mut self, what: &str, object: &Value) {
        let out = self.own();
        encode::begin_line(out, what);
        encode::push_json(out, object);
        encode::end_line(out);
    }
}

impl http_body::Body for Watcher {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let mut out = Out::default();
        while !this.finished && out.len() < PIECE {
            match this.advance(context, &mut out) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) if out.len() == 0 => return Poll::Pending,
                Ok(Poll::Pending) => break,
                Err(status) => {
                    this.finished = true;
                    out.line("ERROR", &status.to_json());
                }
            }
        }
        Poll::Ready(match out {
            Out::Nothing => None,
            Out::Shared(line) => Some(Ok(Frame::data(line))),
            Out::Own(lines) => Some(Ok(Frame::data(lines.into()))),
        })
    }
}

impl Watcher {
    /// One step further; something may have come out.
    fn advance(&mut self, context: &mut Context<'_>, out: &mut Out) -> Result<Poll<()>, Status> {
        if let Some(kv) = self.initial.pop_front() {
            self.object(out, "ADDED", &kv)?;
            return Ok(Poll::Ready(()));
        }
        if std::mem::take(&mut self.mark_initial) && self.options.allow_bookmarks {
            self.initial = VecDeque::new();
            self.bookmark(out, true);
            return Ok(Poll::Ready(()));
        }
        match &mut self.source {
            Source::Past { changes, .. } => {
                if let Poll::Ready(batch) = changes.poll_next_unpin(context) {
                    return self.past(batch, out).map(Poll::Ready);
                }
            }
            Source::Present(subscription) => {
                if let Poll::Ready(mail) = subscription.poll(context) {
                    return self.mail(&mail, out).map(Poll::Ready);
                }
            }
        }
        if self.timer.as_mut().poll(context).is_pending() {
            return Ok(Poll::Pending);
        }
        self.on_time(out);
        Ok(Poll::Ready(()))
    }

    fn mail(&mut self, mail: &Mail, out: &mut Out) -> Result<(), Status> {
        match mail {
            // It began after it.
            Mail::Change(change, _) if change.revision() <= self.revision => {}
            Mail::Change(change, what) => {
                self.revision = change.revision();
                if self.call.media.form == Form::Object {
                    out.push(change.line(&self.call.kind, *what)?);
                } else {
                    self.object(out, what.name(), &what.object(change.event()))?;
                }
            }
            Mail::Progress(revision) => self.progress(*revision, out),
            Mail::LostTrack => self.source = source(&self.call, &self.options, &self.hub, self.revision),
            Mail::End => self.finish(out),
        }
        Ok(())
    }

    fn past(&mut self, batch: Option<Result<Batch, Compacted>>, out: &mut Out) -> Result<(), Status> {
        let Source::Past { until, present, .. } = &mut self.source else { return Ok(()) };
        let until = *until;
        let Some(batch) = batch else {
            self.finish(out);
            return Ok(());
        };
        let batch = batch.map_err(|Compacted { asked, oldest }| {
            Status::failure(410, "Expired", format!("too old resource version: {} ({})", asked.0, oldest.0))
        })?;
        if batch.revision > until || batch.revision == until && batch.events.is_empty() {
            // What comes later is in the mailbox. The notification of progress that this brings may be what the client waits for.
            if let Some(present) = present.take() {
                self.source = Source::Present(present);
            }
            self.progress(if batch.events.is_empty() { batch.revision } else { until }, out);
            return Ok(());
        }
        self.revision = batch.revision;
        batch.events.iter().try_for_each(|event| self.event(out, event))
    }

    fn on_time(&mut self, out: &mut Out) {
        let now = Instant::now();
        if now >= self.end_at {
            return self.finish(out);
        }
        if self.options.allow_bookmarks && now >= self.bookmark_at {
            self.bookmark_at += self.call.server.inner.config.bookmark_interval;
            self.bookmark_reached(out);
        }
        self.set_timer();
    }

    fn set_timer(&mut self) {
        let next = if self.options.allow_bookmarks { self.end_at.min(self.bookmark_at) } else { self.end_at };
        self.timer.as_mut().reset(next);
    }

    fn finish(&mut self, out: &mut Out) {
        self.finished = true;
        if self.options.allow_bookmarks {
            self.bookmark_reached(out);
        }
    }

    /// Nothing more has changed up to this revision.
    fn progress(&mut self, revision: Revision, out: &mut Out) {
        self.revision = self.revision.max(revision);
        if self.options.allow_bookmarks {
            self.bookmark(out, false);
        }
    }

    fn bookmark_reached(&mut self, out: &mut Out) {
        if let Source::Present(subscription) = &self.source {
            self.revision = self.revision.max(subscription.reached().unwrap_or_default());
        }
        self.bookmark(out, false);
    }

    /// A change from the history.
    fn event(&mut self, out: &mut Out, event: &Event) -> Result<(), Status> {
        let (kind, selector) = (&self.call.kind, &self.options.selector);
        let was = event.previous.as_ref().map(|before| selector.matches_stored(kind, before)).transpose()?;
        let is = selector.matches_stored(kind, &event.kv)?;
        match What::of(event, was.unwrap_or_default(), is) {
            Some(what) => self.object(out, what.name(), &what.object(event)),
            None => Ok(()),
        }
    }

    fn object(&mut self, out: &mut Out, what: &str, kv: &KeyValue) -> Result<(), Status> {
        let kind = &self.call.kind;
        if self.call.media.form == Form::Object {
            out.push(object_line(kind, what, kv)?.into());
            return Ok(());
        }
        let object = storage::decode(kind, kv)?;
        let metadata = json!({"resourceVersion": kv.mod_revision.0.to_string()});
        let shown = self.shown(Some(&object), metadata);
        out.line(what, &shown);
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
    fn bookmark(&mut self, out: &mut Out, initial_end: bool) {
        let mut metadata = json!({"resourceVersion": self.revision.0.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let shown = self.shown(None, metadata);
        out.line("BOOKMARK", &shown);
    }
}
