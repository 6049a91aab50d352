//! API Priority and Fairness: each request belongs to a flow of a priority level; no flow starves another (KEP-1040).
//!
//! FlowSchemas say which requests belong together, PriorityLevelConfigurations how many of them are served at a time and what happens
//! to more. Both are compiled into a view that follows the store (`crate::follow`); a request that finds a free seat costs a walk
//! over that view and one atomic. Watches hold their seat until their answer has begun; streams take none.
//!
//! Unlike upstream, every request takes one seat however much it lists, and levels do not borrow from each other.

mod defaults;
mod level;
mod maintenance;
mod rules;
#[cfg(test)]
mod tests;

pub use defaults::{collection, objects, reconciled};

use crate::authn::UserInfo;
use crate::follow::{Fold, Follower};
use crate::request::RequestInfo;
use crate::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue};
use level::{Level, Refused, Seat};
use rules::Schema;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use store::Store;

const SCHEMAS: &str = "/registry/flowschemas.flowcontrol.apiserver.k8s.io/";
const LEVELS: &str = "/registry/prioritylevelconfigurations.flowcontrol.apiserver.k8s.io/";
const PREFIXES: &[&str] = &[SCHEMAS, LEVELS];

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// What has been counted of the requests of one schema at one level.
#[derive(Debug, Default)]
struct Counts {
    dispatched: AtomicU64,
    full: AtomicU64,
    limited: AtomicU64,
    timed_out: AtomicU64,
}

/// The schemas in the order in which they are asked, each with its level.
pub(crate) struct Compiled {
    schemas: Vec<Route>,
    levels: Vec<Arc<Level>>,
}

struct Route {
    schema: Schema,
    level: Arc<Level>,
    counts: Arc<Counts>,
    uids: (HeaderValue, HeaderValue),
}

/// The limits of a server.
pub(crate) struct FlowControl {
    /// In force until the objects are followed.
    mandatory: Arc<Compiled>,
    followed: OnceLock<Follower<Compiled>>,
    total: usize,
}

/// Where a request was put.
pub(crate) struct Place {
    /// Released when dropped.
    _seat: Seat,
    uids: (HeaderValue, HeaderValue),
}

/// A refusal, with the place the request would have had.
pub(crate) struct Overload {
    pub(crate) status: Status,
    uids: (HeaderValue, HeaderValue),
}

/// A free seat, or the line to wait in.
enum Found {
    Seat(Place),
    Line(Arc<Level>, Arc<Counts>, (HeaderValue, HeaderValue), u64),
}

fn label(headers: &mut HeaderMap, (schema, level): &(HeaderValue, HeaderValue)) {
    headers.insert(SCHEMA_UID, schema.clone());
    headers.insert(LEVEL_UID, level.clone());
}

impl Place {
    /// Says in the answer's headers which schema and level it was.
    pub(crate) fn label(&self, headers: &mut HeaderMap) {
        label(headers, &self.uids);
    }
}

impl Overload {
    /// Says in the answer's headers which schema and level it was.
    pub(crate) fn label(&self, headers: &mut HeaderMap) {
        label(headers, &self.uids);
    }
}

impl FlowControl {
    /// With the mandatory objects only; `total` seats are shared out among the levels.
    pub(crate) fn new(total: usize) -> Self {
        FlowControl { mandatory: Arc::new(Objects::new(total).view()), followed: OnceLock::new(), total }
    }

    /// Follows the objects in `store` from now on.
    pub(crate) async fn follow(&self, store: Arc<dyn Store>) {
        let follower = Follower::start(store, PREFIXES, Objects::new(self.total)).await;
        let _ = self.followed.set(follower);
    }

    fn with<T>(&self, look: impl FnOnce(&Compiled) -> T) -> T {
        match self.followed.get() {
            Some(follower) => look(&follower.view()),
            None => look(&self.mandatory),
        }
    }

    /// A seat for a request, after waiting for one if need be.
    ///
    /// # Errors
    /// 429 if the flow has too many waiting already, may not wait, or has waited too long.
    pub(crate) async fn enter(&self, user: &UserInfo, info: &RequestInfo) -> Result<Place, Box<Overload>> {
        let found = self.with(|compiled| {
            let route = compiled.route(user, info);
            let uids = route.uids.clone();
            match route.level.try_sit() {
                Some(seat) => {
                    route.counts.dispatched.fetch_add(1, Ordering::Relaxed);
                    Found::Seat(Place { _seat: seat, uids })
                }
                None => Found::Line(route.level.clone(), route.counts.clone(), uids, route.schema.flow(user, info)),
            }
        });
        let (level, counts, uids, flow) = match found {
            Found::Seat(place) => return Ok(place),
            Found::Line(level, counts, uids, flow) => (level, counts, uids, flow),
        };
        match level.sit(flow).await {
            Ok(seat) => {
                counts.dispatched.fetch_add(1, Ordering::Relaxed);
                Ok(Place { _seat: seat, uids })
            }
            Err(why) => {
                let counter = match why {
                    Refused::QueueFull => &counts.full,
                    Refused::ConcurrencyLimit => &counts.limited,
                    Refused::TimeOut => &counts.timed_out,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                Err(Box::new(Overload { status: too_many_requests(), uids }))
            }
        }
    }

    /// How many requests are being served.
    pub(crate) fn executing(&self) -> usize {
        self.with(|compiled| compiled.levels.iter().map(|level| level.executing()).sum())
    }

    /// Appends what has been counted, in Prometheus' text format.
    pub(crate) fn metrics(&self, out: &mut String) {
        self.with(|compiled| compiled.metrics(out));
    }
}

fn too_many_requests() -> Status {
    let mut status = Status::failure(429, "TooManyRequests", "Too many requests, please try again later.");
    status.details = Some(json!({"retryAfterSeconds": 1}));
    status
}

impl Compiled {
    fn route(&self, user: &UserInfo, info: &RequestInfo) -> &Route {
        let found = self.schemas.iter().find(|route| route.schema.matches(user, info));
        // `catch-all` matches by groups; a user may be in none.
        let last = || self.schemas.iter().find(|route| route.schema.name == "catch-all");
        found.or_else(last).expect("catch-all is always there")
    }

