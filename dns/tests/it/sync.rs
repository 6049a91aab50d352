//! The zone follows the cluster.

use crate::cluster::{cluster, code, namespace, service, slice};
use dns::{Config, Sources};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use informer::{Activity, Informer, Informers};
use proptest::prelude::*;
use serde_json::json;

#[tokio::test(start_paused = true)]
async fn until_everything_is_listed_names_in_the_zone_fail_instead_of_not_existing() {
    // A client whose API never answers.
    let never = silent_api::never();
    let informers = Informers::new(never, Activity::default());
    let sources = Sources {
        services: Informer::detached(Activity::default()),
        endpoint_slices: Informer::detached(Activity::default()),
        namespaces: Informer::detached(Activity::default()),
        pods: informers.of(),
    };
    let mut cluster = cluster().await;
    cluster.dns = dns::start_with(sources.clone(), Config::new("cluster.local"));
    sources.namespaces.apply(namespace("default"));
    sources.services.apply(service("default", "web", json!({"clusterIP": "10.96.1.1"})));
    for name in ["web.default.svc.cluster.local", "cluster.local", "1.1.96.11.in-addr.arpa"] {
        assert_eq!(code(&cluster.ask(name, RecordType::A).await), ResponseCode::ServFail, "{name}");
    }
    assert_eq!(code(&cluster.ask("example.com", RecordType::A).await), ResponseCode::NXDomain);
    let soon = std::time::Duration::from_secs(60);
    assert!(tokio::time::timeout(soon, cluster.dns.synced()).await.is_err());
}

mod silent_api {
    /// A client whose requests are never answered.
    pub(crate) fn never() -> kube::Client {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
        });
        kube::Client::new(service, "default")
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_changes_its_kind_leaves_nothing_behind() {
    let cluster = cluster().await;
    cluster.service("default", "web", json!({"clusterIP": "10.96.1.1"})).await;
    cluster.slice(("default", "web"), "web-1", &[("10.244.1.5", "", json!(true))], json!([])).await;
    assert_eq!(cluster.ask("1.1.96.10.in-addr.arpa", RecordType::PTR).await.answers.len(), 1);
    cluster.service("default", "web", json!({"type": "ExternalName", "externalName": "example.com"})).await;
    assert_eq!(cluster.dig("1.1.96.10.in-addr.arpa", RecordType::PTR).await, "NXDomain\n");
    assert_eq!(cluster.dig("5.1.244.10.in-addr.arpa", RecordType::PTR).await, "NXDomain\n");
    cluster.service("default", "web", json!({"clusterIP": "None"})).await;
    assert_eq!(cluster.ask("web.default.svc.cluster.local", RecordType::A).await.answers.len(), 1);
    cluster.sources.services.delete(service("default", "web", json!({})));
    cluster.activity.idle().await;
    cluster.no_such_name("web.default.svc.cluster.local").await;
    assert_eq!(cluster.dig("5.1.244.10.in-addr.arpa", RecordType::PTR).await, "NXDomain\n");
}

#[tokio::test(start_paused = true)]
async fn a_slice_counts_for_the_service_that_its_label_names_now() {
    let cluster = cluster().await;
    for name in ["a", "b"] {
        cluster.service("default", name, json!({"clusterIP": "None"})).await;
    }
    let endpoints = [("10.244.1.5", "", json!(true))];
    cluster.slice(("default", "a"), "s", &endpoints, json!([])).await;
    assert_eq!(cluster.ask("a.default.svc.cluster.local", RecordType::A).await.answers.len(), 1);
    cluster.slice(("default", "b"), "s", &endpoints, json!([])).await;
    cluster.no_such_name("a.default.svc.cluster.local").await;
    assert_eq!(cluster.ask("b.default.svc.cluster.local", RecordType::A).await.answers.len(), 1);
    cluster.sources.endpoint_slices.delete(slice(("default", "b"), "s", &endpoints, json!([])));
    cluster.activity.idle().await;
    cluster.no_such_name("b.default.svc.cluster.local").await;
}

#[tokio::test(start_paused = true)]
async fn the_serial_grows_with_the_zone_and_only_then() {
    let cluster = cluster().await;
    let serial = async || cluster.ask("cluster.local", RecordType::SOA).await.answers[0].data.to_string();
    let before = serial().await;
    cluster.service("kube-system", "kube-dns", json!({"clusterIP": "10.96.0.10", "type": "ClusterIP"})).await;
    assert_eq!(serial().await, before);
    cluster.service("kube-system", "kube-dns", json!({"clusterIP": "10.96.0.11"})).await;
    assert_ne!(serial().await, before);
}

/// One step of a cluster's life: which of few objects changes, and into what.
#[derive(Clone, Debug)]
enum Step {
    Service(u8, u8),
    Slice(u8, u8, u8),
    Namespace(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8, 0..4u8).prop_map(|(name, state)| Step::Service(name, state)),
        (0..4u8, 0..3u8, 0..4u8).prop_map(|(name, of, state)| Step::Slice(name, of, state)),
        any::<bool>().prop_map(Step::Namespace),
    ]
}

fn take(sources: &Sources, step: &Step) {
    match step {
        Step::Service(name, state) => {
            let spec = match state {
                1 => json!({"clusterIP": "10.96.1.1", "ports": [{"name": "p", "port": 1}]}),
                2 => json!({"clusterIP": "None"}),
                _ => json!({"type": "ExternalName", "externalName": "s0.default.svc.cluster.local"}),
            };
            let service = service("default", &format!("s{name}"), spec);
            if *state == 0 { sources.services.delete(service) } else { sources.services.apply(service) }
        }
        Step::Slice(name, of, state) => {
            let ready = json!(state % 2 == 0);
            let address = format!("10.244.1.{state}");
            let ports = json!([{"name": "p", "port": 1}]);
            let of = format!("s{of}");
            let slice = slice(("default", &of), &format!("e{name}"), &[(&address, "", ready)], ports);
            if *state == 0 { sources.endpoint_slices.delete(slice) } else { sources.endpoint_slices.apply(slice) }
        }
        Step::Namespace(true) => sources.namespaces.apply(namespace("default")),
        Step::Namespace(false) => sources.namespaces.delete(namespace("default")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_zone_that_has_followed_every_change_equals_one_made_afresh(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut cluster = cluster().await;
            for step in &steps {
                take(&cluster.sources, step);
                cluster.activity.idle().await;
            }
            let followed = everything(&cluster).await;
            cluster.dns = dns::start_with(cluster.sources.clone(), Config::new("cluster.local"));
            cluster.dns.synced().await;
            assert_eq!(followed, everything(&cluster).await);
        });
    }
}

/// The answers for all names that [`take`] can bring about.
async fn everything(cluster: &crate::cluster::Cluster) -> String {
    let mut all = String::new();
    let services = (0..3).flat_map(|n| {
        let service = format!("s{n}.default.svc.cluster.local");
        [format!("_p._tcp.{service}"), format!("10-244-1-2.{service}"), service]
    });
    let reverse = ["1.1.96.10", "1.1.244.10", "2.1.244.10", "3.1.244.10"].map(|ip| format!("{ip}.in-addr.arpa"));
    for name in services.chain(reverse).chain(["default.svc.cluster.local".to_owned()]) {
        for kind in [RecordType::A, RecordType::SRV, RecordType::PTR] {
            all += &format!("{name} {kind}: {}", cluster.dig(&name, kind).await);
        }
    }
    all
}
