//! What an update of a Service keeps although the user left it out, and what goes with its old type (`patchAllocatedValues` and
//! `dropTypeDependentFields` upstream).

use super::{is_externally_accessible, needs_health_check, needs_node_ports, service_type};
use crate::kinds::json::{carry_over, child, int, is_unset, list, list_mut, put, same, text};
use crate::kinds::strategy;
use crate::registry::ResourceKind;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// Drops the status on create, carries over allocated values on update.
pub(in crate::kinds) fn prepare(kind: &ResourceKind, new: &mut Value, old: Option<&Value>, subresource: &str) {
    strategy::prepare(kind, new, old, subresource);
    if subresource == "status" {
        return;
    }
    child(new, "spec");
    if let Some(old) = old {
        default_type_dependents(new);
        keep_allocated(new, old);
        sync_cluster_ips(new, Some(old));
        drop_with_type(new, old);
    } else {
        sync_cluster_ips(new, None);
    }
}

// The questions below are about the object as it will be; these two decide them.
fn default_type_dependents(service: &mut Value) {
    let external = is_externally_accessible(service);
    if let Some(spec) = child(service, "spec") {
        crate::kinds::json::fill(spec, "type", "ClusterIP");
        if external {
            crate::kinds::json::fill(spec, "externalTrafficPolicy", "Cluster");
        }
    }
}

fn needs_cluster_ip(service: &Value) -> bool {
    service_type(service) != "ExternalName"
}

fn keep_allocated(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        if is_unset(new, "/spec/clusterIP") && is_unset(new, "/spec/clusterIPs") {
            carry_over(new, old, "/spec/clusterIPs");
        }
        if is_unset(new, "/spec/clusterIP") {
            carry_over(new, old, "/spec/clusterIP");
        }
        if is_unset(new, "/spec/clusterIPs") && same(new, old, "/spec/clusterIP") {
            carry_over(new, old, "/spec/clusterIPs");
        }
        if is_unset(new, "/spec/ipFamilies") && is_unset(new, "/spec/ipFamilyPolicy") {
            carry_over(new, old, "/spec/ipFamilies");
            carry_over(new, old, "/spec/ipFamilyPolicy");
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        keep_node_ports(new, old);
    }
    if needs_health_check(old) && needs_health_check(new) && is_unset(new, "/spec/healthCheckNodePort") {
        carry_over(new, old, "/spec/healthCheckNodePort");
    }
}

fn node_ports(service: &Value) -> HashSet<i64> {
    list(service, "/spec/ports").iter().filter_map(|port| int(port, "/nodePort")).filter(|port| *port != 0).collect()
}

// By name, or by number and protocol where the name is new. A node port that the update gives to another port stays there.
fn keep_node_ports(new: &mut Value, old: &Value) {
    let given = node_ports(new);
    let old_ports = list(old, "/spec/ports");
    let by_name: HashMap<&str, i64> =
        old_ports.iter().filter_map(|port| Some((text(port, "/name"), int(port, "/nodePort")?))).collect();
    let key = |port: &Value| (int(port, "/port"), protocol(port).to_owned());
    let by_number: HashMap<_, i64> =
        old_ports.iter().filter_map(|port| Some((key(port), int(port, "/nodePort")?))).collect();
    for port in list_mut(new, "/spec/ports").iter_mut().filter(|port| is_unset(port, "/nodePort")) {
        let kept = by_name.get(text(port, "/name")).or_else(|| by_number.get(&key(port)));
        if let Some(kept) = kept.filter(|kept| **kept != 0 && !given.contains(kept)) {
            put(port, "nodePort", Some(json!(kept)));
        }
    }
}

fn protocol(port: &Value) -> &str {
    match text(port, "/protocol") {
        "" => "TCP",
        given => given,
    }
}

// `clusterIP` is `clusterIPs[0]`; a client which knows only the one need not know the other.
fn sync_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let Some(cluster_ip) =
        new.pointer("/spec/clusterIP").cloned().filter(|ip| ip.as_str().is_some_and(|ip| !ip.is_empty()))
    else {
        // The old address was taken away and nothing put in its place: then the list's first is stale too.
        if let Some(old) = old
            && !is_unset(old, "/spec/clusterIP")
            && !is_unset(new, "/spec/clusterIPs")
            && same(new, old, "/spec/clusterIPs")
        {
            put(&mut new["spec"], "clusterIPs", None);
        }
        return;
    };
    let changed_alone = old.is_some_and(|old| !same(new, old, "/spec/clusterIP") && same(new, old, "/spec/clusterIPs"));
    if is_unset(new, "/spec/clusterIPs") {
        put(&mut new["spec"], "clusterIPs", Some(json!([cluster_ip])));
    } else if changed_alone && let Some(first) = list_mut(new, "/spec/clusterIPs").first_mut() {
        *first = cluster_ip;
    }
}

