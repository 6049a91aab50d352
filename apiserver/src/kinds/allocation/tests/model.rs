//! The allocator against a naive model: sets of what is taken, over any sequence of creates, updates and deletes.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One write of one of a few Services.
#[derive(Clone, Debug)]
struct Step {
    name: usize,
    kind: &'static str,
    policy: &'static str,
    /// The address asked for, as an offset into the first network.
    address: Option<u8>,
    node_port: Option<u16>,
    local: bool,
    delete: bool,
}

const PORTS: RangeInclusive<u16> = 30000..=30023;

fn step() -> impl Strategy<Value = Step> {
    let kinds = prop::sample::select(vec!["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "None"]);
    let policies = prop::sample::select(vec!["", "SingleStack", "PreferDualStack", "RequireDualStack"]);
    let address = prop::option::weighted(0.3, 0_u8..33);
    let node_port =
        prop::option::weighted(0.3, prop::sample::select(vec![29999_u16, 30000, 30001, 30010, 30023, 30024]));
    (0..24_usize, kinds, policies, address, node_port, any::<bool>(), prop::bool::weighted(0.25)).prop_map(
        |(name, kind, policy, address, node_port, local, delete)| Step {
            name,
            kind,
            policy,
            address,
            node_port,
            local,
            delete,
        },
    )
}

fn spec(step: &Step) -> Value {
    let mut port = json!({"port": 80});
    let mut spec = json!({"selector": {"app": "web"}, "type": step.kind});
    if let Some(node_port) = step.node_port.filter(|_| matches!(step.kind, "NodePort" | "LoadBalancer")) {
        port["nodePort"] = node_port.into();
    }
    spec["ports"] = json!([port]);
    match step.kind {
        "ExternalName" => spec["externalName"] = "a.b".into(),
        "None" => {
            spec["type"] = "ClusterIP".into();
            spec["clusterIP"] = "None".into();
        }
        _ => {
            if let Some(offset) = step.address {
                spec["clusterIP"] = format!("10.96.0.{offset}").into();
            }
            if !step.policy.is_empty() {
                spec["ipFamilyPolicy"] = step.policy.into();
            }
            if step.kind == "LoadBalancer" && step.local {
                spec["externalTrafficPolicy"] = "Local".into();
            }
        }
    }
    spec
}

/// What a Service holds by its own words, said without the allocator's code.
fn held(service: &Value) -> (BTreeSet<String>, BTreeSet<i64>) {
    let spec = &service["spec"];
    let ips = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str).filter(|ip| *ip != "None");
    let ports = spec["ports"].as_array().into_iter().flatten().filter_map(|port| port["nodePort"].as_i64());
    (ips.map(str::to_owned).collect(), ports.chain(spec["healthCheckNodePort"].as_i64()).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn rules_3_1_to_3_9_hold_over_any_sequence_of_writes(steps in prop::collection::vec(step(), 1..70)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // 30 addresses, of which the first is the API server's; 24 node ports.
            let mut networking = networking(&["10.96.0.0/27", "fd00::/123"]);
            networking.node_ports = PORTS;
            let cluster = Cluster { store: MemoryStore::new(), allocator: Allocator::new(networking) };
            let mut services: BTreeMap<usize, Value> = BTreeMap::new();
            for step in steps {
                let others: Vec<_> = services.iter().filter(|(name, _)| **name != step.name).map(|(_, service)| held(service)).collect();
                let taken_ips: BTreeSet<&String> = others.iter().flat_map(|(ips, _)| ips).collect();
                let taken_ports: BTreeSet<&i64> = others.iter().flat_map(|(_, ports)| ports).collect();
                let before = cluster.keys().await;
                let name = format!("s{}", step.name);
                let old = services.get(&step.name).cloned();
                if step.delete {
                    if let Some(old) = services.remove(&step.name) {
                        cluster.delete(&old).await;
                    }
                } else {
                    // An update may not move the primary address; validation sees to that, so the model keeps to it.
                    let mut spec = spec(&step);
                    let kept = old.as_ref().and_then(|old| old["spec"]["clusterIP"].as_str());
                    match kept {
                        Some(kept) if step.kind != "ExternalName" => spec["clusterIP"] = kept.into(),
                        _ => {}
                    }
                    if kept == Some("None") && step.kind != "ExternalName" {
                        spec["type"] = "ClusterIP".into();
                        spec["ports"] = json!([{"port": 80}]);
                        spec["externalTrafficPolicy"].take();
                    }
                    let wanted_ip = spec["clusterIP"].as_str().filter(|ip| *ip != "None" && kept.is_none()).map(str::to_owned);
                    let wanted_port = spec["ports"][0]["nodePort"].as_i64();
                    let outside = |ip: &str| matches!(ip, "10.96.0.0" | "10.96.0.31" | "10.96.0.32");
                    let bad_ip = wanted_ip.as_ref().is_some_and(|ip| outside(ip) || taken_ips.contains(ip));
                    let bad_port = wanted_port.is_some_and(|port| !(30000..=30023).contains(&port) || taken_ports.contains(&port));
                    let own = old.as_ref().map(held).unwrap_or_default().1;
                    let checked = old.as_ref().and_then(|old| old["spec"]["healthCheckNodePort"].as_i64());
                    let still_checked = checked.is_some() && spec["externalTrafficPolicy"] == "Local";
                    let bad_port = bad_port || (still_checked && wanted_port == checked);
                    match cluster.write(&name, old.as_ref(), spec).await {
                        Ok(service) => {
                            prop_assert!(!bad_ip && !bad_port, "{step:?} was granted: {service}");
                            let (ips, ports) = held(&service);
                            prop_assert!(ips.iter().all(|ip| !taken_ips.contains(ip)), "given twice: {service}");
                            prop_assert!(ports.iter().all(|port| !taken_ports.contains(port)), "given twice: {service}");
                            prop_assert!(ports.iter().all(|port| (30000..=30023).contains(port)));
                            let families = service["spec"]["ipFamilies"].as_array().map_or(0, Vec::len);
                            if !ips.is_empty() {
                                prop_assert_eq!(families, ips.len());
                                prop_assert_eq!(&service["spec"]["clusterIP"], &service["spec"]["clusterIPs"][0]);
                            }
                            services.insert(step.name, service);
                        }
                        Err(status) => {
                            // It may need two ports while it still has its old ones.
                            let full = taken_ports.len() + own.len() >= 23;
                            let downgrade = status.message.contains("must be 'SingleStack'");
                            prop_assert!(bad_ip || bad_port || downgrade || (full && status.code == 500), "{step:?}: {status:?}");
                            prop_assert_eq!(cluster.keys().await, before, "a refused write leaves nothing behind");
                        }
                    }
                }
                // What is reserved is what the Services hold: nothing leaks, nothing is missing.
                let mut expected: Vec<String> = services.values().map(held).flat_map(|(ips, ports)| {
                    let ips = ips.into_iter().map(|ip| format!("ipaddresses.networking.k8s.io/{ip}"));
                    ips.chain(ports.into_iter().map(|port| format!("nodeports/{port}"))).collect::<Vec<_>>()
                }).collect();
                expected.sort();
                prop_assert_eq!(cluster.keys().await, expected);
            }
            Ok(())
        })?;
    }
}
