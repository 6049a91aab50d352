//! Service: what is filled in, what is wrong, what survives an update, and its line in a table.
//!
//! Addresses and node ports are given out in [`super::allocation`], inside the write's transaction.

mod defaults;
mod prepare;
mod validation;

pub(super) use defaults::default;
pub(super) use prepare::prepare;
pub(super) use validation::{errors, port_number_or_name, special_address, update_errors};

use super::json::{int, list, text, texts};
use super::table::{NONE, age, label_text, name};
use crate::registry::ResourceKind;
use jiff::Timestamp;
use serde_json::Value;

/// `spec.type`, with its default.
pub(super) fn service_type(service: &Value) -> &str {
    match text(service, "/spec/type") {
        "" => "ClusterIP",
        given => given,
    }
}

/// Whether the Service has no address of its own.
pub(super) fn is_headless(service: &Value) -> bool {
    text(service, "/spec/clusterIP") == "None"
        || list(service, "/spec/clusterIPs").first().and_then(Value::as_str) == Some("None")
}

/// Whether clients outside the cluster can reach it.
pub(super) fn is_externally_accessible(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
        || (service_type(service) == "ClusterIP" && !list(service, "/spec/externalIPs").is_empty())
}

/// Whether its ports are given node ports.
pub(super) fn needs_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Whether its nodes say by a port of their own if they hold an endpoint.
pub(super) fn needs_health_check(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local"
}

/// NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR.
pub(super) fn row(_: &ResourceKind, service: &Value, now: Timestamp) -> Vec<Value> {
    let cluster_ip = match list(service, "/spec/clusterIPs").first().and_then(Value::as_str) {
        None | Some("") => match text(service, "/spec/clusterIP") {
            "" => NONE,
            ip => ip,
        },
        Some(ip) => ip,
    };
    let ports: Vec<String> = list(service, "/spec/ports").iter().map(port_text).collect();
    let ports = if ports.is_empty() { NONE.to_owned() } else { ports.join(",") };
    vec![
        name(service),
        service_type(service).into(),
        cluster_ip.into(),
        external_ip(service).into(),
        ports.into(),
        age(service, now),
        label_text(service, "/spec/selector").into(),
    ]
}

fn port_text(port: &Value) -> String {
    let (number, protocol) = (int(port, "/port").unwrap_or_default(), text(port, "/protocol"));
    match int(port, "/nodePort") {
        Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let external = texts(service, "/spec/externalIPs");
    match service_type(service) {
        "ClusterIP" | "NodePort" if external.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let mut addresses: Vec<&str> = list(service, "/status/loadBalancer/ingress")
                .iter()
                .map(|ingress| match text(ingress, "/ip") {
                    "" => text(ingress, "/hostname"),
                    ip => ip,
                })
                .filter(|address| !address.is_empty())
                .collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses.extend(external);
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        _ => super::table::UNKNOWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rule_2_5_a_service_is_shown_as_kubectl_users_know_it() {
        let cases = [
            (
                json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 443, "protocol": "TCP"}]}),
                json!({}),
                ["ClusterIP", "10.96.0.1", "<none>", "443/TCP", "<none>"],
            ),
            (
                json!({"type": "NodePort", "clusterIPs": ["10.96.0.9"], "selector": {"b": "2", "a": "1"}, "ports": [
                    {"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP", "nodePort": 30053}]}),
                json!({}),
                ["NodePort", "10.96.0.9", "<none>", "80:30080/TCP,53:30053/UDP", "a=1,b=2"],
            ),
            (json!({"clusterIP": "None"}), json!({}), ["ClusterIP", "None", "<none>", "<none>", "<none>"]),
            (
                json!({"type": "LoadBalancer", "clusterIP": "10.96.0.8", "ports": [{"port": 80, "protocol": "TCP"}]}),
                json!({}),
                ["LoadBalancer", "10.96.0.8", "<pending>", "80/TCP", "<none>"],
            ),
            (
                json!({"type": "LoadBalancer", "clusterIP": "10.96.0.8", "externalIPs": ["192.0.2.1"]}),
                json!({"loadBalancer": {"ingress": [{"ip": "172.18.255.2"}, {"hostname": "a.example"}]}}),
                ["LoadBalancer", "10.96.0.8", "172.18.255.2,a.example,192.0.2.1", "<none>", "<none>"],
            ),
            (
                json!({"type": "ExternalName", "externalName": "db.example.com"}),
                json!({}),
                ["ExternalName", "<none>", "db.example.com", "<none>", "<none>"],
            ),
        ];
        for (spec, status, cells) in cases {
            let service = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status});
            let mut row = row(
                &ResourceKind::new("", "v1", "Service", "services"),
                &service,
                "2026-01-01T03:05:00Z".parse().unwrap(),
            );
            assert_eq!(row.remove(0), "web");
            assert_eq!(row.remove(4), "3h5m");
            assert_eq!(row, cells, "{service}");
        }
    }
}
