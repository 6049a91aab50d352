//! NetworkPolicy v1, numbered as in the reference of semantics, chapter 11.

use crate::support::{Accept, DenyEgress, DenyIngress, cluster, masqueraded, via};

const DENY_ALL_INGRESS: &str = "{ podSelector: {}, policyTypes: [Ingress] }";
const DENY_ALL_EGRESS: &str = "{ podSelector: {}, policyTypes: [Egress] }";

#[test]
fn rule_11_1_policy_types_default_to_ingress_and_to_egress_if_there_are_egress_rules() {
    let ingress = cluster().policy("p", "{ podSelector: {} }");
    ingress.check(DenyIngress, "web/front", "default/db:5432");
    ingress.check(Accept, "default/db", "web/front:80");
    let both = cluster().policy("p", "{ podSelector: {}, egress: [{ to: [{ podSelector: {} }] }] }");
    both.check(DenyIngress, "web/front", "default/db:5432");
    both.check(DenyEgress, "default/db", "web/front:80");
    let egress = cluster().policy("p", "{ podSelector: {}, policyTypes: [Egress], ingress: [] }");
    egress.check(Accept, "web/front", "default/db:5432");
    egress.check(DenyEgress, "default/db", "web/front:80");
}

#[test]
fn rule_11_1_what_validation_would_have_rejected_matches_nothing() {
    let net = |peer: &str, port: &str| {
        let spec = format!("{{ podSelector: {{}}, ingress: [{{ from: [{peer}], ports: [{port}] }}] }}");
        cluster().policy("p", &spec)
    };
    let anybody = "{ ipBlock: { cidr: 0.0.0.0/0 } }";
    net(anybody, "{ port: 5432 }").check(Accept, "web/front", "default/db:5432");
    for (peer, port) in [
        ("{}", "{ port: 5432 }"),
        ("{ ipBlock: { cidr: everywhere } }", "{ port: 5432 }"),
        ("{ ipBlock: { cidr: 0.0.0.0/0, except: [nowhere] } }", "{ port: 5432 }"),
        (anybody, "{ port: 5432, endPort: 5431 }"),
        (anybody, "{ port: 70968 }"),
        (anybody, "{ protocol: QUIC }"),
    ] {
        net(peer, port).check(DenyIngress, "web/front", "default/db:5432");
    }
}

#[test]
fn rule_11_2_a_selected_pod_accepts_only_what_some_policy_allows() {
    let net = cluster()
        .policy("db-from-api", "{ podSelector: { matchLabels: { app: db } }, ingress: [{ from: [{ podSelector: { matchLabels: { app: api } } }], ports: [{ port: 5432 }] }] }")
        .policy("db-from-back", "{ podSelector: { matchLabels: { app: db } }, ingress: [{ from: [{ podSelector: { matchLabels: { tier: back } } }], ports: [{ port: 22 }] }] }");
    net.check(Accept, "default/api", "default/db:5432");
    net.check(Accept, "default/api", "default/db:22");
    net.check(DenyIngress, "default/api", "default/db:80");
    net.check(DenyIngress, "web/front", "default/db:5432");
    net.check(Accept, "web/front", "default/api:80"); // selected by no policy, so not isolated
    net.check(Accept, "default/db", "web/front:80"); // isolated for ingress only
}

#[test]
fn rule_11_2_policies_select_only_pods_of_their_own_namespace() {
    let net = cluster().policy_in("web", "deny", DENY_ALL_INGRESS);
    net.check(Accept, "web/front", "default/api:8080");
    net.check(DenyIngress, "default/api", "web/front:80");
}

#[test]
fn rule_11_3_both_the_sources_egress_and_the_destinations_ingress_must_allow() {
    let out = "{ podSelector: {}, policyTypes: [Egress], egress: [{ to: [{ namespaceSelector: {} }] }] }";
    let net = cluster().policy("out", out).policy_in("web", "in", DENY_ALL_INGRESS);
    net.check(Accept, "default/api", "default/db:5432");
    net.check(DenyIngress, "default/api", "web/front:80");
    net.check(DenyEgress, "default/api", "1.1.1.1:443");
    let neither = cluster().policy("out", DENY_ALL_EGRESS).policy_in("web", "in", DENY_ALL_INGRESS);
    neither.check(DenyEgress, "default/api", "web/front:80"); // egress is judged first
}

