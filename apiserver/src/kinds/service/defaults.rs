//! What a Service gets that the user left out (all but addresses, families and node ports).

use super::{is_externally_accessible, needs_health_check, service_type};
use crate::kinds::json::{child, fill, fill_zero, list_mut, text};
use crate::registry::ResourceKind;
use serde_json::Value;

/// Default number of seconds for which a client keeps its endpoint.
const AFFINITY_SECONDS: u32 = 10_800;

/// Fills in `spec` and the shape of `status`.
pub(in crate::kinds) fn default(_: &ResourceKind, service: &mut Value) {
    let Some(spec) = child(service, "spec") else { return };
    fill(spec, "type", "ClusterIP");
    fill(spec, "sessionAffinity", "None");
    if text(spec, "/sessionAffinity") == "ClientIP"
        && let Some(client_ip) = child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP"))
    {
        fill(client_ip, "timeoutSeconds", AFFINITY_SECONDS);
    }
    for port in list_mut(spec, "/ports") {
        fill(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or(Value::from(0));
        fill_zero(port, "targetPort", number);
    }
    let (kind, external) = (service_type(service).to_owned(), is_externally_accessible(service));
    let Some(spec) = child(service, "spec") else { return };
    if external {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
    // Zero means "none asked for" and is not written.
    if !needs_health_check(service) && service.pointer("/spec/healthCheckNodePort") == Some(&Value::from(0)) {
        crate::kinds::json::remove(service, "/spec/healthCheckNodePort");
    }
    if let Some(status) = child(service, "status") {
        child(status, "loadBalancer");
    }
    for ingress in list_mut(service, "/status/loadBalancer/ingress") {
        if !text(ingress, "/ip").is_empty() {
            fill(ingress, "ipMode", "VIP");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn defaulted(mut spec: Value) -> Value {
        let mut service = json!({"spec": spec.take()});
        default(&ResourceKind::new("", "v1", "Service", "services"), &mut service);
        service["spec"].take()
    }

    #[test]
    fn rule_2_1_a_service_gets_its_defaults() {
        assert_eq!(
            defaulted(json!({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]})),
            json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ports": [
                {"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}),
        );
        assert_eq!(
            defaulted(json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"})),
            json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Cluster",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}),
        );
        assert_eq!(
            defaulted(json!({"externalIPs": ["192.0.2.1"]}))["externalTrafficPolicy"],
            "Cluster",
            "reachable from outside, if only by externalIPs"
        );
        assert_eq!(
            defaulted(json!({"type": "ExternalName", "externalName": "a.b"})),
            json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"}),
        );
    }

    #[test]
    fn rule_2_4_the_mode_of_an_address_is_vip() {
        let mut service = json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "a.b"}]}}});
        default(&ResourceKind::new("", "v1", "Service", "services"), &mut service);
        let ingress = json!([{"ip": "1.2.3.4", "ipMode": "VIP"}, {"hostname": "a.b"}]);
        assert_eq!(service["status"]["loadBalancer"]["ingress"], ingress);
    }
}