// What the new type has no use for goes, if the user has not touched it; what he has touched is for validation to refuse.
fn drop_with_type(new: &mut Value, old: &Value) {
    let drop = |new: &mut Value, applies: fn(&Value) -> bool, fields: &[&str]| {
        if applies(old) && !applies(new) {
            for field in fields {
                if same(new, old, &format!("/spec/{field}")) {
                    put(&mut new["spec"], field, None);
                }
            }
        }
    };
    drop(new, needs_cluster_ip, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    drop(new, needs_health_check, &["healthCheckNodePort"]);
    drop(
        new,
        |service| service_type(service) == "LoadBalancer",
        &["loadBalancerClass", "allocateLoadBalancerNodePorts"],
    );
    drop(new, is_externally_accessible, &["externalTrafficPolicy"]);
    let has_ports = |service: &Value| matches!(service_type(service), "NodePort" | "LoadBalancer");
    if has_ports(old) && !has_ports(new) && node_ports(new).is_subset(&node_ports(old)) {
        for port in list_mut(new, "/spec/ports") {
            put(port, "nodePort", None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(old: Value, new: Value) -> Value {
        let (old, mut new) = (json!({"metadata": {}, "spec": old}), json!({"metadata": {}, "spec": new}));
        let kind = ResourceKind::new("", "v1", "Service", "services").with_status();
        prepare(&kind, &mut new, Some(&old), "");
        new["spec"].take()
    }

    #[test]
    fn rule_2_3_an_update_keeps_the_addresses_it_leaves_out() {
        let old = json!({"type": "ClusterIP", "clusterIP": "10.96.1.7", "clusterIPs": ["10.96.1.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
        let mut kept = old.clone();
        assert_eq!(prepared(old.clone(), json!({})), kept);
        kept["clusterIP"] = json!("10.96.1.8");
        kept["clusterIPs"] = json!(["10.96.1.8"]);
        assert_eq!(
            prepared(old, json!({"clusterIP": "10.96.1.8"}))["clusterIPs"],
            kept["clusterIPs"],
            "for validation to refuse"
        );
    }

    #[test]
    fn rule_2_3_an_update_keeps_the_node_ports_it_leaves_out() {
        let old = json!({"type": "NodePort", "ports": [
            {"name": "a", "port": 80, "protocol": "TCP", "nodePort": 30100}, {"name": "b", "port": 81, "protocol": "TCP", "nodePort": 30101}]});
        let ports = |new: Value| -> Vec<i64> {
            let spec = prepared(old.clone(), json!({"type": "NodePort", "ports": new}));
            list(&spec, "/ports").iter().map(|port| int(port, "/nodePort").unwrap_or_default()).collect()
        };
        assert_eq!(ports(json!([{"name": "b", "port": 81}, {"name": "a", "port": 8080}])), [30101, 30100], "by name");
        assert_eq!(ports(json!([{"name": "renamed", "port": 80}])), [30100], "by number and protocol");
        assert_eq!(ports(json!([{"name": "renamed", "port": 80, "protocol": "UDP"}])), [0]);
        assert_eq!(
            ports(json!([{"name": "a", "port": 80}, {"name": "c", "port": 82, "nodePort": 30100}])),
            [0, 30100],
            "given away"
        );
    }

    #[test]
    fn rule_2_3_the_health_check_port_stays_while_it_is_needed() {
        let old = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000});
        let new = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
        assert_eq!(prepared(old.clone(), new)["healthCheckNodePort"], 31000);
        let mut cluster = old.clone();
        cluster["externalTrafficPolicy"] = json!("Cluster");
        assert_eq!(prepared(old, cluster).get("healthCheckNodePort"), None);
    }

    #[test]
    fn rule_2_3_a_change_of_type_drops_what_the_new_type_does_not_use() {
        let balancer = json!({"type": "LoadBalancer", "clusterIP": "10.96.1.7", "clusterIPs": ["10.96.1.7"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true, "loadBalancerClass": "a/b", "ports": [{"port": 80, "nodePort": 30100}]});
        let with_type = |kind: &str| {
            let mut new = balancer.clone();
            new["type"] = json!(kind);
            prepared(balancer.clone(), new)
        };
        assert_eq!(
            with_type("ClusterIP"),
            json!({"type": "ClusterIP", "clusterIP": "10.96.1.7", "clusterIPs": ["10.96.1.7"], "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "ports": [{"port": 80}]})
        );
        assert_eq!(with_type("ExternalName"), json!({"type": "ExternalName", "ports": [{"port": 80}]}));
        let node_port = with_type("NodePort");
        assert_eq!(node_port.get("loadBalancerClass"), None);
        assert_eq!(node_port["ports"][0]["nodePort"], 30100, "still used");
    }

    #[test]
    fn rule_2_3_what_the_user_changed_is_not_dropped() {
        let old = json!({"type": "NodePort", "clusterIP": "10.96.1.7", "clusterIPs": ["10.96.1.7"]});
        let new = json!({"type": "ExternalName", "clusterIP": "10.96.1.8", "clusterIPs": ["10.96.1.8"]});
        assert_eq!(prepared(old, new)["clusterIP"], "10.96.1.8");
    }

    #[test]
    fn rule_2_4_the_status_subresource_leaves_the_spec_alone() {
        let kind = ResourceKind::new("", "v1", "Service", "services").with_status();
        let old = json!({"metadata": {}, "spec": {"clusterIP": "10.96.1.7"}, "status": {"loadBalancer": {}}});
        let mut new = json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
        prepare(&kind, &mut new, Some(&old), "status");
        assert_eq!(new["spec"], old["spec"]);
        assert_eq!(new["status"]["loadBalancer"]["ingress"][0]["ip"], "1.2.3.4");
    }
}
