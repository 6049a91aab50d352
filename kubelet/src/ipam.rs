//! Pod addresses of one node: handed out from its podCIDRs in turn, so that a freed one is not used again at once.
//!
//! A pod has the same number in the network of each family: 10.244.1.5 and fd00:10:244:1::5. So what is free in one is free in the
//! other, and a node whose cluster becomes dual-stack gives its pods the second address that goes with the first.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The number of the node's own side in each of its networks (SEMANTICS 1.1): never handed out, nor is the network's own, 0.
const FIRST: u32 = 2;

/// The addresses of one node's podCIDRs.
#[derive(Debug)]
pub(crate) struct Ipam {
    networks: Vec<IpAddr>,
    last: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    used: BTreeSet<u32>,
    next: u32,
}

/// Every address is in use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no free address between {first} and {last}: the node's podCIDR is exhausted")]
pub(crate) struct Exhausted {
    first: IpAddr,
    last: IpAddr,
}

impl Ipam {
    /// The addresses of these networks, one of each family, without network, node-side and broadcast addresses.
    pub(crate) fn new(networks: &[(IpAddr, u8)]) -> Self {
        let last = |(address, prefix): &(IpAddr, u8)| {
            let bits = if address.is_ipv4() { 32 } else { 128 } - u32::from((*prefix).min(126));
            // The last address of an IPv4 network is its broadcast address; an IPv6 network has more than a node ever uses.
            u32::try_from((1_u128 << bits.clamp(2, 32)) - 2).unwrap_or(u32::MAX)
        };
        let last = networks.iter().map(last).min().unwrap_or(0);
        let networks = networks.iter().map(|(address, _)| *address).collect();
        Ipam { networks, last, state: Mutex::new(State { used: BTreeSet::new(), next: FIRST }) }
    }

    /// A free address of each family, the primary first; those of `wanted` if they are free (a pod keeps its addresses over a restart
    /// of the cluster).
    pub(crate) fn allocate(&self, wanted: &[IpAddr]) -> Result<Vec<IpAddr>, Exhausted> {
        let mut state = self.state.lock();
        let kept = wanted.iter().find_map(|ip| self.number(*ip)).filter(|number| state.used.insert(*number));
        if let Some(number) = kept {
            return Ok(self.addresses(number));
        }
        let next = state.next;
        let free = (next..=self.last).chain(FIRST..next).find(|number| !state.used.contains(number));
        let Some(number) = free else {
            let primary = |number| self.addresses(number).first().copied().unwrap_or(IpAddr::from([0; 4]));
            return Err(Exhausted { first: primary(FIRST), last: primary(self.last) });
        };
        state.used.insert(number);
        state.next = if number == self.last { FIRST } else { number + 1 };
        Ok(self.addresses(number))
    }

    /// Gives a pod's addresses back.
    pub(crate) fn release(&self, ips: &[IpAddr]) {
        if let Some(number) = ips.iter().find_map(|ip| self.number(*ip)) {
            self.state.lock().used.remove(&number);
        }
    }

    fn addresses(&self, number: u32) -> Vec<IpAddr> {
        let nth = |network: &IpAddr| match network {
            IpAddr::V4(network) => IpAddr::V4((network.to_bits() + number).into()),
            IpAddr::V6(network) => IpAddr::V6((network.to_bits() + u128::from(number)).into()),
        };
        self.networks.iter().map(nth).collect()
    }

    fn number(&self, ip: IpAddr) -> Option<u32> {
        let numbers = self.networks.iter().filter_map(|network| match (network, ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => ip.to_bits().checked_sub(network.to_bits()),
            (IpAddr::V6(network), IpAddr::V6(ip)) => u32::try_from(ip.to_bits().checked_sub(network.to_bits())?).ok(),
            _ => None,
        });
        numbers.into_iter().find(|number| (FIRST..=self.last).contains(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_freed_address_is_handed_out_last_and_a_full_range_says_so() {
        let ipam = Ipam::new(&[(ip("10.244.1.0"), 29)]);
        let all: Vec<Vec<IpAddr>> = (0..5).map(|_| ipam.allocate(&[]).expect("free")).collect();
        assert_eq!(all[0], [ip("10.244.1.2")]);
        assert_eq!(all[4], [ip("10.244.1.6")]);
        let error = ipam.allocate(&[]).expect_err("none left").to_string();
        assert_eq!(error, "no free address between 10.244.1.2 and 10.244.1.6: the node's podCIDR is exhausted");
        ipam.release(&all[1]);
        ipam.release(&all[3]);
        assert_eq!(ipam.allocate(&all[3]).as_ref(), Ok(&all[3]));
        assert_eq!(ipam.allocate(&all[3]).as_ref(), Ok(&all[1]));
    }

    #[test]
    fn rule_1_1_a_pod_of_a_dual_stack_node_has_an_address_of_each_family() {
        let ipam = Ipam::new(&[(ip("10.244.1.0"), 24), (ip("fd00:10:244:1::"), 64)]);
        assert_eq!(ipam.allocate(&[]), Ok(vec![ip("10.244.1.2"), ip("fd00:10:244:1::2")]));
        // A pod of a cluster that was single-stack before keeps what it has.
        assert_eq!(ipam.allocate(&[ip("10.244.1.254")]), Ok(vec![ip("10.244.1.254"), ip("fd00:10:244:1::fe")]));
        ipam.release(&[ip("10.244.1.254"), ip("fd00:10:244:1::fe")]);
        assert_eq!(ipam.allocate(&[ip("fd00:10:244:1::fe")]).map(|ips| ips[0]), Ok(ip("10.244.1.254")));
        // Neither the node's own side nor another node's.
        for other in ["10.244.1.1", "10.244.2.9", "10.244.1.255", "fd00:10:244:2::9"] {
            let ips = ipam.allocate(&[ip(other)]).expect("free");
            assert!(!ips.contains(&ip(other)), "{ips:?}");
        }
    }
}
