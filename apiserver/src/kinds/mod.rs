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

mod admin_network_policy;
mod allocation;
mod autoscaling;
mod batch;
mod cluster_network_policy;
mod config;
mod cron;
mod definition;
mod devices;
mod endpoints;
mod event;
mod extensions;
pub(crate) mod field;
mod flow_control;
mod ingress;
pub(crate) mod json;
mod limits;
pub(crate) mod metadata;
mod metrics;
mod misc;
mod names;
mod network_policy;
mod node;
pub(crate) mod pod;
mod quantity;
mod quota;
mod rbac;
mod rows;
mod selector;
mod service;
pub(crate) mod signing_request;
mod storage;
pub(crate) mod strategy;
pub mod table;
mod volumes;
mod warnings;
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
    use proptest::prelude::*;
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

    /// Any JSON made of words that stand in objects, so that deep paths are reached with values of the wrong type.
    fn odd_json() -> impl Strategy<Value = Value> {
        const WORDS: [&str; 34] = [
            "metadata",
            "spec",
            "status",
            "name",
            "labels",
            "annotations",
            "ownerReferences",
            "finalizers",
            "ports",
            "port",
            "targetPort",
            "nodePort",
            "protocol",
            "type",
            "clusterIP",
            "clusterIPs",
            "selector",
            "template",
            "containers",
            "env",
            "valueFrom",
            "resources",
            "limits",
            "cpu",
            "volumes",
            "ingress",
            "from",
            "ipBlock",
            "cidr",
            "rules",
            "subsets",
            "addresses",
            "endpoints",
            "data",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop::sample::select(vec![
                "",
                "a",
                "None",
                "10.0.0.1",
                "80%",
                "1Gi",
                "LoadBalancer",
                "2026-01-01T00:00:00Z",
                "ä/ö"
            ])
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((prop::sample::select(WORDS.to_vec()), inner), 0..6).prop_map(|fields| {
                    Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_object_is_so_odd_that_a_row_panics(
            spec in odd_json(),
            rest in prop::collection::hash_map("[a-z]{1,3}|metadata|status|data|subsets|endpoints|subjects", odd_json(), 0..4),
            old in odd_json(),
        ) {
            let mut new: Value = Value::Object(rest.into_iter().collect());
            new["spec"] = spec;
            let old = if old.is_object() { old } else { serde_json::json!({ "spec": old }) };
            for kind in REGISTRY.iter() {
                for (old, subresource) in [(None, ""), (Some(&old), ""), (Some(&old), "status"), (Some(&old), "resize")] {
                    let mut new = new.clone();
                    (kind.prepare)(kind, &mut new, old, subresource);
                    (kind.default)(kind, &mut new);
                    kind.errors(&new, old, subresource);
                    let row = (kind.row)(kind, &new, jiff::Timestamp::UNIX_EPOCH);
                    prop_assert_eq!(row.len(), kind.columns.len());
                    if let Some(view) = &kind.view_of {
                        (view.to_stored)(&mut new);
                        (view.from_stored)(&mut new);
                    }
                }
            }
        }
    }

    #[test]
    fn a_name_leads_to_one_row_and_every_status_can_be_written() {
        let mut names = std::collections::HashSet::new();
        for row in REGISTRY.iter() {
            assert!(names.insert((row.group.clone(), row.version.clone(), row.plural.clone())), "{row:?} stands twice");
            assert_eq!(row.scale.is_some(), row.has_subresource("scale"), "{row:?}");
            assert!(row.columns.iter().any(|column| column.format == "name"), "{row:?} shows its name");
        }
    }
}
