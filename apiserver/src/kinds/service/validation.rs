//! What is wrong with a Service.

use super::{is_externally_accessible, is_headless, needs_health_check, service_type};
use crate::kinds::field::{complaints, invalid, one_of};
use crate::kinds::json::{int, is_unset, list, object, present, text, texts};
use crate::kinds::{metadata, names};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::IpAddr;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

/// Everything wrong with `service`.
pub(in crate::kinds) fn errors(kind: &ResourceKind, service: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, service, old);
    let all = &mut errors;
    by_type(service, all);
    ports(service, all);
    metadata::labels("spec.selector", object(service, "/spec/selector").into_iter().flatten(), all);
    affinity(service, all);
    cluster_ips(service, all);
    external_ips(service, all);
    one_of(all, "spec.type", service_type(service), &TYPES);
    load_balancer(service, all);
    traffic_policies(service, all);
    errors
}

/// What an update may not change.
pub(in crate::kinds) fn update_errors(_: &ResourceKind, new: &Value, old: &Value, _: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if service_type(new) == "LoadBalancer"
        && service_type(old) == "LoadBalancer"
        && !crate::kinds::json::same(new, old, "/spec/loadBalancerClass")
    {
        let class = new.pointer("/spec/loadBalancerClass").unwrap_or(&Value::Null);
        errors.push(FieldError::invalid("spec.loadBalancerClass", class, "may not change once set"));
    }
    let external_name = |service: &Value| service_type(service) == "ExternalName";
    if external_name(new) || external_name(old) || (is_headless(new) && is_headless(old)) {
        return errors;
    }
    let (new_ips, old_ips) = (texts(new, "/spec/clusterIPs"), texts(old, "/spec/clusterIPs"));
    for (index, old_ip) in old_ips.iter().enumerate() {
        let field = format!("spec.clusterIPs[{index}]");
        match new_ips.get(index) {
            Some(new_ip) if new_ip == old_ip => {}
            Some(_) => errors.push(FieldError::invalid(field, &json!(new_ips), "may not change once set")),
            None if index == 0 => {
                errors.push(FieldError::invalid(field, &json!(new_ips), "primary clusterIP can not be unset"));
            }
            None if text(new, "/spec/ipFamilyPolicy") != "SingleStack" => errors.push(invalid(
                "spec.ipFamilyPolicy",
                text(new, "/spec/ipFamilyPolicy"),
                "must be set to 'SingleStack' when releasing the secondary clusterIP",
            )),
            None => {}
        }
    }
    let (new_families, old_families) = (texts(new, "/spec/ipFamilies"), texts(old, "/spec/ipFamilies"));
    for (index, old_family) in old_families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        match new_families.get(index) {
            // Left out, they are derived from the addresses, which have been looked at already.
            None => {}
            Some(new_family) if new_family == old_family => {}
            Some(_) => errors.push(FieldError::invalid(field, &json!(new_families), "may not change once set")),
        }
    }
    errors
}

fn by_type(service: &Value, errors: &mut Vec<FieldError>) {
    let kind = service_type(service);
    if list(service, "/spec/ports").is_empty() && !is_headless(service) && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(service) => errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            &json!("None"),
            format!("may not be set to 'None' for {kind} services"),
        )),
        "LoadBalancer" => {
            for (index, port) in list(service, "/spec/ports").iter().enumerate() {
                if int(port, "/port") == Some(10250) {
                    let detail = "may not expose port 10250 externally since it is used by kubelet";
                    errors.push(FieldError::invalid(format!("spec.ports[{index}]"), &json!(10250), detail));
                }
            }
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !is_unset(service, &format!("/spec/{field}")) {
                    let detail = "may not be set for ExternalName services";
                    errors.push(FieldError::forbidden(format!("spec.{field}"), detail));
                }
            }
            let name = text(service, "/spec/externalName");
            // A trailing dot says that the name is fully qualified.
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.push(FieldError::required("spec.externalName", ""));
            } else {
                errors.extend(complaints("spec.externalName", name, names::dns_subdomain(name)));
            }
        }
        _ => {}
    }
}

fn ports(service: &Value, errors: &mut Vec<FieldError>) {
    let ports = list(service, "/spec/ports");
    let (mut port_names, mut pairs, mut node_pairs) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (index, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let (name, protocol) = (text(port, "/name"), text(port, "/protocol"));
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(format!("{field}.name"), ""));
            }
        } else {
            errors.extend(complaints(&format!("{field}.name"), name, names::dns_label(name)));
            if !port_names.insert(name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
            }
        }
        let number = int(port, "/port").unwrap_or_default();
        if let Some(complaint) = names::port_number(number) {
            errors.push(FieldError::invalid(format!("{field}.port"), &json!(number), complaint));
        }
        if protocol.is_empty() {
            errors.push(FieldError::required(format!("{field}.protocol"), ""));
        } else {
            one_of(errors, format!("{field}.protocol"), protocol, &PROTOCOLS);
        }
        errors.extend(port_number_or_name(&format!("{field}.targetPort"), port.get("targetPort")));
        if let Some(application) = present(port, "/appProtocol").and_then(Value::as_str) {
            errors.extend(complaints(&format!("{field}.appProtocol"), application, names::qualified_name(application)));
        }
        if !pairs.insert((protocol, number)) {
            errors.push(FieldError::duplicate(&field, &json!({"port": number, "protocol": protocol})));
        }
        let node_port = int(port, "/nodePort").unwrap_or_default();
        if node_port != 0 {
            let field = format!("{field}.nodePort");
            if !matches!(service_type(service), "NodePort" | "LoadBalancer") {
                errors.push(FieldError::forbidden(
                    &field,
                    format!("may not be used when `type` is '{}'", service_type(service)),
                ));
            }
            if !node_pairs.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(&field, &json!(node_port)));
            }
        }
    }
}