#[test]
fn rule_11_4_no_rule_denies_all_and_an_empty_rule_allows_all() {
    for nothing in ["", ", ingress: []"] {
        let net = cluster().policy("p", &format!("{{ podSelector: {{}}, policyTypes: [Ingress]{nothing} }}"));
        net.check(DenyIngress, "web/front", "default/db:5432");
        net.check(DenyIngress, "8.8.8.8", "default/db:5432");
        net.check(DenyIngress, "8.8.8.8", "default/db:ICMP");
    }
    for everything in ["{}", "{ from: [], ports: [] }"] {
        let net = cluster().policy("p", &format!("{{ podSelector: {{}}, ingress: [{everything}] }}"));
        net.check(Accept, "web/front", "default/db:5432");
        net.check(Accept, "8.8.8.8", "default/db:53/UDP");
        net.check(Accept, "8.8.8.8", "default/db:ICMP");
    }
}

#[test]
fn rule_11_4_peers_and_ports_of_one_rule_must_both_match() {
    let net = cluster().policy("p", "{ podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { app: api } } }], ports: [{ port: 5432 }] }, { ports: [{ port: 80 }] }, { from: [{ namespaceSelector: { matchLabels: { team: web } } }] }] }");
    net.check(Accept, "default/api", "default/db:5432");
    net.check(DenyIngress, "default/api", "default/db:22");
    net.check(Accept, "default/api", "default/db:80"); // no `from`: all peers
    net.check(Accept, "8.8.8.8", "default/db:80");
    net.check(DenyIngress, "8.8.8.8", "default/db:5432");
    net.check(Accept, "web/front", "default/db:22"); // no `ports`: all ports
}

#[test]
fn rule_11_5_a_pod_selector_alone_means_the_policys_own_namespace() {
    let net = cluster()
        .policy("p", "{ podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { app: api } } }] }] }");
    net.check(Accept, "default/api", "default/db:5432");
    net.check(DenyIngress, "web/api", "default/db:5432");
}

#[test]
fn rule_11_5_a_namespace_selector_alone_means_all_its_pods_and_both_together_must_match() {
    let any = cluster().policy(
        "p",
        "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: web } } }] }] }",
    );
    any.check(Accept, "web/front", "default/db:5432");
    any.check(Accept, "web/api", "default/db:5432");
    any.check(DenyIngress, "default/api", "default/db:5432");
    let both = cluster().policy("p", "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: web } }, podSelector: { matchLabels: { app: api } } }] }] }");
    both.check(DenyIngress, "web/front", "default/db:5432");
    both.check(Accept, "web/api", "default/db:5432");
    let either = cluster().policy("p", "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: web } } }, { podSelector: { matchLabels: { app: api } } }] }] }");
    either.check(Accept, "web/front", "default/db:5432");
    either.check(Accept, "default/api", "default/db:5432");
}

#[test]
fn rule_11_5_selectors_match_pods_only_and_never_those_of_the_host_network() {
    let net = cluster()
        .host_network_pod("default/agent", "app=api", "172.18.0.3")
        .policy("p", "{ podSelector: {}, ingress: [{ from: [{ podSelector: {} }, { namespaceSelector: {} }] }] }");
    net.check(Accept, "web/front", "default/db:5432");
    net.check(DenyIngress, "8.8.8.8", "default/db:5432");
    net.check(DenyIngress, "172.18.0.3", "default/db:5432");
}

#[test]
fn rule_11_5_every_namespace_carries_its_name_as_a_label() {
    let net = cluster().policy("p", "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: web } } }] }] }");
    net.check(Accept, "web/front", "default/db:5432");
    net.check(DenyIngress, "default/api", "default/db:5432");
}

#[test]
fn rule_11_6_an_ip_block_matches_any_address_pods_included() {
    let net = cluster().policy("p", "{ podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: 10.244.2.0/24 } }] }] }");
    net.check(Accept, "web/front", "default/db:5432");
    net.check(DenyIngress, "default/api", "default/db:5432");
    net.check(DenyIngress, "10.245.2.1", "default/db:5432");
}

