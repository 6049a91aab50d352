//! The built-in load balancer: gives Services of type LoadBalancer an address from the pool.
//!
//! Only the address is given here; that packets to it are carried is the proxy's. Services with a `loadBalancerClass`
//! other than this one's are somebody else's and stay pending.

use crate::endpoint_slice::desired::{Family, families};
use crate::event::EventType;
use crate::queue::{Next, Queue};
use crate::session::{Error, Key, Result, Session};
use crate::{Config, Controller, Shared, follow, run};
use informer::{Informer, Update};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, PortStatus, Service, ServiceStatus};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use tokio::task::JoinSet;
use tracing::warn;

/// The class by which a Service may ask for this load balancer; without any class it gets it too.
const CLASS: &str = "net.coracle.dev/load-balancer";
const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

pub(crate) fn start(shared: &Shared, config: &Config, tasks: &mut JoinSet<()>) {
    let mut pools = vec![];
    for text in &config.load_balancer_pool {
        match Pool::parse(text) {
            Some(pool) => pools.push(pool),
            None => warn!(pool = text, "not an address block such as 172.18.255.0/24; left out"),
        }
    }
    let queue = Queue::new();
    let services = shared.informers.of::<Service>();
    tasks.spawn(follow(services.clone(), queue.clone(), {
        let services = services.clone();
        move |update| concerned(update, &services)
    }));
    tasks.spawn(run(shared.clone(), queue, LoadBalancerController { services, pools }));
}

/// A changed Service itself; and when it may have set an address free, all that wait for one.
fn concerned(update: &Update<Service>, services: &Informer<Service>) -> Vec<Key> {
    let service = update.object();
    let mut keys = vec![Key::of(&service.metadata)];
    let frees = matches!(update, Update::Deleted(_)) || !wants_address(service);
    if frees {
        let waiting = services.list().into_iter().filter(|other| wants_address(other) && addresses(other).is_empty());
        keys.extend(waiting.map(|other| Key::of(&other.metadata)));
    }
    keys
}

fn wants_address(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() == Some("LoadBalancer")
        && spec.load_balancer_class.as_deref().is_none_or(|class| class == CLASS)
        && service.metadata.deletion_timestamp.is_none()
}

/// The addresses the Service has now.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.iter().flat_map(|status| status.ingress.iter().flatten());
    ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect()
}

/// The addresses that a Service claims by itself.
fn external_ips(service: &Service) -> Vec<IpAddr> {
    let claimed = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten());
    claimed.filter_map(|ip| ip.parse().ok()).collect()
}

fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER)
}

struct LoadBalancerController {
    services: Informer<Service>,
    pools: Vec<Pool>,
}

impl Controller for LoadBalancerController {
    const NAME: &'static str = "service-controller";
    /// One at a time: an address is free until the informer shows who has it.
    const WORKERS: usize = 1;

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        if !wants_address(&service) {
            return self.release(session, &service).await;
        }
        if self.pools.is_empty() {
            return Ok(Next::OnChange);
        }
        let taken: BTreeSet<IpAddr> = self
            .services
            .list()
            .iter()
            .filter(|other| Key::of(&other.metadata) != *key)
            .flat_map(|other| addresses(other).into_iter().chain(external_ips(other)))
            .collect();
        let wanted = match assign(&service, &self.pools, &taken) {
            Ok(wanted) => wanted,
            Err(message) => {
                let text = format!("Error syncing load balancer: failed to ensure load balancer: {message}");
                session.event(&*service, EventType::Warning, "SyncLoadBalancerFailed", text);
                return Err(Error::Invalid(message));
            }
        };
        let status = ingress(&service, &wanted);
        let known = service.status.as_ref().and_then(|status| status.load_balancer.clone()).unwrap_or_default();
        if known == status && has_finalizer(&service) {
            return Ok(Next::OnChange);
        }
        session.event(&*service, EventType::Normal, "EnsuringLoadBalancer", "Ensuring load balancer".to_owned());
        let mut latest = (*service).clone();
        if !has_finalizer(&latest) {
            let mut finalizers = latest.metadata.finalizers.clone().unwrap_or_default();
            finalizers.push(FINALIZER.to_owned());
            latest = self.write_finalizers(session, &latest, &finalizers).await?;
        }
        latest.status = Some(ServiceStatus { load_balancer: Some(status), ..latest.status.unwrap_or_default() });
        session.replace_status(&latest).await?;
        session.event(&*service, EventType::Normal, "EnsuredLoadBalancer", "Ensured load balancer".to_owned());
        Ok(Next::OnChange)
    }
}

