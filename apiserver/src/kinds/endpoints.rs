//! Endpoints and EndpointSlice: where a Service's connections go.

use super::field::{complaints, immutable, invalid, not_found, one_of, too_many};
use super::json::{fill, int, list, list_mut, present, text, texts};
use super::service::special_address;
use super::table::{NONE, age, name, three_of_many};
use super::{metadata, names};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::IpAddr;

/// At most so many endpoints in one slice.
const ENDPOINTS_MOST: usize = 1000;
/// At most so many addresses of one endpoint.
const ADDRESSES_MOST: usize = 100;

/// Endpoints.
pub(super) fn default_endpoints(_: &ResourceKind, object: &mut Value) {
    for subset in list_mut(object, "/subsets") {
        for port in list_mut(subset, "/ports") {
            fill(port, "protocol", "TCP");
        }
    }
}

/// EndpointSlice.
pub(super) fn default_slice(_: &ResourceKind, object: &mut Value) {
    for port in list_mut(object, "/ports") {
        fill(port, "protocol", "TCP");
        if port.get("name").is_none_or(Value::is_null) {
            super::json::put(port, "name", Some(json!("")));
        }
    }
}

fn protocol(port: &Value, field: &str, errors: &mut Vec<FieldError>) {
    one_of(errors, format!("{field}.protocol"), text(port, "/protocol"), &["SCTP", "TCP", "UDP"]);
    if let Some(application) = present(port, "/appProtocol").and_then(Value::as_str) {
        errors.extend(complaints(&format!("{field}.appProtocol"), application, names::qualified_name(application)));
    }
}

fn address_errors(ip: &str, field: &str, errors: &mut Vec<FieldError>) {
    match ip.parse::<IpAddr>() {
        Err(_) => errors.extend(complaints(field, ip, names::ip(ip))),
        Ok(address) => errors.extend(special_address(address).into_iter().map(|why| invalid(field, ip, why))),
    }
}

/// Everything wrong with Endpoints.
pub(super) fn endpoints(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    for (index, subset) in list(object, "/subsets").iter().enumerate() {
        let field = format!("subsets[{index}]");
        if list(subset, "/addresses").is_empty() && list(subset, "/notReadyAddresses").is_empty() {
            errors.push(FieldError::required(&field, "must specify `addresses` or `notReadyAddresses`"));
        }
        for group in ["addresses", "notReadyAddresses"] {
            for (index, address) in list(subset, &format!("/{group}")).iter().enumerate() {
                let field = format!("{field}.{group}[{index}]");
                address_errors(text(address, "/ip"), &format!("{field}.ip"), &mut errors);
                let host = text(address, "/hostname");
                if !host.is_empty() {
                    errors.extend(complaints(&format!("{field}.hostname"), host, names::dns_label(host)));
                }
            }
        }
        let ports = list(subset, "/ports");
        for (index, port) in ports.iter().enumerate() {
            let field = format!("{field}.ports[{index}]");
            match text(port, "/name") {
                "" if ports.len() > 1 => errors.push(FieldError::required(format!("{field}.name"), "")),
                "" => {}
                name => errors.extend(complaints(&format!("{field}.name"), name, names::dns_label(name))),
            }
            let number = int(port, "/port").unwrap_or_default();
            if let Some(complaint) = names::port_number(number) {
                errors.push(FieldError::invalid(format!("{field}.port"), &json!(number), complaint));
            }
            protocol(port, &field, &mut errors);
        }
    }
    errors
}

