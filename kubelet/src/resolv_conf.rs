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
    /// Domains of the node that `ClusterFirst` searches after the cluster's own.
    pub node_searches: Vec<String>,
}

/// Nameservers that a C library reads.
const MAX_NAMESERVERS: usize = 3;
/// What Kubernetes allows of a search list: domains, and characters with the spaces between them.
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
/// The longest domain name (RFC 1123, 2.1, as Kubernetes checks it).
const MAX_DOMAIN: usize = 253;
/// What the kernel allows of a hostname.
const MAX_HOSTNAME: usize = 64;

/// 9.5: spec.hostname or the pod's name, at most 63 characters.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|spec| spec.hostname.clone()).or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// 9.5: the full name does not fit into a hostname.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {0} is too long ({MAX_HOSTNAME} characters is the max, \
     {length} characters requested)",
    length = .0.len()
)]
pub struct FqdnTooLong(String);

/// 9.5: what the containers' kernel says: the hostname, or the full name with `setHostnameAsFQDN`, or the override.
///
/// # Errors
/// The full name is longer than a hostname may be.
pub fn kernel_hostname(pod: &Pod, zone: &str) -> Result<String, FqdnTooLong> {
    let Some(spec) = &pod.spec else { return Ok(hostname(pod)) };
    if let Some(name) = spec.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        return Ok(name.clone());
    }
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
    match subdomain.filter(|_| spec.set_hostname_as_fqdn == Some(true)) {
        None => Ok(hostname(pod)),
        Some(subdomain) => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
            let name = format!("{}.{subdomain}.{namespace}.svc.{zone}", hostname(pod));
            if name.len() > MAX_HOSTNAME { Err(FqdnTooLong(name)) } else { Ok(name) }
        }
    }
}

/// The domains of a resolv.conf's search list: those of the last `search` line.
pub fn searches(resolv_conf: &str) -> Vec<String> {
    let mut lines = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "search").then(|| words.map(str::to_owned).collect())
    });
    lines.next_back().unwrap_or_default()
}

/// A pod's `/etc/resolv.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The file.
    pub text: String,
    /// What had to be left out of it, in kubelet's words: messages of Events `DNSConfigForming`.
    pub warnings: Vec<String>,
}

/// 9.1 and 9.2.
pub fn resolv_conf(pod: &Pod, dns: &ClusterDns) -> ResolvConf {
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
                    Some("options") => options.extend(words.map(option)),
                    _ => {}
                }
            }
            searches = self::searches(&dns.node_resolv_conf);
        }
        _ => {
            let zone = &dns.zone;
            nameservers.push(dns.service.to_string());
            let own = [format!("{namespace}.svc.{zone}"), format!("svc.{zone}"), zone.clone()];
            searches.extend(own.into_iter().chain(dns.node_searches.iter().cloned()));
            options.push(("ndots".to_owned(), Some("5".to_owned())));
        }
    }
    if let Some(config) = &spec.dns_config {
        for server in config.nameservers.iter().flatten().filter(|server| !server.is_empty()) {
            if !nameservers.contains(server) {
                nameservers.push(server.clone());
            }
        }
        searches.extend(config.searches.iter().flatten().cloned());
        for wanted in config.options.iter().flatten() {
            let name = wanted.name.clone().unwrap_or_default();
            match options.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = wanted.value.clone(),
                None => options.push((name, wanted.value.clone())),
            }
        }
    }
    let (mut text, mut warnings) = (String::new(), Vec::new());
    if nameservers.len() > MAX_NAMESERVERS {
        nameservers.truncate(MAX_NAMESERVERS);
        let applied = nameservers.join(" ");
        warnings.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {applied}"
        ));
    }
    for server in &nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let (searches, all_fit) = fitting(&searches);
    let applied = searches.join(" ");
    if !all_fit {
        warnings.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {applied}"
        ));
    }
    if !searches.is_empty() {
        let _ = writeln!(text, "search {applied}");
    }
    if !options.is_empty() {
        let words = options.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        });
        let _ = writeln!(text, "options {}", words.collect::<Vec<_>>().join(" "));
    }
    ResolvConf { text, warnings }
}