#[test]
fn rule_11_6_an_exception_narrows_only_its_own_entry() {
    let one = "{ ipBlock: { cidr: 10.244.0.0/16, except: [10.244.2.0/24] } }";
    let net = |from: &str| cluster().policy("p", &format!("{{ podSelector: {{}}, ingress: [{{ from: [{from}] }}] }}"));
    net(one).check(Accept, "default/api", "default/db:5432");
    net(one).check(DenyIngress, "web/front", "default/db:5432");
    let other = net(&format!("{one}, {{ ipBlock: {{ cidr: 10.244.2.4/32 }} }}"));
    other.check(Accept, "web/front", "default/db:5432");
    other.check(DenyIngress, "web/api", "default/db:5432");
    let selected = net(&format!("{one}, {{ namespaceSelector: {{ matchLabels: {{ team: web }} }} }}"));
    selected.check(Accept, "web/front", "default/db:5432");
    let wider = net(&format!("{one}, {{ ipBlock: {{ cidr: 10.0.0.0/8 }} }}"));
    wider.check(Accept, "web/front", "default/db:5432");
}

#[test]
fn rule_11_6_a_block_of_the_other_family_never_matches() {
    let v6 = cluster()
        .pod("default/six", "app=six", "fd00::6,10.244.1.6", "node-1", "")
        .policy("p", "{ podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: '::/0' } }] }] }");
    v6.check(Accept, "2001:db8::1", "default/six:80");
    v6.check(DenyIngress, "web/front", "default/db:5432");
    let v4 = cluster()
        .pod("default/six", "app=six", "fd00::6", "node-1", "")
        .policy("p", "{ podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: 0.0.0.0/0 } }] }] }");
    v4.check(DenyIngress, "2001:db8::1", "default/six:80");
}

#[test]
fn rule_11_7_ports_are_numbers_ranges_names_or_all_of_a_protocol() {
    let net = |port: &str| cluster().policy("p", &format!("{{ podSelector: {{}}, ingress: [{{ ports: [{port}] }}] }}"));
    net("{ port: 80 }").check(Accept, "web/front", "default/db:80");
    net("{ port: 80 }").check(DenyIngress, "web/front", "default/db:81");
    net("{ port: 80 }").check(DenyIngress, "web/front", "default/db:80/UDP"); // the protocol defaults to TCP
    let range = net("{ port: 80, endPort: 90 }");
    range.check(DenyIngress, "web/front", "default/db:79");
    range.check(Accept, "web/front", "default/db:80");
    range.check(Accept, "web/front", "default/db:90");
    range.check(DenyIngress, "web/front", "default/db:91");
    let udp = net("{ protocol: UDP }");
    udp.check(Accept, "web/front", "default/db:1/UDP");
    udp.check(Accept, "web/front", "default/db:65535/UDP");
    udp.check(DenyIngress, "web/front", "default/db:1");
}

#[test]
fn rule_11_7_a_named_port_is_resolved_on_each_destination_pod() {
    let net = cluster()
        .policy("p", "{ podSelector: {}, ingress: [{ ports: [{ port: http }, { port: dns, protocol: UDP }] }] }");
    net.check(Accept, "web/front", "default/api:8080");
    net.check(DenyIngress, "web/front", "default/api:9090");
    net.check(Accept, "web/front", "default/api-2:9090");
    net.check(DenyIngress, "web/front", "default/api-2:8080");
    net.check(Accept, "web/front", "default/api:53/UDP");
    net.check(DenyIngress, "web/front", "default/api:53"); // the container port is UDP
    net.check(DenyIngress, "web/front", "default/db:8080"); // it has no port of that name
}

#[test]
fn rule_11_7_a_named_port_in_egress_is_the_destinations_and_no_external_one_has_it() {
    for peer in ["podSelector: {}", "ipBlock: { cidr: 0.0.0.0/0 }"] {
        let spec = format!(
            "{{ podSelector: {{}}, policyTypes: [Egress], egress: [{{ to: [{{ {peer} }}], ports: [{{ port: http }}] }}] }}"
        );
        let net = cluster().policy("p", &spec);
        net.check(Accept, "default/db", "default/api:8080");
        net.check(DenyEgress, "default/db", "default/api-2:8080");
        net.check(Accept, "default/db", "default/api-2:9090");
        net.check(DenyEgress, "default/api", "8.8.8.8:8080");
    }
}