/// Everything wrong with an EndpointSlice.
pub(super) fn slice(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, object, old);
    let family = text(object, "/addressType");
    if family.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else {
        one_of(&mut errors, "addressType", family, &["FQDN", "IPv4", "IPv6"]);
    }
    let endpoints = list(object, "/endpoints");
    if endpoints.len() > ENDPOINTS_MOST {
        errors.push(too_many("endpoints", endpoints.len(), ENDPOINTS_MOST));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        endpoint_errors(endpoint, &format!("endpoints[{index}]"), family, &mut errors);
    }
    let mut port_names = HashSet::new();
    for (index, port) in list(object, "/ports").iter().enumerate() {
        let field = format!("ports[{index}]");
        let name = text(port, "/name");
        if !name.is_empty() {
            errors.extend(complaints(&format!("{field}.name"), name, names::dns_label(name)));
        }
        if !port_names.insert(name) {
            errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
        }
        if let Some(number) = int(port, "/port")
            && let Some(complaint) = names::port_number(number)
        {
            errors.push(FieldError::invalid(format!("{field}.port"), &json!(number), complaint));
        }
        protocol(port, &field, &mut errors);
    }
    if let Some(old) = old {
        immutable(&mut errors, object, old, "/addressType");
    }
    errors
}

fn endpoint_errors(endpoint: &Value, field: &str, family: &str, errors: &mut Vec<FieldError>) {
    let addresses = texts(endpoint, "/addresses");
    let at = format!("{field}.addresses");
    match addresses.len() {
        0 => errors.push(FieldError::required(&at, "must contain at least 1 address")),
        count if count > ADDRESSES_MOST => errors.push(too_many(&at, count, ADDRESSES_MOST)),
        _ => {}
    }
    for (index, address) in addresses.into_iter().enumerate() {
        let at = format!("{at}[{index}]");
        match (family, address.parse::<IpAddr>()) {
            ("FQDN", _) => errors.extend(complaints(&at, address, names::dns_subdomain(address))),
            ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => address_errors(address, &at, errors),
            ("IPv4", _) => errors.push(invalid(at, address, "must be a valid IPv4 address")),
            ("IPv6", _) => errors.push(invalid(at, address, "must be a valid IPv6 address")),
            _ => {}
        }
    }
    let host = text(endpoint, "/hostname");
    if !host.is_empty() {
        errors.extend(complaints(&format!("{field}.hostname"), host, names::dns_label(host)));
    }
    let node = text(endpoint, "/nodeName");
    if !node.is_empty() {
        errors.extend(complaints(&format!("{field}.nodeName"), node, names::dns_subdomain(node)));
    }
    if present(endpoint, "/deprecatedTopology/kubernetes.io~1hostname").is_some() {
        errors.push(not_found(format!("{field}.deprecatedTopology"), "kubernetes.io/hostname"));
    }
}

fn socket(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// NAME ENDPOINTS AGE.
pub(super) fn endpoints_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let subsets = list(object, "/subsets");
    let mut sockets = Vec::new();
    for subset in subsets {
        let addresses = || list(subset, "/addresses").iter().map(|address| text(address, "/ip"));
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            sockets.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let number = int(port, "/port").unwrap_or_default();
            sockets.extend(addresses().map(|ip| socket(ip, number)));
        }
    }
    let otherwise = if subsets.is_empty() { NONE } else { "" };
    vec![name(object), three_of_many(&sockets, otherwise), age(object, now)]
}

