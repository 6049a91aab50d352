//! The query log: what was asked by whom, and what it was told, kept for a while and told to whoever reads.
//!
//! It is off, and costs nothing, until somebody reads it or [`Config::keep_queries`](crate::Config::keep_queries) turns it on. Queries
//! stand in a ring of bounded size. Writing never waits: a [`Queries`] that is too slow loses the oldest and learns how many.

use crate::client::Client;
use crate::search::{LookupStep, Lookups};
use crate::wire::Transport;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Queries that are kept: about 1.5 MiB, taken as needed.
const KEPT: usize = 4096;

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The server itself: a request that it does not take.
    Server,
    /// The cluster's objects.
    Zone,
    /// A static name.
    Hosts,
    /// An upstream's earlier answer.
    Cache,
    /// An upstream.
    Upstream,
    /// The servers of a stub domain.
    StubDomain,
    /// Nobody: the name is outside, and nobody is asked about such names.
    Nobody,
    /// A fault that was injected.
    Fault,
}

/// One query.
#[derive(Clone, Debug)]
pub struct LoggedQuery {
    /// When it came.
    pub at: Instant,
    /// How long its answer took.
    pub took: Duration,
    /// Who asked.
    pub from: IpAddr,
    /// `NAMESPACE/NAME` of the pod that had this address.
    pub pod: Option<Arc<str>>,
    /// How it came.
    pub transport: Transport,
    /// The full name.
    pub name: String,
    /// Such as `A`.
    pub record_type: String,
    /// Such as `NOERROR`; `None` if there was no answer.
    pub rcode: Option<String>,
    /// Records in the answer section.
    pub answers: usize,
    /// Where the answer comes from.
    pub source: Source,
    /// What the pod's stub resolver was looking up.
    pub step: Option<LookupStep>,
    /// The name that the server found by walking the pod's search list itself.
    pub autopath: Option<String>,
    /// The fault rules that struck.
    pub faults: Vec<String>,
}

/// A query that has come, until its answer is known.
#[derive(Debug)]
pub(crate) struct Entry {
    at: Instant,
    from: IpAddr,
    client: Option<Arc<Client>>,
    transport: Transport,
    name: Name,
    kind: RecordType,
    step: Option<LookupStep>,
    pub(crate) faults: Vec<String>,
}

/// What was answered.
pub(crate) struct Outcome<'a> {
    pub(crate) code: Option<ResponseCode>,
    pub(crate) answers: usize,
    pub(crate) source: Source,
    pub(crate) autopath: Option<&'a Name>,
}

#[derive(Debug, Default)]
struct Ring {
    queries: VecDeque<Arc<LoggedQuery>>,
    /// How many there have been.
    next: u64,
    lookups: Lookups,
}

/// The log.
#[derive(Debug)]
pub(crate) struct QueryLog {
    ring: Mutex<Ring>,
    /// Who wants it: readers, and the configuration.
    wanted: AtomicUsize,
    /// [`Ring::next`], and whether there will be no more.
    news: watch::Sender<(u64, bool)>,
}

impl QueryLog {
    pub(crate) fn new(keep: bool) -> Arc<QueryLog> {
        let (news, _) = watch::channel((0, false));
        Arc::new(QueryLog { ring: Mutex::default(), wanted: AtomicUsize::new(keep.into()), news })
    }

    /// Whether queries are to be written down.
    pub(crate) fn is_on(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// A query has come.
    pub(crate) fn begin(
        &self,
        (from, client): (IpAddr, Option<Arc<Client>>),
        transport: Transport,
        (name, kind): (&Name, RecordType),
    ) -> Entry {
        let at = Instant::now();
        let step = client.as_ref().map(|client| {
            let lookups = &mut self.ring.lock().lookups;
            lookups.place((from, &client.search), (name, kind), at)
        });
        Entry { at, from, client, transport, name: name.clone(), kind, step, faults: Vec::new() }
    }

    /// Its answer is known.
    pub(crate) fn end(&self, entry: Entry, outcome: &Outcome<'_>) {
        let Entry { at, from, client, transport, name, kind, mut step, faults } = entry;
        let mut ring = self.ring.lock();
        if let Some(step) = &mut step {
            step.in_vain = ring.lookups.answered(from, step, kind, outcome.code);
        }
        ring.queries.push_back(Arc::new(LoggedQuery {
            at,
            took: at.elapsed(),
            from,
            pod: client.map(|client| client.pod.clone()),
            transport,
            name: name.to_ascii(),
            record_type: kind.to_string(),
            rcode: outcome.code.map(crate::query::rcode),
            answers: outcome.answers,
            source: outcome.source,
            step,
            autopath: outcome.autopath.map(Name::to_ascii),
            faults,
        }));
        if ring.queries.len() > KEPT {
            ring.queries.pop_front();
        }
        ring.next += 1;
        self.news.send_modify(|(next, _)| *next = ring.next);
    }

    /// There will be no more.
    pub(crate) fn close(&self) {
        self.news.send_modify(|(_, closed)| *closed = true);
    }

    /// A reader, who begins with what is kept or with what comes.
    pub(crate) fn read(self: &Arc<Self>, from_oldest: bool) -> Queries {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let ring = self.ring.lock();
        let back = if from_oldest { ring.queries.len() as u64 } else { 0 };
        Queries { log: self.clone(), news: self.news.subscribe(), next: ring.next - back, lost: 0 }
    }
}

/// A reader of the query log, which is on as long as there is one. It holds nothing up: when it is too slow, queries are lost to it.
#[derive(Debug)]
pub struct Queries {
    log: Arc<QueryLog>,
    news: watch::Receiver<(u64, bool)>,
    next: u64,
    lost: u64,
}

impl Queries {
    /// The next query; `None` when the server has ended.
    pub async fn next(&mut self) -> Option<Arc<LoggedQuery>> {
        loop {
            if let Some(query) = self.take() {
                return Some(query);
            }
            let seen = self.next;
            let (next, closed) = *self.news.wait_for(|(next, closed)| *next > seen || *closed).await.ok()?;
            if closed && next <= seen {
                return None;
            }
        }
    }

    /// The next query if there is one already.
    pub fn take(&mut self) -> Option<Arc<LoggedQuery>> {
        let ring = self.log.ring.lock();
        let oldest = ring.next - ring.queries.len() as u64;
        self.lost += oldest.saturating_sub(self.next);
        self.next = self.next.max(oldest);
        let query = ring.queries.get(usize::try_from(self.next - oldest).ok()?)?.clone();
        self.next += 1;
        Some(query)
    }

    /// Queries lost so far because this reader was too slow.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        if self.log.wanted.fetch_sub(1, Ordering::Relaxed) == 1 {
            // Nobody has asked for what was written while somebody was there.
            let mut ring = self.log.ring.lock();
            let next = ring.next;
            *ring = Ring { next, ..Ring::default() };
        }
    }
}
