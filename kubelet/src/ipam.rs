//! Pod addresses of one node: handed out from its podCIDR in turn, so that a freed one is not used again at once.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The addresses of one node's podCIDR. The first usable one is the node's own side (SEMANTICS 1.1) and never handed out.
#[derive(Debug)]
pub(crate) struct Ipam {
    first: u32,
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
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl Ipam {
    /// The addresses of `network`/`prefix` without network, node-side and broadcast addresses.
    pub(crate) fn new(network: Ipv4Addr, prefix: u8) -> Self {
        let size = 1u64 << (32 - u32::from(prefix.min(30)));
        let base = u32::from(network);
        let (first, last) = (base + 2, base + (size - 2) as u32);
        Ipam { first, last, state: Mutex::new(State { used: BTreeSet::new(), next: first }) }
    }

    /// A free address; `wanted` if that is one (a pod keeps its address over a restart of the cluster).
    pub(crate) fn allocate(&self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, Exhausted> {
        let mut state = self.state.lock();
        let wanted = wanted.map(u32::from).filter(|ip| (self.first..=self.last).contains(ip));
        if let Some(ip) = wanted
            && state.used.insert(ip)
        {
            return Ok(ip.into());
        }
        let next = state.next;
        let free = (next..=self.last).chain(self.first..next).find(|ip| !state.used.contains(ip));
        let ip = free.ok_or(Exhausted { first: self.first.into(), last: self.last.into() })?;
        state.used.insert(ip);
        state.next = if ip == self.last { self.first } else { ip + 1 };
        Ok(ip.into())
    }

    /// Gives an address back.
    pub(crate) fn release(&self, ip: Ipv4Addr) {
        self.state.lock().used.remove(&u32::from(ip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_address_is_handed_out_last_and_a_full_range_says_so() {
        let ipam = Ipam::new(Ipv4Addr::new(10, 244, 1, 0), 29);
        let all: Vec<Ipv4Addr> = (0..5).map(|_| ipam.allocate(None).expect("free")).collect();
        assert_eq!(all[0], Ipv4Addr::new(10, 244, 1, 2));
        assert_eq!(all[4], Ipv4Addr::new(10, 244, 1, 6));
        assert!(ipam.allocate(None).is_err());
        ipam.release(all[1]);
        ipam.release(all[3]);
        assert_eq!(ipam.allocate(Some(all[3])), Ok(all[3]));
        assert_eq!(ipam.allocate(Some(all[3])), Ok(all[1]));
    }
}