impl LoadBalancerController {
    /// Takes back what a Service that is no longer ours has from us.
    async fn release(&self, session: &Session, service: &Service) -> Result<Next> {
        if !has_finalizer(service) {
            return Ok(Next::OnChange);
        }
        session.event(service, EventType::Normal, "DeletingLoadBalancer", "Deleting load balancer".to_owned());
        let mut latest = service.clone();
        if !addresses(service).is_empty() && service.metadata.deletion_timestamp.is_none() {
            let status = latest.status.get_or_insert_default();
            status.load_balancer = Some(LoadBalancerStatus::default());
            latest = session.replace_status(&latest).await?;
        }
        let finalizers = latest.metadata.finalizers.iter().flatten().filter(|name| *name != FINALIZER).cloned();
        let finalizers: Vec<String> = finalizers.collect();
        match self.write_finalizers(session, &latest, &finalizers).await {
            Err(error) if error.is_not_found() => return Ok(Next::OnChange),
            written => drop(written?),
        }
        session.event(service, EventType::Normal, "DeletedLoadBalancer", "Deleted load balancer".to_owned());
        Ok(Next::OnChange)
    }

    async fn write_finalizers(&self, session: &Session, service: &Service, finalizers: &[String]) -> Result<Service> {
        let patch =
            json!({"metadata": {"resourceVersion": service.metadata.resource_version, "finalizers": finalizers}});
        session.merge(&service.metadata, patch).await
    }
}

fn ingress(service: &Service, addresses: &[IpAddr]) -> LoadBalancerStatus {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports: Vec<PortStatus> = ports
        .map(|port| PortStatus {
            port: port.port,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            error: None,
        })
        .collect();
    let ingress = addresses.iter().map(|ip| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ports: (!ports.is_empty()).then(|| ports.clone()),
        hostname: None,
    });
    LoadBalancerStatus { ingress: Some(ingress.collect()) }
}

/// One address per family: the one asked for, the one it has, or the first that is free.
fn assign(service: &Service, pools: &[Pool], taken: &BTreeSet<IpAddr>) -> std::result::Result<Vec<IpAddr>, String> {
    let asked: Option<IpAddr> =
        service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref()).and_then(|ip| ip.parse().ok());
    let present = addresses(service);
    let mut assigned = vec![];
    for family in families(service) {
        let of_family = |ip: &IpAddr| Family::of(*ip) == family;
        if let Some(ip) = asked.filter(of_family) {
            if taken.contains(&ip) {
                return Err(format!("spec.loadBalancerIP: Invalid value: \"{ip}\": address is already allocated"));
            }
            // Anything else would let who may write Services take over the addresses of nodes, pods and other Services.
            if !pools.iter().any(|pool| pool.has_usable(ip)) {
                let pools: Vec<String> = pools.iter().map(|pool| format!("{}/{}", pool.first, pool.prefix)).collect();
                return Err(format!(
                    "spec.loadBalancerIP: Invalid value: \"{ip}\": must be a usable address of the load balancer pool {}",
                    pools.join(", ")
                ));
            }
            assigned.push(ip);
            continue;
        }
        let mut own = pools.iter().filter(|pool| pool.family() == family).peekable();
        if own.peek().is_none() {
            continue; // another family may have a pool
        }
        let kept = present
            .iter()
            .copied()
            .filter(of_family)
            .find(|ip| !taken.contains(ip) && pools.iter().any(|pool| pool.contains(*ip)));
        match kept.or_else(|| own.flat_map(Pool::addresses).find(|ip| !taken.contains(ip))) {
            Some(ip) => assigned.push(ip),
            None => return Err(format!("no free {} address in the load balancer pool", family.as_str())),
        }
    }
    if assigned.is_empty() {
        return Err("no load balancer pool for the Service's IP families".to_owned());
    }
    Ok(assigned)
}

/// A block of addresses.
#[derive(Clone, Copy, Debug)]
struct Pool {
    first: IpAddr,
    prefix: u8,
}

impl Pool {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let first = match address {
            IpAddr::V4(ip) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
            }
            IpAddr::V6(ip) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Pool { first, prefix })
    }

    fn family(&self) -> Family {
        Family::of(self.first)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        Pool::parse(&format!("{ip}/{}", self.prefix)).is_some_and(|pool| pool.first == self.first)
    }

    /// Whether it may be given to a Service.
    fn has_usable(&self, ip: IpAddr) -> bool {
        let distance = match (self.first, ip) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => u128::from(ip.to_bits().wrapping_sub(first.to_bits())),
            (IpAddr::V6(first), IpAddr::V6(ip)) => ip.to_bits().wrapping_sub(first.to_bits()),
            _ => return false,
        };
        self.contains(ip) && self.offsets().contains(&distance)
    }

    /// The usable addresses: without the network's own and the broadcast address where there is room for such.
    fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let first = self.first;
        self.offsets().map(move |offset| match first {
            IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() + u32::try_from(offset).unwrap_or(0))),
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits().wrapping_add(offset))),
        })
    }

    /// How far the usable ones are from the first.
    fn offsets(&self) -> Range<u128> {
        let bits = if self.first.is_ipv4() { 32 } else { 128 } - u32::from(self.prefix);
        let size = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
        match self.first {
            IpAddr::V4(_) if size > 2 => 1..size - 1,
            IpAddr::V6(_) if size > 2 => 1..size,
            _ => 0..size,
        }
    }
}