    fn metrics(&self, out: &mut String) {
        let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, u64)>| {
            let _ =
                writeln!(out, "# HELP apiserver_flowcontrol_{name} {help}\n# TYPE apiserver_flowcontrol_{name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(out, "apiserver_flowcontrol_{name}{{{labels}}} {value}");
            }
        };
        let routes = || {
            self.schemas.iter().map(|route| {
                let labels = format!("flow_schema=\"{}\",priority_level=\"{}\"", route.schema.name, route.level.name());
                (labels, &*route.counts)
            })
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let dispatched = routes().map(|(labels, counts)| (labels, read(&counts.dispatched))).collect();
        family("dispatched_requests_total", "counter", "Requests that got a seat.", dispatched);
        let rejected = routes().flat_map(|(labels, counts)| {
            let reasons =
                [("queue-full", &counts.full), ("concurrency-limit", &counts.limited), ("time-out", &counts.timed_out)];
            reasons.map(|(reason, counter)| (format!("{labels},reason=\"{reason}\""), read(counter)))
        });
        let rejected = rejected.filter(|(_, count)| *count > 0).collect();
        family("rejected_requests_total", "counter", "Requests that were refused.", rejected);
        let levels = |number: fn(&Level) -> usize| -> Vec<(String, u64)> {
            let row = |level: &Arc<Level>| (format!("priority_level=\"{}\"", level.name()), number(level) as u64);
            self.levels.iter().map(row).collect()
        };
        family("current_executing_seats", "gauge", "Seats that are taken.", levels(Level::executing));
        family("current_inqueue_requests", "gauge", "Requests that wait.", levels(Level::waiting));
        family("nominal_limit_seats", "gauge", "Seats there are.", levels(Level::seats));
    }
}

/// The objects, and the levels that are running.
pub(crate) struct Objects {
    schemas: HashMap<String, Value>,
    levels: HashMap<String, Value>,
    running: HashMap<String, Arc<Level>>,
    counts: HashMap<(String, String), Arc<Counts>>,
    total: usize,
}

impl Objects {
    fn new(total: usize) -> Self {
        let (schemas, levels, running, counts) = Default::default();
        Objects { schemas, levels, running, counts, total }
    }
}

impl Fold for Objects {
    type View = Compiled;

    fn put(&mut self, key: &str, value: Option<&[u8]>) {
        let (all, name) = match (key.strip_prefix(SCHEMAS), key.strip_prefix(LEVELS)) {
            (Some(name), _) => (&mut self.schemas, name),
            (_, Some(name)) => (&mut self.levels, name),
            _ => return,
        };
        match value.and_then(|value| serde_json::from_slice(value).ok()) {
            Some(object) => drop(all.insert(name.to_owned(), object)),
            None => drop(all.remove(name)),
        }
    }

    fn clear(&mut self) {
        self.schemas.clear();
        self.levels.clear();
    }

    fn view(&mut self) -> Compiled {
        let (mut schemas, mut levels): (BTreeMap<String, Value>, BTreeMap<String, Value>) = Default::default();
        // The mandatory objects hold whatever the stored ones say.
        for object in defaults::mandatory() {
            let all = if object["kind"] == "FlowSchema" { &mut schemas } else { &mut levels };
            all.insert(defaults::name(&object).to_owned(), object);
        }
        for (all, stored) in [(&mut schemas, &self.schemas), (&mut levels, &self.levels)] {
            for (name, object) in stored {
                match all.get_mut(name) {
                    Some(mandatory) => mandatory["metadata"]["uid"] = object["metadata"]["uid"].clone(),
                    None => drop(all.insert(name.clone(), object.clone())),
                }
            }
        }
        let shares: u64 = levels.values().map(level::shares).sum();
        self.running.retain(|name, _| levels.contains_key(name));
        for (name, object) in &levels {
            let running = self.running.entry(name.clone()).or_insert_with(|| Arc::new(Level::new(name)));
            running.configure(object, self.total as u64, shares.max(1));
        }
        let uid = |object: &Value| {
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
            HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""))
        };
        let mut routes: Vec<Route> = Vec::new();
        for object in schemas.values() {
            let schema = Schema::new(object);
            // A schema that dangles belongs to catch-all's level.
            let wanted = if levels.contains_key(&schema.level) { schema.level.as_str() } else { "catch-all" };
            let level = self.running[wanted].clone();
            let counts = self.counts.entry((schema.name.clone(), wanted.to_owned())).or_default().clone();
            routes.push(Route { uids: (uid(object), uid(&levels[wanted])), schema, level, counts });
        }
        routes.sort_by(|one, other| one.schema.order().cmp(&other.schema.order()));
        let mut levels: Vec<Arc<Level>> = self.running.values().cloned().collect();
        levels.sort_by(|one, other| one.name().cmp(other.name()));
        Compiled { schemas: routes, levels }
    }
}
