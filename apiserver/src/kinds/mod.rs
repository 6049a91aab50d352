//! The built-in kinds: one row of the [`Registry`] each.
//!
//! `rows` is the table itself; the other files hold what its rows point to, by noun: columns, defaults, validation and strategy of
//! a kind stand together. The handler calls them through [`crate::registry::ResourceKind`] only. The kinds a CustomResourceDefinition
//! declares are not here.
//!
//! Names, verbs and columns follow Kubernetes v1.36; the texts of field errors are those of its `validation` packages, since users search
//! for them.

use crate::registry::Registry;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

mod allocation;
mod autoscaling;
mod batch;
mod cluster_network_policy;
mod config;
mod cron;
mod endpoints;
mod event;
mod field;
mod ingress;
mod json;
mod limits;
pub(crate) mod metadata;
mod misc;
mod names;
mod network_policy;
mod node;
pub(crate) mod pod;
mod quantity;
mod rbac;
mod rows;
mod selector;
mod service;
pub(crate) mod strategy;
pub mod table;
mod volumes;
mod workload;

pub use names::{Cidr, NotACidr};

/// What the allocation of Service addresses and node ports goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networking {
    /// Where ClusterIPs come from: the primary family's network, then the other's if the cluster has both.
    pub service_cidrs: Vec<Cidr>,
    /// Where node ports come from.
    pub node_ports: RangeInclusive<u16>,
    /// Seed of the random choice.
    pub seed: u64,
    /// Whether Services may have both families; needs two networks.
    pub dual_stack: bool,
}

impl Default for Networking {
    /// 10.96.0.0/12 and 30000–32767, as kubeadm has them.
    fn default() -> Self {
        let primary = Cidr { address: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), prefix: 12 };
        Networking { service_cidrs: vec![primary], node_ports: 30000..=32767, seed: 0, dual_stack: false }
    }
}

/// Every built-in kind, in the order discovery shows them.
pub fn registry(networking: Networking) -> Registry {
    let allocator = Arc::new(allocation::Allocator::new(networking));
    Registry::new(rows::rows(&allocator))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::ResourceKind;
    use serde_json::Value;
    use std::sync::LazyLock;

    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| registry(Networking::default()));

    fn row(group: &str, kind: &str) -> &'static Arc<ResourceKind> {
        let mut rows = REGISTRY.iter().filter(|row| row.group == group && row.kind == kind);
        rows.next().unwrap_or_else(|| panic!("no row for {group}/{kind}"))
    }

    /// The errors of a write, after defaulting, as `field: message`.
    pub(super) fn said(group: &str, kind: &str, mut new: Value, old: Option<Value>) -> Vec<String> {
        let kind = row(group, kind);
        (kind.default)(kind, &mut new);
        let old = old.map(|mut old| {
            (kind.default)(kind, &mut old);
            old
        });
        let errors = kind.errors(&new, old.as_ref(), "");
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    /// The cells of an object, at 03:05 of the first of January 2026.
    pub(super) fn row_of(group: &str, kind: &str, object: &Value) -> String {
        let kind = row(group, kind);
        let cells = (kind.row)(kind, object, "2026-01-01T03:05:00Z".parse().expect("a timestamp"));
        assert_eq!(cells.len(), kind.columns.len(), "one cell per column");
        let cells: Vec<String> = cells
            .iter()
            .map(|cell| match cell {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
            .collect();
        cells.join(" | ")
    }
}
