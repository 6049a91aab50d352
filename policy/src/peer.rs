//! The peers of rules, compiled.

use crate::domain_name::DomainName;
use crate::endpoint::Identity;
use crate::selector::{Scope, Selector};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer};
use std::net::IpAddr;

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Pods.
    Pods(Scope),
    /// Addresses.
    Block(Block),
    /// Nodes, by the addresses in their status.
    Nodes(Selector),
    /// Addresses that a name has been answered with.
    Name(DomainName),
    /// Nothing: what the API would not have let through.
    Nothing,
}

/// `ipBlock`: a range less some parts of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) cidr: IpNet,
    pub(crate) except: Vec<IpNet>,
}

impl Peer {
    pub(crate) fn compile(peer: &NetworkPolicyPeer) -> Peer {
        if let Some(block) = &peer.ip_block {
            return Block::compile(block).map_or(Peer::Nothing, Peer::Block);
        }
        let namespaces = peer.namespace_selector.as_ref().map(Selector::compile);
        match &peer.pod_selector {
            None if namespaces.is_none() => Peer::Nothing,
            pods => Peer::Pods(Scope { namespaces, pods: pods.as_ref().map(Selector::compile).unwrap_or_default() }),
        }
    }

    /// Whether it selects this pod, in a policy of namespace `own`.
    pub(crate) fn selects(&self, identity: &Identity, own: &str) -> bool {
        matches!(self, Peer::Pods(scope) if scope.selects(identity, own))
    }
}

impl Block {
    /// A range without exceptions.
    pub(crate) fn whole(cidr: &str) -> Option<Block> {
        Some(Block { cidr: cidr.parse::<IpNet>().ok()?.trunc(), except: Vec::new() })
    }

    fn compile(block: &IPBlock) -> Option<Block> {
        let except = block.except.iter().flatten().map(|range| range.parse::<IpNet>().map(|range| range.trunc()));
        // A part that cannot be read must not be let through by leaving it out.
        Some(Block { cidr: block.cidr.parse::<IpNet>().ok()?.trunc(), except: except.collect::<Result<_, _>>().ok()? })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(&address) && !self.except.iter().any(|range| range.contains(&address))
    }
}