/// A port given by number or by name.
pub(in crate::kinds) fn port_number_or_name(field: &str, port: Option<&Value>) -> Vec<FieldError> {
    match port {
        Some(Value::String(name)) => complaints(field, name, names::port_name(name)).collect(),
        Some(number) => names::port_number(number.as_i64().unwrap_or_default())
            .map(|complaint| FieldError::invalid(field, number, complaint))
            .into_iter()
            .collect(),
        None => names::port_number(0)
            .map(|complaint| FieldError::invalid(field, &json!(0), complaint))
            .into_iter()
            .collect(),
    }
}

fn affinity(service: &Value, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "spec.sessionAffinityConfig";
    let affinity = match text(service, "/spec/sessionAffinity") {
        "" => "None",
        given => given,
    };
    one_of(errors, "spec.sessionAffinity", affinity, &["ClientIP", "None"]);
    let config = present(service, "/spec/sessionAffinityConfig");
    match (affinity, config) {
        ("None", Some(_)) => {
            errors.push(FieldError::forbidden(FIELD, "must not be set when session affinity is None"));
        }
        ("ClientIP", None) => errors.push(FieldError::required(FIELD, "when session affinity type is ClientIP")),
        ("ClientIP", Some(config)) => match int(config, "/clientIP/timeoutSeconds") {
            Some(1..=86_400) => {}
            Some(seconds) => errors.push(FieldError::invalid(
                format!("{FIELD}.clientIP.timeoutSeconds"),
                &json!(seconds),
                "must be greater than 0 and less than 86400",
            )),
            None => errors.push(FieldError::required(
                format!("{FIELD}.clientIP.timeoutSeconds"),
                "when session affinity type is ClientIP",
            )),
        },
        _ => {}
    }
}

fn family(ip: &str) -> &'static str {
    if ip.contains(':') { "IPv6" } else { "IPv4" }
}

/// What is wrong with the addresses and families asked for, taken by themselves.
fn cluster_ips(service: &Value, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "spec.clusterIPs";
    if service_type(service) == "ExternalName" {
        if !matches!(text(service, "/spec/clusterIP"), "") && is_unset(service, "/spec/clusterIPs") {
            errors.push(FieldError::forbidden("spec.clusterIP", "may not be set for ExternalName services"));
        }
        return;
    }
    let families = texts(service, "/spec/ipFamilies");
    let mut seen = HashSet::new();
    for (index, name) in families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        one_of(errors, &field, name, &["IPv4", "IPv6"]);
        if !seen.insert(*name) {
            errors.push(FieldError::duplicate(field, &json!(name)));
        }
    }
    let policy = text(service, "/spec/ipFamilyPolicy");
    if !policy.is_empty() {
        one_of(errors, "spec.ipFamilyPolicy", policy, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    }
    let (ip, ips) = (text(service, "/spec/clusterIP"), texts(service, "/spec/clusterIPs"));
    let whole = json!(ips);
    if let Some(first) = ips.first()
        && *first != ip
    {
        let unset = "must be empty when `clusterIP` is not specified";
        let detail = if ip.is_empty() { unset } else { "first value must match `clusterIP`" };
        errors.push(FieldError::invalid(FIELD, &whole, detail));
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(FIELD, &whole, "may only hold up to 2 values"));
    }
    if ips.contains(&"None") {
        if ips.len() > 1 {
            errors.push(FieldError::invalid(FIELD, &whole, "'None' must be the first and only value"));
        }
        return;
    }
    let mut well_formed = true;
    for (index, ip) in ips.iter().enumerate() {
        let complaints_here = names::ip(ip);
        well_formed &= complaints_here.is_empty();
        errors.extend(complaints(&format!("{FIELD}[{index}]"), ip, complaints_here));
    }
    if !well_formed {
        return;
    }
    if let [first, second] = ips[..]
        && family(first) == family(second)
    {
        errors.push(FieldError::invalid(FIELD, &whole, "may specify no more than one IP for each IP family"));
    }
    for (index, (ip, wanted)) in ips.iter().zip(&families).enumerate() {
        if family(ip) != *wanted {
            let detail = format!("expected an {wanted} value as indicated by `ipFamilies[{index}]`");
            errors.push(invalid(format!("{FIELD}[{index}]"), ip, detail));
        }
    }
}