#[test]
fn rule_11_8_a_service_is_judged_by_the_endpoint_behind_it() {
    let spec = |peer: &str, port: u16| {
        format!(
            "{{ podSelector: {{ matchLabels: {{ app: api }} }}, policyTypes: [Egress], egress: [{{ to: [{{ {peer} }}], ports: [{{ port: {port} }}] }}] }}"
        )
    };
    let frontend = "10.96.0.20:80";
    let to_endpoint = cluster().policy("p", &spec("podSelector: { matchLabels: { app: db } }", 5432));
    let flow = via(to_endpoint.flow("default/api", "default/db:5432"), frontend);
    assert_eq!(to_endpoint.outcome(&flow), Accept);
    let to_service_port = cluster().policy("p", &spec("podSelector: { matchLabels: { app: db } }", 80));
    assert_eq!(to_service_port.outcome(&flow), DenyEgress);
    let to_cluster_ip = cluster().policy("p", &spec("ipBlock: { cidr: 10.96.0.0/12 }", 5432));
    assert_eq!(to_cluster_ip.outcome(&flow), DenyEgress);
}

#[test]
fn rule_11_8_a_client_of_a_cluster_ip_keeps_its_identity() {
    let net = cluster()
        .policy("p", "{ podSelector: { matchLabels: { app: db } }, ingress: [{ from: [{ podSelector: { matchLabels: { app: api } } }] }] }");
    let flow = |from| via(net.flow(from, "default/db:5432"), "10.96.0.20:80");
    assert_eq!(net.outcome(&flow("default/api")), Accept);
    assert_eq!(net.outcome(&flow("web/front")), DenyIngress);
}

#[test]
fn rule_11_9_through_a_node_port_the_pod_sees_the_node_and_so_do_its_rules() {
    let net = |from: &str| {
        let spec = format!("{{ podSelector: {{ matchLabels: {{ app: db }} }}, ingress: [{{ from: [{from}] }}] }}");
        cluster().policy("p", &spec)
    };
    let outcome = |net: &crate::support::Cluster, from: &str, node: &str| {
        let flow = via(net.flow(from, "default/db:5432"), "172.18.0.3:30080");
        net.outcome(&masqueraded(flow, node))
    };
    let of_client = net("{ ipBlock: { cidr: 203.0.113.7/32 } }");
    assert_eq!(outcome(&of_client, "203.0.113.7", "172.18.0.3"), DenyIngress);
    let of_node = net("{ ipBlock: { cidr: 172.18.0.0/16 } }");
    assert_eq!(outcome(&of_node, "203.0.113.7", "172.18.0.3"), Accept);
    let of_pods = net("{ podSelector: {} }, { namespaceSelector: {} }");
    assert_eq!(outcome(&of_pods, "default/api", "172.18.0.3"), DenyIngress);
    // Policy Local: the client's address stays.
    let flow = via(of_client.flow("203.0.113.7", "default/db:5432"), "172.18.0.2:30080");
    assert_eq!(of_client.outcome(&flow), Accept);
}

#[test]
fn rule_11_10_a_pods_own_node_is_always_allowed_and_other_nodes_are_not() {
    let net = cluster().policy("p", DENY_ALL_INGRESS);
    net.check(Accept, "172.18.0.2", "default/db:5432");
    net.check(Accept, "172.18.0.2", "default/db:ICMP");
    net.check(DenyIngress, "172.18.0.3", "default/db:5432");
    net.check(Accept, "172.18.0.3", "default/api-2:9090");
    // Who only passes through the node does not become the node.
    let outside = masqueraded(net.flow("203.0.113.7", "default/db:5432"), "172.18.0.2");
    assert_eq!(net.outcome(&outside), DenyIngress);
}

#[test]
fn rule_11_10_a_pod_always_reaches_its_own_address() {
    let net = cluster().policy("in", DENY_ALL_INGRESS).policy("out", DENY_ALL_EGRESS);
    net.check(Accept, "default/db", "default/db:5432");
}

#[test]
fn rule_11_11_a_hairpin_through_a_service_is_judged_in_both_directions() {
    let itself = "podSelector: { matchLabels: { app: db } }";
    let hairpin = |net: &crate::support::Cluster| {
        let flow = via(net.flow("default/db", "default/db:5432"), "10.96.0.20:80");
        net.outcome(&masqueraded(flow, "172.18.0.2"))
    };
    assert_eq!(hairpin(&cluster()), Accept);
    assert_eq!(hairpin(&cluster().policy("out", DENY_ALL_EGRESS)), DenyEgress);
    assert_eq!(hairpin(&cluster().policy("in", DENY_ALL_INGRESS)), DenyIngress);
    let allowed = cluster().policy("in", &format!("{{ podSelector: {{}}, ingress: [{{ from: [{{ {itself} }}] }}] }}"));
    assert_eq!(hairpin(&allowed), Accept, "masquerading does not hide the pod from itself");
}

