//! Names outside the zone: which servers are asked, how often, and what is remembered.

use crate::cache::Cache;
use crate::config::{Config, PORT};
use crate::query_log::Source;
use crate::upstream::{Answer, UpstreamError, exchange};
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// Questions that may wait for upstreams at the same time.
const MAX_WAITING: usize = 1024;

/// Where a name is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Nobody knows it.
    Nowhere,
    /// Only this server itself would be asked.
    Loop,
    /// These, in this order.
    To(Vec<SocketAddr>),
}

/// The way to the upstream servers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: Vec<SocketAddr>,
    /// The longest names first.
    stub_domains: Vec<(Name, Vec<SocketAddr>)>,
    own_addresses: Mutex<Vec<SocketAddr>>,
    timeout: Duration,
    tries: usize,
    cache: Mutex<Cache>,
    ids: Mutex<StdRng>,
    waiting: Semaphore,
    /// Questions that are being asked, each once; others who want to know wait for the same answer. So a question that comes
    /// back here, since an upstream asks this server in its turn, is not asked again and again: it ends with its time.
    asking: Mutex<HashMap<(Name, RecordType), Asking>>,
}

type Asking = watch::Receiver<Option<Result<Answer, UpstreamError>>>;

impl Forwarder {
    pub(crate) fn new(config: &Config) -> Forwarder {
        let stub_domain = |(domain, servers): &(String, Vec<SocketAddr>)| {
            let mut name = Name::from_ascii(domain).ok()?;
            name.set_fqdn(true);
            Some((name, servers.clone()))
        };
        let mut stub_domains: Vec<(Name, Vec<SocketAddr>)> =
            config.stub_domains.iter().filter_map(stub_domain).collect();
        stub_domains.sort_by_key(|(name, _)| std::cmp::Reverse(name.iter().count()));
        Forwarder {
            upstreams: config.upstreams.clone(),
            stub_domains,
            own_addresses: Mutex::new(config.own_addresses.clone()),
            timeout: config.upstream_timeout,
            tries: config.upstream_tries.max(1),
            cache: Mutex::new(Cache::new(config.cache)),
            ids: Mutex::new(StdRng::seed_from_u64(config.seed)),
            waiting: Semaphore::new(MAX_WAITING),
            asking: Mutex::default(),
        }
    }

    pub(crate) fn add_own_addresses(&self, addresses: Vec<SocketAddr>) {
        let mut own = self.own_addresses.lock();
        for address in addresses {
            if !own.contains(&address) {
                own.push(address);
            }
        }
    }

    /// Who is asked about a name. `service_ips` are the addresses of the Service in front of this server.
    pub(crate) fn route(&self, name: &Name, service_ips: &[IpAddr]) -> Route {
        let servers = self.stub_domain(name).unwrap_or(&self.upstreams);
        if servers.is_empty() {
            return Route::Nowhere;
        }
        let own = self.own_addresses.lock();
        let is_own =
            |server: &SocketAddr| own.contains(server) || server.port() == PORT && service_ips.contains(&server.ip());
        let others: Vec<SocketAddr> = servers.iter().filter(|server| !is_own(server)).copied().collect();
        if others.is_empty() { Route::Loop } else { Route::To(others) }
    }

    fn stub_domain(&self, name: &Name) -> Option<&Vec<SocketAddr>> {
        self.stub_domains.iter().find(|(domain, _)| domain.zone_of(name)).map(|(_, servers)| servers)
    }

    /// Whose servers a name is asked of.
    pub(crate) fn source(&self, name: &Name) -> Source {
        if self.stub_domain(name).is_some() { Source::StubDomain } else { Source::Upstream }
    }

    /// A remembered answer.
    pub(crate) fn cached(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        self.cache.lock().get(name, kind, Instant::now())
    }

