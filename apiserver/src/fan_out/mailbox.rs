//! What has come for one watcher and has not been taken out yet: bounded, and emptied rather than waited for.

use super::change::{Change, What};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use store::Revision;

/// More changes than this, or larger ones, are left to the store's history.
const MOST: usize = 1024;
const MOST_BYTES: usize = 1 << 20;

/// What a watcher takes out.
pub(crate) enum Mail {
    Change(Arc<Change>, What),
    /// Nothing has changed up to and with this revision beside what has been told.
    Progress(Revision),
    /// There was too much: read on from the history.
    LostTrack,
    /// Nothing more will come.
    End,
}

#[derive(Default)]
pub(crate) struct Mailbox(Mutex<Contents>);

#[derive(Default)]
struct Contents {
    mail: VecDeque<Mail>,
    bytes: usize,
    lost_track: bool,
    ended: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    /// Whom to wake, as for all that put something in.
    pub(super) fn change(&self, change: &Arc<Change>, what: What) -> Option<Waker> {
        let mut contents = self.0.lock();
        if contents.lost_track {
            return None;
        }
        contents.bytes += change.bytes();
        // A single one is taken, however large.
        if contents.mail.len() >= MOST || contents.bytes > MOST_BYTES && !contents.mail.is_empty() {
            return contents.lose_track();
        }
        contents.mail.push_back(Mail::Change(change.clone(), what));
        contents.waker.take()
    }

    pub(super) fn progress(&self, revision: Revision) -> Option<Waker> {
        let mut contents = self.0.lock();
        // One who has to read the history gets its progress there.
        if contents.lost_track {
            return None;
        }
        match contents.mail.back_mut() {
            Some(Mail::Progress(last)) => *last = revision,
            _ => contents.mail.push_back(Mail::Progress(revision)),
        }
        contents.waker.take()
    }

    pub(super) fn lose_track(&self) -> Option<Waker> {
        self.0.lock().lose_track()
    }

    pub(super) fn end(&self) -> Option<Waker> {
        let mut contents = self.0.lock();
        contents.ended = true;
        contents.waker.take()
    }

    pub(super) fn is_empty(&self) -> bool {
        let contents = self.0.lock();
        contents.mail.is_empty() && !contents.lost_track
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Mail> {
        let mut contents = self.0.lock();
        if let Some(mail) = contents.mail.pop_front() {
            if let Mail::Change(change, _) = &mail {
                contents.bytes -= change.bytes();
            }
            return Poll::Ready(mail);
        }
        if std::mem::take(&mut contents.lost_track) {
            return Poll::Ready(Mail::LostTrack);
        }
        if contents.ended {
            return Poll::Ready(Mail::End);
        }
        match &mut contents.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Contents {
    fn lose_track(&mut self) -> Option<Waker> {
        self.mail = VecDeque::new();
        self.bytes = 0;
        self.lost_track = true;
        self.waker.take()
    }
}
