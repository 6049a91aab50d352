//! `/etc/resolv.conf` and `/etc/hosts` of a pod, and its hostname.
//!
//! Follows SEMANTICS §9 (Kubernetes' docs "DNS for Services and Pods", `resolv.conf(5)`).

use k8s_openapi::api::core::v1::Pod;
use std::fmt::Write;
use std::net::IpAddr;

/// What the cluster's pods resolve with.
#[derive(Clone, Debug)]
pub struct ClusterDns {
    /// Address of the DNS Service.
    pub service: IpAddr,
    /// Such as `cluster.local`.
    pub zone: String,
    /// The node's own resolv.conf, for `dnsPolicy: Default`.
    pub node_resolv_conf: String,
}

/// 9.5: spec.hostname or the pod's name, at most 63 characters.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|spec| spec.hostname.clone()).or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// 9.1 and 9.2.
pub fn resolv_conf(pod: &Pod, dns: &ClusterDns) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let policy = match (spec.dns_policy.as_deref().unwrap_or("ClusterFirst"), spec.host_network == Some(true)) {
        ("ClusterFirst", true) => "Default",
        (policy, _) => policy,
    };
    let (mut nameservers, mut searches) = (Vec::<String>::new(), Vec::<String>::new());
    let mut options: Vec<(String, Option<String>)> = Vec::new();
    match policy {
        "None" => {}
        "Default" => {
            for line in dns.node_resolv_conf.lines() {
                let mut words = line.split_whitespace();
                match words.next() {
                    Some("nameserver") => nameservers.extend(words.next().map(str::to_owned)),
                    Some("search") => searches = words.map(str::to_owned).collect(),
                    Some("options") => options.extend(words.map(option)),
                    _ => {}
                }
            }
        }
        _ => {
            let zone = &dns.zone;
            nameservers.push(dns.service.to_string());
            searches.extend([format!("{namespace}.svc.{zone}"), format!("svc.{zone}"), zone.clone()]);
            options.push(("ndots".to_owned(), Some("5".to_owned())));
        }
    }
    if let Some(config) = &spec.dns_config {
        for server in config.nameservers.iter().flatten().filter(|server| !server.is_empty()) {
            if !nameservers.contains(server) {
                nameservers.push(server.clone());
            }
        }
        for search in config.searches.iter().flatten() {
            if !searches.contains(search) {
                searches.push(search.clone());
            }
        }
        for wanted in config.options.iter().flatten() {
            let name = wanted.name.clone().unwrap_or_default();
            match options.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = wanted.value.clone(),
                None => options.push((name, wanted.value.clone())),
            }
        }
    }
    let mut text = String::new();
    for server in nameservers.iter().take(3) {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.iter().take(32).cloned().collect::<Vec<_>>().join(" "));
    }
    if !options.is_empty() {
        let words = options.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        });
        let _ = writeln!(text, "options {}", words.collect::<Vec<_>>().join(" "));
    }
    text
}

fn option(word: &str) -> (String, Option<String>) {
    match word.split_once(':') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

/// 9.4, with a line for each of the pod's addresses.
pub fn hosts(pod: &Pod, pod_ips: &[IpAddr], zone: &str) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let hostname = hostname(pod);
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    for pod_ip in pod_ips {
        let _ = match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
            Some(subdomain) => writeln!(text, "{pod_ip}\t{hostname}.{subdomain}.{namespace}.svc.{zone}\t{hostname}"),
            None => writeln!(text, "{pod_ip}\t{hostname}"),
        };
    }
    let aliases = spec.host_aliases.unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.unwrap_or_default().join("\t"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dns() -> ClusterDns {
        let node_resolv_conf = "nameserver 192.0.2.1\nsearch example.org\n".to_owned();
        ClusterDns {
            service: "10.96.0.10".parse().expect("an address"),
            zone: "cluster.local".into(),
            node_resolv_conf,
        }
    }

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "db-0", "namespace": "prod"}, "spec": spec})).expect("a Pod")
    }

    #[test]
    fn rule_9_1_cluster_first_searches_the_namespace_first_and_default_uses_the_nodes_resolvers() {
        let text = resolv_conf(&pod(json!({"containers": []})), &dns());
        assert_eq!(
            text,
            "nameserver 10.96.0.10\nsearch prod.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
        );
        let default = resolv_conf(&pod(json!({"containers": [], "hostNetwork": true})), &dns());
        assert_eq!(default, "nameserver 192.0.2.1\nsearch example.org\n");
    }

    #[test]
    fn rule_9_2_dns_config_adds_and_overrides() {
        let spec = json!({"containers": [], "dnsConfig": {"nameservers": ["10.96.0.10", "9.9.9.9"], "searches": ["x.org"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(
            resolv_conf(&pod(spec), &dns()),
            "nameserver 10.96.0.10\nnameserver 9.9.9.9\nsearch prod.svc.cluster.local svc.cluster.local cluster.local x.org\noptions ndots:2 edns0\n"
        );
    }

    #[test]
    fn rule_9_4_the_pods_own_name_stands_in_its_hosts_file() {
        let spec = json!({"containers": [], "subdomain": "db-headless", "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a", "b"]}]});
        let ips = ["10.244.1.5", "fd00:10:244:1::5"].map(|ip| ip.parse().expect("an address"));
        let text = hosts(&pod(spec), &ips, "cluster.local");
        assert!(text.contains("10.244.1.5\tdb-0.db-headless.prod.svc.cluster.local\tdb-0\n"));
        assert!(text.contains("fd00:10:244:1::5\tdb-0.db-headless.prod.svc.cluster.local\tdb-0\n"));
        assert!(text.ends_with("192.0.2.7\ta\tb\n"));
    }
}