#[test]
fn rule_11_12_pods_of_the_host_network_are_not_isolated() {
    let net = cluster()
        .host_network_pod("default/agent", "app=agent", "172.18.0.2")
        .policy("in", DENY_ALL_INGRESS)
        .policy("out", DENY_ALL_EGRESS);
    net.check(Accept, "web/front", "default/agent:9100");
    net.check(Accept, "default/agent", "8.8.8.8:443");
}

#[test]
fn rule_11_17_other_protocols_are_allowed_only_by_rules_without_ports() {
    let with_ports = cluster().policy(
        "p",
        "{ podSelector: {}, ingress: [{ ports: [{ protocol: TCP }, { protocol: UDP }, { protocol: SCTP }] }] }",
    );
    with_ports.check(DenyIngress, "web/front", "default/db:ICMP");
    with_ports.check(Accept, "web/front", "default/db:7/SCTP");
    let without = cluster().policy("p", "{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: {} }] }] }");
    without.check(Accept, "web/front", "default/db:ICMP");
    without.check(DenyIngress, "8.8.8.8", "default/db:ICMP");
}

#[test]
fn rule_11_2_policies_have_no_order_and_none_takes_away_what_another_allows() {
    let allow = ("allow", "{ podSelector: {}, ingress: [{ ports: [{ port: 80 }] }] }");
    let deny = ("deny", DENY_ALL_INGRESS);
    for [one, other] in [[allow, deny], [deny, allow], [("zz", allow.1), ("aa", deny.1)]] {
        let net = cluster().policy(one.0, one.1).policy(other.0, other.1);
        net.check(Accept, "web/front", "default/db:80");
        net.check(DenyIngress, "web/front", "default/db:81");
    }
}

#[test]
fn rule_11_6_overlapping_exceptions_take_away_what_any_of_them_names() {
    let net = cluster().policy("p", "{ podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: 10.0.0.0/8, except: [10.244.2.4/32, 10.244.2.0/24, 10.244.2.0/28, 10.240.0.0/12] } }] }] }");
    net.check(DenyIngress, "web/front", "default/db:80");
    net.check(DenyIngress, "10.245.0.1", "default/db:80");
    net.check(Accept, "10.200.0.1", "default/db:80");
}

#[test]
fn rule_11_6_ten_thousand_blocks_are_each_obeyed() {
    let block = |number: u32| {
        format!(
            "{{ ipBlock: {{ cidr: 20.{}.{}.0/24, except: [20.{}.{}.128/25] }} }}",
            number / 200,
            number % 200,
            number / 200,
            number % 200
        )
    };
    let blocks: Vec<String> = (0..10_000).map(block).collect();
    let net =
        cluster().policy("p", &format!("{{ podSelector: {{}}, ingress: [{{ from: [{}] }}] }}", blocks.join(", ")));
    let table = net.table();
    for number in (0..10_000).step_by(37) {
        let (high, low) = (number / 200, number % 200);
        for (address, allowed) in [(format!("20.{high}.{low}.5"), true), (format!("20.{high}.{low}.200"), false)] {
            assert_eq!(table.allows(&net.flow(&address, "default/db:80")).is_ok(), allowed, "{address}");
        }
    }
    for address in ["20.50.0.5", "20.0.200.5", "19.255.255.255"] {
        assert!(table.allows(&net.flow(address, "default/db:80")).is_err(), "{address}");
    }
}

#[test]
fn rule_11_2_a_policy_that_selects_nobody_changes_nothing() {
    let net =
        cluster().policy("p", "{ podSelector: { matchLabels: { app: nobody } }, policyTypes: [Ingress, Egress] }");
    net.check(Accept, "web/front", "default/db:80");
    net.check(Accept, "default/db", "8.8.8.8:443");
    // And one whose peers are nobody allows nobody.
    let net = cluster().policy("p", "{ podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { app: nobody } } }, { ipBlock: { cidr: 192.0.2.0/32 } }] }] }");
    net.check(DenyIngress, "default/api", "default/db:80");
}

#[test]
fn rule_11_10_from_another_node_only_an_ip_block_lets_in() {
    let net = |from: &str| cluster().policy("p", &format!("{{ podSelector: {{}}, ingress: [{{ from: [{from}] }}] }}"));
    net("{ podSelector: {} }, { namespaceSelector: {} }").check(DenyIngress, "172.18.0.3", "default/db:5432");
    net("{ ipBlock: { cidr: 172.18.0.3/32 } }").check(Accept, "172.18.0.3", "default/db:5432");
}
