//! The environment of a container: service variables, `env` and `envFrom`, the downward API, and `$(NAME)` in commands.
//!
//! Follows SEMANTICS §10 (Kubernetes' docs "Accessing the Service", "Define dependent environment variables").

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A reference that could not be resolved: the container waits with `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Objects a container's configuration may refer to, already fetched.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// ConfigMaps of the pod's namespace by name.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Secrets of the pod's namespace by name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
}

/// Where a pod is, for the downward API: the primary family's address first.
#[derive(Clone, Copy, Debug)]
pub struct Addresses<'a> {
    /// The pod's own addresses.
    pub pod: &'a [IpAddr],
    /// Its node's.
    pub host: &'a [IpAddr],
}

/// The variables of Services that exist when the container starts: those of the pod's namespace if `links`, and `kubernetes`.
pub fn service_variables(services: &[Arc<Service>], namespace: &str, links: bool) -> Vec<(String, String)> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let service_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let own = links && service_namespace == namespace;
        let master = name == "kubernetes" && service_namespace == "default";
        if own || (master && !chosen.contains_key(name)) {
            chosen.insert(name, service);
        }
    }
    let mut variables = Vec::new();
    for (name, service) in chosen {
        let Some(spec) = &service.spec else { continue };
        let ip = spec.cluster_ip.as_deref().unwrap_or_default();
        let ports = spec.ports.as_deref().unwrap_or_default();
        let (false, Some(first)) = (ip.is_empty() || ip == "None", ports.first()) else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let mut add = |suffix: &str, value: String| variables.push((format!("{prefix}{suffix}"), value));
        let authority = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        add("_SERVICE_HOST", ip.to_owned());
        add("_SERVICE_PORT", first.port.to_string());
        for port in ports {
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let name = name.to_uppercase().replace('-', "_");
                add(&format!("_SERVICE_PORT_{name}"), port.port.to_string());
            }
        }
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{authority}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                add("_PORT", url.clone());
            }
            let key = format!("_PORT_{}_{}", port.port, protocol.to_uppercase());
            add(&key, url);
            add(&format!("{key}_PROTO"), protocol.to_lowercase());
            add(&format!("{key}_PORT"), port.port.to_string());
            add(&format!("{key}_ADDR"), ip.to_owned());
        }
    }
    variables
}

/// Every variable of a container in the order in which later ones win: image, services, `envFrom`, `env`.
pub fn variables(
    pod: &Pod,
    container: &Container,
    addresses: &Addresses<'_>,
    base: Vec<(String, String)>,
    references: &References,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut result: Vec<(String, String)> = base;
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match references.config_maps.get(&reference.name) {
                Some(map) => {
                    let data = map.data.iter().flatten();
                    result.extend(data.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError(format!("configmap {:?} not found", reference.name))),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match references.secrets.get(&reference.name) {
                Some(secret) => {
                    let data = secret.data.iter().flatten();
                    let text = |value: &k8s_openapi::ByteString| String::from_utf8_lossy(&value.0).into_owned();
                    result.extend(data.map(|(key, value)| (format!("{prefix}{key}"), text(value))));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError(format!("secret {:?} not found", reference.name))),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => match from_source(pod, container, addresses, source, references)? {
                Some(value) => value,
                None => continue,
            },
            (Some(value), None) => expand(value, &result),
            (None, None) => String::new(),
        };
        result.push((variable.name.clone(), value));
    }
    let mut last: Vec<(String, String)> = Vec::with_capacity(result.len());
    for (name, value) in result {
        match last.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => last.push((name, value)),
        }
    }
    Ok(last)
}

fn from_source(
    pod: &Pod,
    container: &Container,
    addresses: &Addresses<'_>,
    source: &EnvVarSource,
    references: &References,
) -> Result<Option<String>, ConfigError> {
    if let Some(field) = &source.field_ref {
        return pod_field(pod, addresses, &field.field_path)
            .map(Some)
            .ok_or_else(|| ConfigError(format!("unsupported fieldPath: {}", field.field_path)));
    }
    if let Some(resource) = &source.resource_field_ref {
        return Ok(Some(resource_field(container, &resource.resource)));
    }
    if let Some(key) = &source.config_map_key_ref {
        let value = references.config_maps.get(&key.name).and_then(|map| map.data.as_ref()?.get(&key.key).cloned());
        return match value {
            None if key.optional != Some(true) => Err(ConfigError(missing_key(
                "configmap",
                &key.name,
                &key.key,
                references.config_maps.contains_key(&key.name),
            ))),
            value => Ok(value),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let value = references.secrets.get(&key.name).and_then(|secret| secret.data.as_ref()?.get(&key.key).cloned());
        return match value {
            None if key.optional != Some(true) => {
                Err(ConfigError(missing_key("secret", &key.name, &key.key, references.secrets.contains_key(&key.name))))
            }
            value => Ok(value.map(|value| String::from_utf8_lossy(&value.0).into_owned())),
        };
    }
    Ok(None)
}

fn missing_key(kind: &str, name: &str, key: &str, exists: bool) -> String {
    if exists { format!("couldn't find key {key} in {kind} {name:?}") } else { format!("{kind} {name:?} not found") }
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

/// A field of the downward API.
pub fn pod_field(pod: &Pod, addresses: &Addresses<'_>, path: &str) -> Option<String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref()?;
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']").map(str::to_owned);
    let lines = |map: &Option<BTreeMap<String, String>>| {
        let lines: Vec<String> = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
        lines.join("\n")
    };
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => Some(lines(&metadata.labels)),
        "metadata.annotations" => Some(lines(&metadata.annotations)),
        "spec.nodeName" => Some(spec.node_name.clone().unwrap_or_default()),
        "spec.serviceAccountName" => Some(spec.service_account_name.clone().unwrap_or_else(|| "default".into())),
        "status.hostIP" => Some(joined(addresses.host.get(..1)?)),
        "status.hostIPs" => Some(joined(addresses.host)),
        "status.podIP" => Some(joined(addresses.pod.get(..1)?)),
        "status.podIPs" => Some(joined(addresses.pod)),
        _ => {
            if let Some(key) = keyed("metadata.labels['") {
                return Some(metadata.labels.as_ref().and_then(|all| all.get(&key).cloned()).unwrap_or_default());
            }
            let key = keyed("metadata.annotations['")?;
            Some(metadata.annotations.as_ref().and_then(|all| all.get(&key).cloned()).unwrap_or_default())
        }
    }
}

fn resource_field(container: &Container, resource: &str) -> String {
    let (list, name) = resource.split_once('.').unwrap_or(("limits", resource));
    let resources = container.resources.as_ref();
    let quantities =
        resources.and_then(|all| if list == "requests" { all.requests.as_ref() } else { all.limits.as_ref() });
    quantities.and_then(|all| all.get(name)).map(|quantity| quantity.0.clone()).unwrap_or_else(|| "0".to_owned())
}

/// Replaces `$(NAME)` by the variable's value; an unknown name stays as it is, `$$(NAME)` is the text `$(NAME)`.
pub fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => result.push_str(value),
                None => result.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(value: serde_json::Value) -> Arc<Service> {
        Arc::new(serde_json::from_value(value).expect("a Service"))
    }

    fn text(services: &[Arc<Service>], links: bool) -> Vec<String> {
        service_variables(services, "a", links).iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn kubernetes() -> Arc<Service> {
        service(json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}))
    }

    #[test]
    fn rule_10_a_service_of_the_namespace_has_a_host_ports_and_docker_style_variables() {
        let services = [service(
            json!({"metadata": {"name": "redis-primary", "namespace": "a"}, "spec": {"clusterIP": "10.96.0.11",
            "ports": [{"name": "main-port", "port": 6379, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]}}),
        )];
        assert_eq!(
            text(&services, true),
            [
                "REDIS_PRIMARY_SERVICE_HOST=10.96.0.11",
                "REDIS_PRIMARY_SERVICE_PORT=6379",
                "REDIS_PRIMARY_SERVICE_PORT_MAIN_PORT=6379",
                "REDIS_PRIMARY_SERVICE_PORT_DNS=53",
                "REDIS_PRIMARY_PORT=tcp://10.96.0.11:6379",
                "REDIS_PRIMARY_PORT_6379_TCP=tcp://10.96.0.11:6379",
                "REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp",
                "REDIS_PRIMARY_PORT_6379_TCP_PORT=6379",
                "REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.96.0.11",
                "REDIS_PRIMARY_PORT_53_UDP=udp://10.96.0.11:53",
                "REDIS_PRIMARY_PORT_53_UDP_PROTO=udp",
                "REDIS_PRIMARY_PORT_53_UDP_PORT=53",
                "REDIS_PRIMARY_PORT_53_UDP_ADDR=10.96.0.11",
            ]
        );
    }

    #[test]
    fn rule_10_an_ipv6_address_stands_in_brackets_where_a_port_follows() {
        let services = [service(json!({"metadata": {"name": "six", "namespace": "a"},
            "spec": {"clusterIP": "fd00:10:96::6", "ports": [{"port": 80, "protocol": "TCP"}]}}))];
        let variables = text(&services, true);
        assert_eq!(variables[0], "SIX_SERVICE_HOST=fd00:10:96::6");
        assert_eq!(variables[2], "SIX_PORT=tcp://[fd00:10:96::6]:80");
        assert_eq!(variables[6], "SIX_PORT_80_TCP_ADDR=fd00:10:96::6");
    }

    #[test]
    fn rule_10_headless_external_and_other_namespaces_services_are_left_out() {
        let services = [
            service(
                json!({"metadata": {"name": "db", "namespace": "a"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}),
            ),
            service(
                json!({"metadata": {"name": "away", "namespace": "a"}, "spec": {"type": "ExternalName", "externalName": "x.y"}}),
            ),
            service(
                json!({"metadata": {"name": "other", "namespace": "b"}, "spec": {"clusterIP": "10.96.0.12", "ports": [{"port": 1}]}}),
            ),
        ];
        assert_eq!(text(&services, true), Vec::<String>::new());
    }

    #[test]
    fn rule_10_the_api_is_always_there_and_alone_without_service_links() {
        let own = service(
            json!({"metadata": {"name": "web", "namespace": "a"}, "spec": {"clusterIP": "10.96.0.13", "ports": [{"port": 80}]}}),
        );
        let services = [kubernetes(), own];
        assert!(text(&services, true).contains(&"KUBERNETES_PORT=tcp://10.96.0.1:443".to_owned()));
        assert!(text(&services, true).contains(&"WEB_SERVICE_HOST=10.96.0.13".to_owned()));
        let alone = text(&services, false);
        assert!(alone.contains(&"KUBERNETES_SERVICE_PORT_HTTPS=443".to_owned()));
        assert!(alone.iter().all(|line| line.starts_with("KUBERNETES_")), "{alone:?}");
        // A namespace's own Service of that name counts instead, for who asks for links.
        let namesake = service(
            json!({"metadata": {"name": "kubernetes", "namespace": "a"}, "spec": {"clusterIP": "10.96.0.14", "ports": [{"port": 1}]}}),
        );
        let services = [kubernetes(), namesake];
        assert_eq!(text(&services, true)[0], "KUBERNETES_SERVICE_HOST=10.96.0.14");
        assert_eq!(text(&services, false)[0], "KUBERNETES_SERVICE_HOST=10.96.0.1");
    }

    #[test]
    fn rule_10_the_containers_own_entries_override() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": []}})).expect("a Pod");
        let container: Container = serde_json::from_value(json!({"name": "c", "env": [
            {"name": "KUBERNETES_SERVICE_HOST", "value": "mine"}, {"name": "URL", "value": "http://$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)"},
            {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}}, {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]}))
        .expect("a container");
        let ips = ["10.244.1.5", "fd00:10:244:1::5"].map(|ip| ip.parse().expect("an address"));
        let host = ["172.18.0.2", "fd00:172:18::2"].map(|ip| ip.parse().expect("an address"));
        let base = service_variables(&[kubernetes()], "a", true);
        let addresses = Addresses { pod: &ips, host: &host };
        let all = variables(&pod, &container, &addresses, base, &References::default()).expect("resolved");
        let value = |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(value("KUBERNETES_SERVICE_HOST"), Some("mine"));
        assert_eq!(value("URL"), Some("http://mine:443"));
        assert_eq!(value("IPS"), Some("10.244.1.5,fd00:10:244:1::5"));
        assert_eq!(value("HOST"), Some("172.18.0.2"));
    }

    #[test]
    fn references_to_variables_are_expanded_and_escapes_kept() {
        let variables = [("A".to_owned(), "1".to_owned())];
        assert_eq!(expand("x$(A)$$(A)$(B)$", &variables), "x1$(A)$(B)$");
    }
}