/// NAME ADDRESSTYPE PORTS ENDPOINTS AGE.
pub(super) fn slice_row(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(object, "/ports")
        .iter()
        .map(|port| match (int(port, "/port"), port.get("name").and_then(Value::as_str)) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(object, "/endpoints")
        .iter()
        .flat_map(|endpoint| texts(endpoint, "/addresses"))
        .map(str::to_owned)
        .collect();
    vec![
        name(object),
        text(object, "/addressType").into(),
        three_of_many(&ports, "<unset>"),
        three_of_many(&addresses, "<unset>"),
        age(object, now),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    fn slice_with(fields: Value) -> Value {
        let mut object = json!({"metadata": {"name": "web-x", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}, "addressType": "IPv4", "endpoints": []});
        for (key, value) in fields.as_object().unwrap() {
            object[key] = value.clone();
        }
        object
    }

    #[track_caller]
    fn refused(fields: Value, expected: &[&str]) {
        assert_eq!(said("discovery.k8s.io", "EndpointSlice", slice_with(fields), None), expected);
    }

    #[test]
    fn rule_4_8_an_endpoint_is_another_machine_of_the_slices_family() {
        let endpoints = |addresses: &[&str]| json!({"endpoints": [{"addresses": addresses}]});
        refused(endpoints(&["10.244.1.5"]), &[]);
        refused(
            endpoints(&["127.0.0.1", "169.254.0.1", "224.0.0.1", "0.0.0.0", "fd00::1"]),
            &[
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "endpoints[0].addresses[1]: Invalid value: \"169.254.0.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
                "endpoints[0].addresses[2]: Invalid value: \"224.0.0.1\": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
                "endpoints[0].addresses[3]: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)",
                "endpoints[0].addresses[4]: Invalid value: \"fd00::1\": must be a valid IPv4 address",
            ],
        );
        refused(endpoints(&[]), &["endpoints[0].addresses: Required value: must contain at least 1 address"]);
    }

    #[test]
    fn rule_4_5_a_slice_has_a_thousand_endpoints_at_most() {
        let endpoints = vec![json!({"addresses": ["10.244.1.5"]}); 1001];
        refused(json!({"endpoints": endpoints}), &["endpoints: Too many: 1001: must have at most 1000 items"]);
    }

    #[test]
    fn the_address_type_is_known_and_stays() {
        refused(
            json!({"addressType": "IPv5"}),
            &["addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
        );
        assert_eq!(
            said(
                "discovery.k8s.io",
                "EndpointSlice",
                slice_with(json!({"addressType": "IPv6"})),
                Some(slice_with(json!({})))
            ),
            ["addressType: Invalid value: \"IPv6\": field is immutable"],
        );
    }

    #[test]
    fn ports_of_a_slice_have_distinct_names() {
        refused(
            json!({"ports": [{"port": 80}, {"name": "", "port": 81}, {"name": "p", "port": 0}]}),
            &[
                "ports[1].name: Duplicate value: \"\"",
                "ports[2].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        );
    }

    #[test]
    fn a_subset_of_endpoints_has_addresses() {
        let object = json!({"metadata": {"name": "web", "namespace": "default"}, "subsets": [
            {"ports": [{"port": 80}]}, {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 80}, {"port": 81, "name": "b"}]}]});
        assert_eq!(
            said("", "Endpoints", object, None),
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                "subsets[1].ports[0].name: Required value",
            ]
        );
    }

    #[test]
    fn endpoints_are_shown_three_and_the_number_of_the_rest() {
        let address = |last: u8| json!({"ip": format!("10.244.0.{last}")});
        let with = |subsets: Value| {
            row_of(
                "",
                "Endpoints",
                &json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"}, "subsets": subsets}),
            )
        };
        assert_eq!(with(Value::Null), "web | <none> | 3h5m");
        assert_eq!(with(json!([{"addresses": [address(1)], "ports": [{"port": 80}]}])), "web | 10.244.0.1:80 | 3h5m");
        assert_eq!(
            with(json!([{"addresses": [address(1), address(2)], "ports": [{"port": 80}, {"port": 81}]}])),
            "web | 10.244.0.1:80,10.244.0.2:80,10.244.0.1:81 + 1 more... | 3h5m"
        );
        assert_eq!(with(json!([{"addresses": [address(1)]}])), "web | 10.244.0.1 | 3h5m");
    }

    #[test]
    fn a_slice_is_shown_with_type_ports_and_addresses() {
        let row = |fields: Value| row_of("discovery.k8s.io", "EndpointSlice", &slice_with(fields));
        assert_eq!(row(json!({})), "web-x | IPv4 | <unset> | <unset> | 3h5m");
        assert_eq!(
            row(
                json!({"ports": [{"port": 80}, {"name": "p"}], "endpoints": [{"addresses": ["10.244.0.1"]}, {"addresses": ["10.244.0.2"]}]})
            ),
            "web-x | IPv4 | 80,p | 10.244.0.1,10.244.0.2 | 3h5m"
        );
    }
}