/// Why an address cannot be another machine's, if it cannot.
pub(in crate::kinds) fn special_address(address: IpAddr) -> Vec<&'static str> {
    let mut why = Vec::new();
    if address.is_unspecified() {
        why.push(if address.is_ipv4() { "may not be unspecified (0.0.0.0)" } else { "may not be unspecified (::)" });
    }
    if address.is_loopback() {
        why.push("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local_unicast, link_local_multicast) = match address {
        IpAddr::V4(address) => (address.is_link_local(), address.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(address) => (address.segments()[0] & 0xffc0 == 0xfe80, address.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local_unicast {
        why.push("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        why.push("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
    why
}

fn external_ips(service: &Value, errors: &mut Vec<FieldError>) {
    for (index, ip) in texts(service, "/spec/externalIPs").into_iter().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        match ip.parse::<IpAddr>() {
            Err(_) => errors.extend(complaints(&field, ip, names::ip(ip))),
            Ok(address) => {
                errors.extend(special_address(address).into_iter().map(|why| invalid(&field, ip, why)));
                if address.is_multicast() && special_address(address).is_empty() {
                    errors.push(invalid(&field, ip, "may not be a multicast address"));
                }
            }
        }
    }
}

fn load_balancer(service: &Value, errors: &mut Vec<FieldError>) {
    let balanced = service_type(service) == "LoadBalancer";
    let ranges = texts(service, "/spec/loadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        errors.push(FieldError::forbidden("spec.loadBalancerSourceRanges", ONLY_LOAD_BALANCER));
    }
    for (index, range) in ranges.into_iter().enumerate() {
        let range = range.trim();
        errors.extend(complaints(&format!("spec.loadBalancerSourceRanges[{index}]"), range, names::cidr(range)));
    }
    let allocate = present(service, "/spec/allocateLoadBalancerNodePorts");
    match (balanced, allocate) {
        (true, None) => errors.push(FieldError::required("spec.allocateLoadBalancerNodePorts", "")),
        (false, Some(_)) => {
            errors.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", ONLY_LOAD_BALANCER));
        }
        _ => {}
    }
    if let Some(class) = present(service, "/spec/loadBalancerClass").and_then(Value::as_str) {
        if balanced {
            errors.extend(complaints("spec.loadBalancerClass", class, names::qualified_name(class)));
        } else {
            errors.push(FieldError::forbidden("spec.loadBalancerClass", ONLY_LOAD_BALANCER));
        }
    }
    for (index, ingress) in list(service, "/status/loadBalancer/ingress").iter().enumerate() {
        let field = format!("status.loadBalancer.ingress[{index}]");
        let (ip, host) = (text(ingress, "/ip"), text(ingress, "/hostname"));
        if !ip.is_empty() {
            errors.extend(complaints(&format!("{field}.ip"), ip, names::ip(ip)));
        }
        match (ip.is_empty(), text(ingress, "/ipMode")) {
            (_, "") => {}
            (true, _) => {
                errors.push(FieldError::forbidden(
                    format!("{field}.ipMode"),
                    "may not be specified when `ip` is not set",
                ));
            }
            (false, mode) => one_of(errors, format!("{field}.ipMode"), mode, &["Proxy", "VIP"]),
        }
        if !host.is_empty() {
            let field = format!("{field}.hostname");
            errors.extend(complaints(&field, host, names::dns_subdomain(host)));
            if host.parse::<IpAddr>().is_ok() {
                errors.push(invalid(field, host, "must be a DNS name, not an IP address"));
            }
        }
    }
}

fn traffic_policies(service: &Value, errors: &mut Vec<FieldError>) {
    let external = text(service, "/spec/externalTrafficPolicy");
    match (is_externally_accessible(service), external) {
        (false, "") => {}
        (false, given) => errors.push(invalid(
            "spec.externalTrafficPolicy",
            given,
            "may only be set for externally-accessible services",
        )),
        (true, "") => errors.push(FieldError::required("spec.externalTrafficPolicy", "")),
        (true, given) => one_of(errors, "spec.externalTrafficPolicy", given, &POLICIES),
    }
    let health_check = int(service, "/spec/healthCheckNodePort").unwrap_or_default();
    if health_check != 0 {
        let value = json!(health_check);
        if !needs_health_check(service) {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid("spec.healthCheckNodePort", &value, detail));
        } else if let Some(complaint) = names::port_number(health_check) {
            errors.push(FieldError::invalid("spec.healthCheckNodePort", &value, complaint));
        }
    }
    let internal = text(service, "/spec/internalTrafficPolicy");
    if !internal.is_empty() {
        one_of(errors, "spec.internalTrafficPolicy", internal, &POLICIES);
    }
    if let Some(distribution) = present(service, "/spec/trafficDistribution").and_then(Value::as_str) {
        let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        one_of(errors, "spec.trafficDistribution", distribution, &known);
    }
}

#[cfg(test)]
mod tests;
