//! The rules of SEMANTICS 4.1 and 4.2: which Services are followed, and whom a change concerns.

use super::index::selects;
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn service(name: &str, spec: Value) -> Arc<Service> {
    let service = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    Arc::new(serde_json::from_value(service).expect("a Service"))
}

fn pod(namespace: &str, name: &str, labels: Value) -> Arc<Pod> {
    let pod = json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}});
    Arc::new(serde_json::from_value(pod).expect("a Pod"))
}

fn names(keys: Vec<Key>) -> Vec<String> {
    let mut names: Vec<String> = keys.into_iter().map(|key| key.name).collect();
    names.sort();
    names
}

#[test]
fn rule_4_1_without_a_selector_and_with_an_external_name_there_is_nothing_to_watch() {
    let web = json!({"app": "web"});
    assert!(selector(&service("a", json!({"selector": web}))).is_some());
    assert!(selector(&service("a", json!({"selector": web, "clusterIP": "None"}))).is_some(), "headless or not");
    assert!(selector(&service("a", json!({"selector": {}}))).is_none());
    assert!(selector(&service("a", json!({}))).is_none());
    assert!(selector(&service("a", json!({"type": "ExternalName", "selector": web}))).is_none());
}

#[test]
fn rule_4_2_a_pod_is_selected_by_all_labels_of_the_selector() {
    let service = service("a", json!({"selector": {"app": "web", "tier": "front"}}));
    let pod = |labels| pod("default", "p", labels);
    assert!(selects(&service, &pod(json!({"app": "web", "tier": "front", "more": "x"}))));
    assert!(!selects(&service, &pod(json!({"app": "web"}))));
    assert!(!selects(&service, &pod(json!({"app": "web", "tier": "back"}))));
}

#[test]
fn rule_4_2_a_pod_whose_labels_change_concerns_the_services_of_before_and_of_now() {
    let selection = Selection::default();
    let of = |name: &str, selector: Value| {
        selection.service(&Update::Applied(service(name, json!({"selector": selector}))));
    };
    of("web", json!({"app": "web"}));
    of("api", json!({"app": "api"}));
    of("none", json!({}));
    let pod = |labels| pod("default", "p", labels);
    let concerned = |update: Update<Pod>| names(selection.pod(&update));
    assert_eq!(concerned(Update::Applied(pod(json!({"app": "web"})))), ["web"]);
    assert_eq!(concerned(Update::Applied(pod(json!({"app": "api"})))), ["api", "web"]);
    assert_eq!(concerned(Update::Applied(pod(json!({"app": "api"})))), ["api"]);
    // What was deleted says least of all what it was.
    assert_eq!(concerned(Update::Deleted(pod(json!({})))), ["api"]);
    assert_eq!(concerned(Update::Deleted(pod(json!({"app": "api"})))), Vec::<String>::new());
}

#[test]
fn rule_4_2_only_pods_of_the_same_namespace_are_considered() {
    let selection = Selection::default();
    let web = service("web", json!({"selector": {"app": "web"}}));
    selection.service(&Update::Applied(web.clone()));
    assert!(selection.pod(&Update::Applied(pod("other", "p", json!({"app": "web"})))).is_empty());
    selection.pod(&Update::Applied(pod("default", "p", json!({"app": "web"}))));
    let found: Vec<_> = selection.pods_of(&web).iter().map(|pod| pod.metadata.namespace.clone()).collect();
    assert_eq!(found, [Some("default".to_owned())]);
}

/// One change: of a Service or a pod, which of them, and its labels; without labels it is deleted.
type Step = (bool, u8, Option<Vec<(u8, u8)>>);

fn labels(terms: &[(u8, u8)]) -> Value {
    terms
        .iter()
        .map(|(label, value)| (format!("l{label}"), json!(format!("v{value}"))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_looking_at_everything_finds(
        steps in proptest::collection::vec(
            (any::<bool>(), 0u8..6, proptest::option::weighted(0.8, proptest::collection::vec((0u8..3, 0u8..2), 0..3))), 1..60)
    ) {
        let selection = Selection::default();
        let mut services = std::collections::BTreeMap::new();
        let mut pods = std::collections::BTreeMap::new();
        for (of_service, number, terms) in steps as Vec<Step> {
            let name = format!("n{number}");
            if of_service {
                let new = service(&name, json!({"selector": labels(terms.as_deref().unwrap_or_default())}));
                if terms.is_some() {
                    services.insert(name, new.clone());
                    selection.service(&Update::Applied(new));
                } else {
                    services.remove(&name);
                    selection.service(&Update::Deleted(new));
                }
            } else {
                let new = pod("default", &name, labels(terms.as_deref().unwrap_or_default()));
                let before = if terms.is_some() { pods.insert(name, new.clone()) } else { pods.remove(&name) };
                let is_concerned = |service: &Arc<Service>| {
                    before.as_ref().is_some_and(|pod| selects(service, pod)) || (terms.is_some() && selects(service, &new))
                };
                let expected: Vec<String> =
                    services.iter().filter(|(_, service)| is_concerned(service)).map(|(name, _)| name.clone()).collect();
                let update = if terms.is_some() { Update::Applied(new.clone()) } else { Update::Deleted(new.clone()) };
                prop_assert_eq!(names(selection.pod(&update)), expected);
            }
            for service in services.values() {
                let expected: Vec<_> = pods.values().filter(|pod| selects(service, pod)).cloned().collect();
                prop_assert_eq!(selection.pods_of(service), expected);
            }
        }
    }
}