#[cfg(test)]
mod tests {
    //! The rules of SEMANTICS 7.

    use super::*;
    use serde_json::Value;

    fn service(families: &[&str], ip: Option<&str>, has: Option<&str>) -> Service {
        let ingress: Vec<Value> = has.iter().map(|ip| json!({"ip": ip})).collect();
        let service = json!({"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "ipFamilies": families, "loadBalancerIP": ip},
            "status": {"loadBalancer": {"ingress": ingress}}});
        serde_json::from_value(service).expect("a Service")
    }

    fn given(service: &Service, pools: &[&str], taken: &[&str]) -> std::result::Result<Vec<String>, String> {
        let pools: Vec<Pool> = pools.iter().filter_map(|text| Pool::parse(text)).collect();
        let taken = taken.iter().map(|ip| ip.parse().expect("an address")).collect();
        assign(service, &pools, &taken).map(|ips| ips.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rule_7_1_a_service_of_another_class_is_left_alone() {
        let mut service = service(&["IPv4"], None, None);
        assert!(wants_address(&service));
        service.spec.as_mut().expect("a spec").load_balancer_class = Some("example.com/other".to_owned());
        assert!(!wants_address(&service));
        service.spec.as_mut().expect("a spec").load_balancer_class = Some(CLASS.to_owned());
        assert!(wants_address(&service), "its own class");
    }

    #[test]
    fn rule_7_2_the_first_free_address_of_each_family_is_given() {
        let pools = ["172.18.255.0/29", "fd00:1::/64"];
        assert_eq!(given(&service(&["IPv4"], None, None), &pools, &[]), Ok(vec!["172.18.255.1".to_owned()]));
        assert_eq!(
            given(&service(&["IPv4", "IPv6"], None, None), &pools, &["172.18.255.1"]),
            Ok(vec!["172.18.255.2".to_owned(), "fd00:1::1".to_owned()])
        );
    }

    #[test]
    fn rule_7_2_an_address_is_kept_and_one_asked_for_is_honoured_if_free() {
        let pools = ["172.18.255.0/29"];
        assert_eq!(
            given(&service(&["IPv4"], None, Some("172.18.255.5")), &pools, &[]),
            Ok(vec!["172.18.255.5".to_owned()])
        );
        let asked = |ip: &str, taken: &[&str]| given(&service(&["IPv4"], Some(ip), None), &pools, taken);
        assert_eq!(asked("172.18.255.3", &[]), Ok(vec!["172.18.255.3".to_owned()]));
        let taken = "spec.loadBalancerIP: Invalid value: \"172.18.255.3\": address is already allocated";
        assert_eq!(asked("172.18.255.3", &["172.18.255.3"]), Err(taken.to_owned()));
    }

    #[test]
    fn rule_7_2_an_address_that_is_asked_for_must_be_a_usable_one_of_the_pool() {
        for ip in ["172.18.0.1", "10.244.1.2", "172.18.255.0", "172.18.255.7", "172.18.255.8"] {
            let refused = given(&service(&["IPv4"], Some(ip), None), &["172.18.255.0/29"], &[]);
            let why = "must be a usable address of the load balancer pool 172.18.255.0/29";
            assert_eq!(refused, Err(format!("spec.loadBalancerIP: Invalid value: \"{ip}\": {why}")));
        }
    }

    #[test]
    fn rule_7_2_an_exhausted_pool_says_so() {
        let taken = ["172.18.255.1", "172.18.255.2"];
        let error = given(&service(&["IPv4"], None, None), &["172.18.255.0/30"], &taken).expect_err("no address left");
        assert_eq!(error, "no free IPv4 address in the load balancer pool");
    }

    #[test]
    fn pools_are_blocks_of_addresses() {
        let count = |text: &str| Pool::parse(text).map(|pool| pool.addresses().count());
        assert_eq!((count("10.0.0.0/30"), count("10.0.0.7/32"), count("10.0.0.6/31")), (Some(2), Some(1), Some(2)));
        for nonsense in ["10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129"] {
            assert!(Pool::parse(nonsense).is_none(), "{nonsense}");
        }
        assert!(Pool::parse("0.0.0.0/0").is_some_and(|pool| pool.contains("9.9.9.9".parse().expect("an address"))));
    }
}