    /// Asks the servers in turn until one answers, and remembers what it said.
    pub(crate) async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        servers: &[SocketAddr],
    ) -> Result<Answer, UpstreamError> {
        let _permit = self.waiting.try_acquire().map_err(|_| UpstreamError::Overload)?;
        let question = (name.clone(), kind);
        loop {
            let (teller, mut asking) = match self.asking.lock().entry(question.clone()) {
                Entry::Occupied(entry) => (None, entry.get().clone()),
                Entry::Vacant(entry) => {
                    let (teller, asking) = watch::channel(None);
                    (Some(teller), entry.insert(asking).clone())
                }
            };
            let Some(teller) = teller else {
                match asking.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(told)) => return told.clone(),
                    // Whoever asked has gone without an answer.
                    _ => continue,
                }
            };
            // Taken back even if this future is dropped.
            let _asked = Asked { forwarder: self, question: &question };
            let told = self.ask_servers(name, kind, servers).await;
            let _ = teller.send(Some(told.clone()));
            return told;
        }
    }

    async fn ask_servers(
        &self,
        name: &Name,
        kind: RecordType,
        servers: &[SocketAddr],
    ) -> Result<Answer, UpstreamError> {
        let question = Query::query(name.clone(), kind);
        let mut last = UpstreamError::TimedOut;
        for server in servers.iter().cycle().take(self.tries) {
            let id = self.ids.lock().random();
            match tokio::time::timeout(self.timeout, exchange(*server, &question, id)).await {
                Ok(Ok(answer)) => {
                    self.cache.lock().insert(name, kind, answer.clone(), Instant::now());
                    return Ok(answer);
                }
                // Every server of a list serves the same names: the refusal of the only one would not change.
                Ok(Err(error)) if servers.len() == 1 && error.code().is_some_and(is_final) => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => last = UpstreamError::TimedOut,
            }
        }
        Err(last)
    }
}

/// A question that is being asked, until this is dropped.
struct Asked<'a> {
    forwarder: &'a Forwarder,
    question: &'a (Name, RecordType),
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.forwarder.asking.lock().remove(self.question);
    }
}

/// Whether the same server would say the same again.
fn is_final(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::Refused | ResponseCode::NotImp | ResponseCode::FormErr | ResponseCode::NotAuth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn route(config: &Config, name: &str) -> Route {
        Forwarder::new(config).route(&Name::from_ascii(name).unwrap(), &["10.96.0.10".parse().unwrap()])
    }

    #[test]
    fn the_longest_stub_domain_wins_over_shorter_ones_and_upstreams() {
        let mut config = Config::new("cluster.local");
        config.upstreams = vec![at("192.0.2.1:53")];
        config.stub_domains = vec![
            ("corp".into(), vec![at("192.0.2.2:53")]),
            ("db.corp.".into(), vec![at("192.0.2.3:53")]),
            ("void".into(), vec![]),
        ];
        for (name, server) in [
            ("example.com.", "192.0.2.1:53"),
            ("notcorp.", "192.0.2.1:53"),
            ("Corp.", "192.0.2.2:53"),
            ("a.corp.", "192.0.2.2:53"),
            ("a.b.DB.corp.", "192.0.2.3:53"),
        ] {
            assert_eq!(route(&config, name), Route::To(vec![at(server)]), "{name}");
        }
        assert_eq!(route(&config, "a.void."), Route::Nowhere);
        assert_eq!(route(&Config::new("cluster.local"), "example.com."), Route::Nowhere);
    }

    #[test]
    fn an_own_address_among_the_upstreams_is_left_out_and_alone_it_is_a_loop() {
        let mut config = Config::new("cluster.local");
        config.own_addresses = vec![at("10.244.0.2:53")];
        config.upstreams = vec![at("10.96.0.10:53"), at("10.244.0.2:53")];
        assert_eq!(route(&config, "example.com."), Route::Loop);
        config.upstreams.push(at("10.244.0.2:5353"));
        assert_eq!(route(&config, "example.com."), Route::To(vec![at("10.244.0.2:5353")]));
    }
}