/// The domains of a search list, each once, as far as there may be so many and they may be so long; and whether these are all.
fn fitting(searches: &[String]) -> (Vec<&str>, bool) {
    let mut each: Vec<&str> = Vec::new();
    for search in searches {
        if !each.contains(&search.as_str()) {
            each.push(search);
        }
    }
    let all = each.len();
    each.truncate(MAX_SEARCHES);
    // glibc 2.28 aborts at a longer one.
    each.retain(|search| search.len() <= MAX_DOMAIN);
    let length = |domains: &[&str]| domains.iter().map(|domain| domain.len() + 1).sum::<usize>().saturating_sub(1);
    while length(&each) > MAX_SEARCH_CHARACTERS {
        each.pop();
    }
    let all_fit = each.len() == all;
    (each, all_fit)
}

fn option(word: &str) -> (String, Option<String>) {
    match word.split_once(':') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

/// The lines that every hosts file begins with.
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

/// 9.4, with a line for each of the pod's addresses.
pub fn hosts(pod: &Pod, pod_ips: &[IpAddr], zone: &str) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let hostname = hostname(pod);
    let mut text = format!("# Kubernetes-managed hosts file.\n{LOCALHOST}");
    for pod_ip in pod_ips {
        let _ = match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
            Some(subdomain) => writeln!(text, "{pod_ip}\t{hostname}.{subdomain}.{namespace}.svc.{zone}\t{hostname}"),
            None => writeln!(text, "{pod_ip}\t{hostname}"),
        };
    }
    add_aliases(&mut text, pod);
    text
}

/// 9.4 for a pod on its node's network: the node's file.
pub fn node_hosts(pod: &Pod, node_ips: &[IpAddr], node: &str) -> String {
    let mut text = format!("# Kubernetes-managed hosts file (host network).\n{LOCALHOST}");
    for ip in node_ips {
        let _ = writeln!(text, "{ip}\t{node}");
    }
    add_aliases(&mut text, pod);
    text
}

