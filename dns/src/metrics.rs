//! What the server has been asked and has answered, counted, in Prometheus' text format.
//!
//! Named as CoreDNS names it, so that what watches a cluster's DNS finds the names it knows.

use crate::wire::Transport;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Response codes that are counted one by one (RFC 6895, 2.3); what lies above counts as the last.
const CODES: usize = 17;

/// The counters; shared by all front ends.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    udp: AtomicU64,
    tcp: AtomicU64,
    responses: [AtomicU64; CODES],
    forwarded: AtomicU64,
    autopath: AtomicU64,
}

impl Counters {
    /// A request has come.
    pub(crate) fn request(&self, transport: Transport) {
        let counter = match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A reply with this code goes out.
    pub(crate) fn response(&self, code: u16) {
        self.responses[usize::from(code).min(CODES - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// Other servers are asked.
    pub(crate) fn forward(&self) {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
    }

    /// A walk along a search list has found something.
    pub(crate) fn autopath(&self) {
        self.autopath.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them as Prometheus reads them.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from(
            "# HELP coredns_dns_requests_total Counter of DNS requests made per protocol.\n# TYPE coredns_dns_requests_total counter\n",
        );
        for (protocol, counter) in [("udp", &self.udp), ("tcp", &self.tcp)] {
            let count = counter.load(Ordering::Relaxed);
            let _ = writeln!(
                text,
                "coredns_dns_requests_total{{server=\"dns://:53\",zone=\".\",proto=\"{protocol}\"}} {count}"
            );
        }
        text.push_str(
            "# HELP coredns_dns_responses_total Counter of response status codes.\n# TYPE coredns_dns_responses_total counter\n",
        );
        for (code, counter) in self.responses.iter().enumerate() {
            let count = counter.load(Ordering::Relaxed);
            if count > 0 || code == 0 {
                let code = name(code);
                let _ = writeln!(
                    text,
                    "coredns_dns_responses_total{{server=\"dns://:53\",zone=\".\",rcode=\"{code}\"}} {count}"
                );
            }
        }
        let count = self.autopath.load(Ordering::Relaxed);
        let _ = write!(
            text,
            "# HELP coredns_autopath_success_total Counter of requests that did autopath.\n\
             # TYPE coredns_autopath_success_total counter\ncoredns_autopath_success_total{{server=\"dns://:53\"}} {count}\n"
        );
        let count = self.forwarded.load(Ordering::Relaxed);
        let _ = write!(
            text,
            "# HELP coracle_dns_forwarded_total Counter of requests that other servers were asked for.\n\
             # TYPE coracle_dns_forwarded_total counter\ncoracle_dns_forwarded_total {count}\n"
        );
        text
    }
}

fn name(code: usize) -> &'static str {
    match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => "other",
    }
}
