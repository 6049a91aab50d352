//! `/metrics`: what was asked, how it was answered, and how long that took, in Prometheus' text format.
//!
//! The names and labels are those of kube-apiserver, so that its dashboards work.

use crate::ApiServer;
use crate::request::RequestInfo;
use axum::Extension;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::Range;

/// Upper bounds of the histogram, in seconds.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What has been counted.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Asked, Answers>>,
    /// By user, verb and resource or path.
    denials: Mutex<BTreeMap<(String, String, String), u64>>,
    /// Watches that are running.
    pub(crate) watches: AtomicI64,
}

/// One kind of request; only names the registry knows, so that nobody can make up series.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Default)]
struct Answers {
    by_code: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    /// Counts that a component of the cluster was denied something: it, or its role, is wrong.
    pub(crate) fn denied(&self, user: &str, info: &RequestInfo) {
        let what = if info.is_resource { info.resource_path() } else { info.path.clone() };
        *self.denials.lock().entry((user.to_owned(), info.verb.clone(), what)).or_default() += 1;
    }

    /// Counts one request; the `time` of a watch says nothing and is left out.
    pub(crate) fn observe(&self, server: &ApiServer, info: &RequestInfo, code: StatusCode, time: Duration) {
        let known = info.is_resource.then(|| server.registry()).and_then(|registry| {
            let kind = registry.lookup(&info.group, &info.version, &info.resource)?.clone();
            (info.subresource.is_empty() || kind.has_subresource(&info.subresource)).then_some(kind)
        });
        let asked = match known {
            Some(_) => Asked {
                verb: info.verb.to_ascii_uppercase(),
                group: info.group.clone(),
                version: info.version.clone(),
                resource: info.resource.clone(),
                subresource: info.subresource.clone(),
                scope: if !info.name.is_empty() {
                    "resource"
                } else if info.namespace.is_empty() {
                    "cluster"
                } else {
                    "namespace"
                },
            },
            None => Asked {
                verb: if info.verb == "get" { "GET".to_owned() } else { "other".to_owned() },
                group: String::new(),
                version: String::new(),
                resource: String::new(),
                subresource: String::new(),
                scope: "",
            },
        };
        let mut requests = self.requests.lock();
        let answers = requests.entry(asked).or_default();
        *answers.by_code.entry(code.as_u16()).or_default() += 1;
        if info.verb == "watch" {
            return;
        }
        let seconds = time.as_secs_f64();
        answers.count += 1;
        answers.seconds += seconds;
        for (bucket, bound) in answers.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }
}

impl Asked {
    fn labels(&self) -> String {
        let Asked { verb, group, version, resource, subresource, scope } = self;
        format!(
            "group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

/// `GET /metrics`.
pub(crate) async fn serve(Extension(server): Extension<ApiServer>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], server.metrics_text().await).into_response()
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

impl ApiServer {
    async fn metrics_text(&self) -> String {
        let mut out = String::new();
        {
            let requests = self.inner.metrics.requests.lock();
            let name = "apiserver_request_total";
            family(&mut out, name, "counter", "Requests by verb, resource and HTTP status code.");
            for (asked, answers) in requests.iter() {
                for (code, count) in &answers.by_code {
                    let _ = writeln!(out, "{name}{{code=\"{code}\",{}}} {count}", asked.labels());
                }
            }
            let name = "apiserver_request_duration_seconds";
            family(&mut out, name, "histogram", "Time to the answer's head, watches aside.");
            for (asked, answers) in requests.iter().filter(|(_, answers)| answers.count > 0) {
                let labels = asked.labels();
                for (bound, count) in BUCKETS.iter().zip(answers.buckets) {
                    let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
                }
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", answers.count);
                let _ = writeln!(out, "{name}_sum{{{labels}}} {}", answers.seconds);
                let _ = writeln!(out, "{name}_count{{{labels}}} {}", answers.count);
            }
        }
        let name = "coracle_component_denials_total";
        family(&mut out, name, "counter", "What components of the cluster were denied.");
        for ((user, verb, resource), count) in self.inner.metrics.denials.lock().iter() {
            let _ = writeln!(out, "{name}{{resource=\"{resource}\",user=\"{user}\",verb=\"{verb}\"}} {count}");
        }
        let in_flight = self.inner.flow_control.executing();
        family(&mut out, "apiserver_current_inflight_requests", "gauge", "Requests being served, watches aside.");
        let _ = writeln!(out, "apiserver_current_inflight_requests {in_flight}");
        self.inner.flow_control.metrics(&mut out);
        let watches = self.inner.metrics.watches.load(Ordering::Relaxed);
        family(&mut out, "apiserver_longrunning_requests", "gauge", "Watches being served.");
        let _ = writeln!(out, "apiserver_longrunning_requests{{verb=\"WATCH\"}} {watches}");
        let name = "apiserver_storage_objects";
        family(&mut out, name, "gauge", "Stored objects by resource.");
        let registry = self.registry();
        let prefixes: BTreeSet<String> = registry.iter().map(|kind| kind.prefix()).collect();
        for prefix in prefixes {
            let range = Range { prefix: prefix.clone(), limit: 1, ..Range::default() };
            let Ok(page) = self.inner.store.range(range).await else { continue };
            let count = page.items.len() + page.remaining;
            let resource = prefix.trim_start_matches("/registry/").trim_end_matches('/');
            if count > 0 {
                let _ = writeln!(out, "{name}{{resource=\"{resource}\"}} {count}");
            }
        }
        family(&mut out, "coracle_store_revision", "counter", "The newest revision of the store.");
        let _ = writeln!(out, "coracle_store_revision {}", self.revision().0);
        let further = self.inner.further_metrics.lock().clone();
        further.iter().for_each(|write| write(&mut out));
        out
    }
}
