//! One watch of the store for each kind, however many watch the kind.
//!
//! A [`Hub`] reads a kind's changes once, finds out with the help of its [`index`] whom each concerns, and puts it into the
//! [`Mailbox`](mailbox::Mailbox) of those watchers only: a thousand kubelets that each select their own pods cost a write little more
//! than one. A change is encoded once, for all who are told it ([`Change`]).
//!
//! Nobody waits for a slow watcher: a mailbox that is full is emptied, and its watcher reads on from the store's history, at its own
//! pace. The same way a watch that begins in the past comes to the present: it reads the history up to where its mailbox begins.
//!
//! The relative of kube-apiserver's `cacher`, without its cache: the store serves from memory itself.

mod change;
mod index;
mod mailbox;

pub(crate) use change::{What, object_line};
pub(crate) use mailbox::Mail;

use crate::ApiServer;
use crate::registry::ResourceKind;
use crate::selector::Selector;
use futures::{FutureExt, StreamExt};
use index::Index;
use mailbox::Mailbox;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use store::{Batch, Revision, Store};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// After so many commits the watchers are woken, if there are that many at once.
const STRETCH: usize = 256;

/// The hubs that have watchers.
#[derive(Default)]
pub(crate) struct Hubs(Mutex<HashMap<String, Weak<Hub>>>);

impl Hubs {
    /// The hub of a kind, which begins now if nobody watches the kind yet.
    pub(crate) fn of(&self, server: &ApiServer, kind: &Arc<ResourceKind>) -> Arc<Hub> {
        let name = format!("{}/{}", kind.api_version(), kind.plural);
        let mut hubs = self.0.lock();
        // A kind that was defined anew is watched anew.
        if let Some(hub) = hubs.get(&name).and_then(Weak::upgrade).filter(|hub| Arc::ptr_eq(&hub.room.kind, kind)) {
            return hub;
        }
        hubs.retain(|_, hub| hub.strong_count() > 0);
        let hub = Hub::start(server.store().clone(), kind.clone(), server.stopping());
        hubs.insert(name, Arc::downgrade(&hub));
        hub
    }
}

/// The watchers of one kind. Ends with the last of them.
pub(crate) struct Hub {
    room: Arc<Room>,
    task: AbortHandle,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the hub's task and the watchers share.
struct Room {
    kind: Arc<ResourceKind>,
    state: Mutex<State>,
}

struct State {
    /// Every change up to and with this revision is in the mailboxes.
    reached: Revision,
    index: Index,
    /// The server or the store has ended.
    ended: bool,
}

impl Hub {
    fn start(store: Arc<dyn Store>, kind: Arc<ResourceKind>, stopping: watch::Receiver<bool>) -> Arc<Hub> {
        let reached = store.revision();
        let changes = store.watch(&kind.prefix(), reached);
        let room = Arc::new(Room { kind, state: Mutex::new(State { reached, index: Index::default(), ended: false }) });
        let task = tokio::spawn(run(room.clone(), store, changes, stopping)).abort_handle();
        Arc::new(Hub { room, task })
    }

    /// Begins to put what `selector` selects of a namespace (`""` is all) into a mailbox: every change after the revision returned.
    pub(crate) fn subscribe(self: Arc<Self>, namespace: &str, selector: &Selector) -> (Subscription, Revision) {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = self.room.state.lock();
        if state.ended {
            mailbox.end();
        }
        let member = state.index.insert(namespace, selector, mailbox.clone());
        let reached = state.reached;
        drop(state);
        (Subscription { hub: self, mailbox, member }, reached)
    }
}

/// One watcher's place in a hub.
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    member: index::Member,
}

impl Subscription {
    /// What has come for it.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Mail> {
        self.mailbox.poll(context)
    }

    /// Up to where it knows that there is nothing it has not taken out; `None` if there is something.
    pub(crate) fn reached(&self) -> Option<Revision> {
        // In this order: what came up to that revision was in the mailbox before.
        let reached = self.hub.room.state.lock().reached;
        self.mailbox.is_empty().then_some(reached)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.room.state.lock().index.remove(&self.member);
    }
}

async fn run(room: Arc<Room>, store: Arc<dyn Store>, mut changes: store::Watch, mut stopping: watch::Receiver<bool>) {
    let mut wakers = Vec::new();
    loop {
        let mut next = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => None,
            batch = changes.next() => batch,
        };
        // What is already there is told with it, so that each watcher wakes once.
        let mut told = 0;
        loop {
            match next {
                Some(Ok(batch)) => room.tell(&batch, &mut wakers),
                // Behind the history: each watcher sees to itself.
                Some(Err(_)) => {
                    let newest = store.revision();
                    changes = store.watch(&room.kind.prefix(), newest);
                    room.lose_track(newest, &mut wakers);
                }
                None => return room.end(),
            }
            told += 1;
            if told == STRETCH {
                break;
            }
            match changes.next().now_or_never() {
                Some(batch) => next = batch,
                None => break,
            }
        }
        wakers.drain(..).for_each(Waker::wake);
        tokio::task::consume_budget().await;
    }
}

impl Room {
    fn tell(&self, batch: &Batch, wakers: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        let State { reached, index, .. } = &mut *state;
        for event in &batch.events {
            index.tell(&self.kind, event, wakers);
        }
        *reached = batch.revision;
        if batch.events.is_empty() {
            index.each(|mailbox| wakers.extend(mailbox.progress(batch.revision)));
        }
    }

    fn lose_track(&self, newest: Revision, wakers: &mut Vec<Waker>) {
        let mut state = self.state.lock();
        state.reached = newest;
        state.index.each(|mailbox| wakers.extend(mailbox.lose_track()));
    }

    fn end(&self) {
        let mut wakers = Vec::new();
        let mut state = self.state.lock();
        state.ended = true;
        state.index.each(|mailbox| wakers.extend(mailbox.end()));
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}