fn add_aliases(text: &mut String, pod: &Pod) {
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let _ = writeln!(text, "{}\t{}", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
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
            node_searches: vec!["example.org".into()],
            node_resolv_conf,
        }
    }

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "db-0", "namespace": "prod"}, "spec": spec})).expect("a Pod")
    }

    #[test]
    fn rule_9_1_with_host_net_a_pod_on_the_nodes_network_has_the_clusters_names() {
        let spec = json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"});
        let own = resolv_conf(&pod(json!({"containers": []})), &dns()).text;
        assert_eq!(resolv_conf(&pod(spec), &dns()).text, own);
    }

    #[test]
    fn rule_9_1_with_none_there_is_only_what_dns_config_says() {
        let spec = json!({"containers": [], "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["x.org"], "options": [{"name": "ndots", "value": "1"}]}});
        assert_eq!(resolv_conf(&pod(spec), &dns()).text, "nameserver 9.9.9.9\nsearch x.org\noptions ndots:1\n");
    }

    #[test]
    fn rule_9_2_at_most_three_nameservers_and_thirty_two_domains_of_2048_characters_are_written() {
        let domains = |count: usize, length: usize| -> Vec<String> {
            (0..count).map(|n| format!("{n:0>width$}.x", width = length - 2)).collect()
        };
        let written = |searches: Vec<String>| {
            let servers = ["10.96.0.10", "1.1.1.1", "2.2.2.2", "3.3.3.3"];
            let spec = json!({"containers": [], "dnsConfig": {"nameservers": servers, "searches": searches}});
            let text = resolv_conf(&pod(spec), &dns()).text;
            assert_eq!(text.matches("nameserver").count(), 3);
            let line = text.lines().find_map(|line| line.strip_prefix("search ")).expect("a list").to_owned();
            (line.split(' ').count(), line.len())
        };
        // Four are there already, of 60 characters.
        assert_eq!(written(domains(28, 10)).0, 32);
        assert_eq!(written(domains(40, 10)).0, 32);
        let (count, length) = written(domains(20, 200));
        assert!(count < 24 && length <= 2048 && length + 201 > 2048, "{count} of {length}");
        assert_eq!(written(vec!["example.org".into(), "svc.cluster.local".into()]).0, 4, "each once");
    }

    #[test]
    fn rule_9_2_what_is_left_out_is_told_in_kubelets_words() {
        let warnings = |spec: serde_json::Value| resolv_conf(&pod(spec), &dns()).warnings;
        let servers = |servers: &[&str]| json!({"containers": [], "dnsConfig": {"nameservers": servers}});
        assert_eq!(warnings(servers(&["10.96.0.10", "1.1.1.1", "2.2.2.2"])), [""; 0]);
        assert_eq!(
            warnings(servers(&["1.1.1.1", "2.2.2.2", "3.3.3.3"])),
            [
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 10.96.0.10 \
              1.1.1.1 2.2.2.2"
            ]
        );
        let own = "prod.svc.cluster.local svc.cluster.local cluster.local example.org";
        let searches = |searches: Vec<String>| warnings(json!({"containers": [], "dnsConfig": {"searches": searches}}));
        let told =
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: ";
        let domains: Vec<String> = (0..29).map(|n| format!("d{n}")).collect();
        assert_eq!(searches(domains[..28].to_vec()), [""; 0]);
        assert_eq!(searches(domains.clone()), [format!("{told}{own} {}", domains[..28].join(" "))]);
        // What stands there twice is no more than once.
        assert_eq!(searches(vec!["example.org".to_owned(); 40]), [""; 0]);
        let (longest, longer) = ("a".repeat(253), "a".repeat(254));
        assert_eq!(searches(vec![longer, longest.clone()]), [format!("{told}{own} {longest}")]);
        let long: Vec<String> = (0..9).map(|n| format!("{n}{}", "c".repeat(249))).collect();
        let fitting = format!("{own} {}", long[..7].join(" "));
        assert!(fitting.len() <= 2048 && fitting.len() + 251 > 2048);
        assert_eq!(searches(long), [format!("{told}{fitting}")]);
    }

    #[test]
    fn rule_9_4_a_pod_on_the_nodes_network_has_the_nodes_file() {
        let spec =
            json!({"containers": [], "hostNetwork": true, "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a"]}]});
        let text = node_hosts(&pod(spec), &["172.18.0.2".parse().expect("an address")], "node-1");
        assert!(text.starts_with("# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.contains("\n172.18.0.2\tnode-1\n") && !text.contains("db-0"), "{text}");
        assert!(text.ends_with("\n192.0.2.7\ta\n"), "{text}");
    }

    #[test]
    fn rule_9_5_the_hostname_is_the_specs_or_the_pods_name_of_63_characters() {
        let mut long = pod(json!({"containers": []}));
        long.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(20)));
        assert_eq!(hostname(&long), "a".repeat(62), "nothing ends in a dash");
        assert_eq!(hostname(&pod(json!({"containers": [], "hostname": "own"}))), "own");
    }

    #[test]
    fn rule_9_5_a_hostname_is_the_full_name_on_wish_if_that_has_64_characters_at_most() {
        let of = |hostname: &str, subdomain: &str, wish: bool| {
            let spec =
                json!({"containers": [], "hostname": hostname, "subdomain": subdomain, "setHostnameAsFQDN": wish});
            kernel_hostname(&pod(spec), "cluster.local")
        };
        assert_eq!(of("a", "db", true).as_deref(), Ok("a.db.prod.svc.cluster.local"));
        assert_eq!(of("a", "db", false).as_deref(), Ok("a"));
        assert_eq!(of("a", "", true).as_deref(), Ok("a"), "without a subdomain there is no full name");
        let rest = ".db.prod.svc.cluster.local".len();
        assert!(of(&"a".repeat(64 - rest), "db", true).is_ok());
        let error = of(&"a".repeat(65 - rest), "db", true).expect_err("too long").to_string();
        assert!(error.ends_with("is too long (64 characters is the max, 65 characters requested)"), "{error}");
    }

    #[test]
    fn rule_9_1_cluster_first_searches_the_namespace_first_and_default_uses_the_nodes_resolvers() {
        let text = resolv_conf(&pod(json!({"containers": []})), &dns()).text;
        assert_eq!(
            text,
            "nameserver 10.96.0.10\nsearch prod.svc.cluster.local svc.cluster.local cluster.local example.org\noptions ndots:5\n"
        );
        let default = resolv_conf(&pod(json!({"containers": [], "hostNetwork": true})), &dns()).text;
        assert_eq!(default, "nameserver 192.0.2.1\nsearch example.org\n");
    }

    #[test]
    fn rule_9_2_dns_config_adds_and_overrides() {
        let spec = json!({"containers": [], "dnsConfig": {"nameservers": ["10.96.0.10", "9.9.9.9"], "searches": ["x.org"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        assert_eq!(
            resolv_conf(&pod(spec), &dns()).text,
            "nameserver 10.96.0.10\nnameserver 9.9.9.9\nsearch prod.svc.cluster.local svc.cluster.local cluster.local example.org x.org\noptions ndots:2 edns0\n"
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
