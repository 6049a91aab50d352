//! Rules of ownership: who is deleted with an owner, who is disowned, and who is waited for.

use super::*;
use kube::discovery::ApiResource;

struct Object(Entry);

/// A ConfigMap called and identified by `name`.
fn object(name: &str) -> Object {
    let resource = ApiResource {
        group: String::new(),
        version: "v1".into(),
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        plural: "configmaps".into(),
    };
    Object(Entry {
        kind: Arc::new(Kind { resource, is_namespaced: true, has_delete_collection: true }),
        namespace: "default".into(),
        name: name.into(),
        uid: name.into(),
        resource_version: Some("1".into()),
        owners: vec![],
        finalizers: vec![],
        is_deleted: false,
    })
}

impl Object {
    fn owned_by(mut self, owner: &str) -> Self {
        self.0.owners.push(OwnerReference { uid: owner.into(), name: owner.into(), ..OwnerReference::default() });
        self
    }

    fn blocking(mut self, owner: &str) -> Self {
        self = self.owned_by(owner);
        self.0.owners.last_mut().expect("an owner").block_owner_deletion = Some(true);
        self
    }

    fn deleted(mut self, finalizer: &str) -> Self {
        self.0.is_deleted = true;
        self.0.finalizers.push(finalizer.into());
        self
    }
}

fn graph(objects: Vec<Object>) -> Graph {
    let mut graph = Graph::default();
    for object in objects {
        graph.observe(object.0);
    }
    graph
}

fn missing(uids: &[&str]) -> HashSet<String> {
    uids.iter().map(|uid| (*uid).to_owned()).collect()
}

const BACKGROUND: Decision = Decision::Delete { propagation: Propagation::Background, unblock: false };

#[test]
fn the_dependents_of_a_gone_owner_are_deleted() {
    let mut graph = graph(vec![object("owner"), object("child").owned_by("owner")]);
    assert_eq!(graph.decide("child", &missing(&[])), Decision::Nothing);
    assert_eq!(graph.remove("owner"), ["child"]);
    assert_eq!(graph.unknown_owners("child").len(), 1);
    assert_eq!(graph.decide("child", &missing(&["owner"])), BACKGROUND);
}

#[test]
fn an_owner_that_never_existed_is_as_good_as_gone() {
    let mut graph = graph(vec![]);
    assert_eq!(graph.observe(object("child").owned_by("nobody").0), ["child"]);
    assert_eq!(graph.decide("child", &missing(&["nobody"])), BACKGROUND);
    assert_eq!(graph.decide("child", &missing(&[])), Decision::Nothing, "the API knows it, the graph will");
}

#[test]
fn an_owner_in_another_namespace_is_nobody() {
    let mut stranger = object("owner");
    stranger.0.namespace = "elsewhere".into();
    let graph = graph(vec![stranger, object("child").owned_by("owner")]);
    assert_eq!(graph.unknown_owners("child").len(), 1);
}

#[test]
fn one_remaining_owner_keeps_an_object_and_the_others_are_disowned() {
    let graph = graph(vec![object("stays"), object("child").owned_by("gone").owned_by("stays")]);
    assert_eq!(graph.decide("child", &missing(&["gone"])), Decision::Disown(missing(&["gone"])));
}

#[test]
fn foreground_deletion_waits_for_blocking_dependents_only() {
    let mut graph =
        graph(vec![object("owner"), object("blocker").blocking("owner"), object("bystander").owned_by("owner")]);
    assert_eq!(graph.observe(object("owner").deleted(FOREGROUND).0), ["owner"]);
    let wait = graph.decide("owner", &missing(&[]));
    assert_eq!(wait, Decision::Wait(vec!["blocker".into(), "bystander".into()]));
    assert_eq!(graph.decide("blocker", &missing(&[])), BACKGROUND);
    assert_eq!(graph.remove("blocker"), ["owner"]);
    assert_eq!(graph.decide("owner", &missing(&[])), Decision::Finish);
}

#[test]
fn foreground_deletion_goes_down_the_whole_tree() {
    let graph = graph(vec![
        object("top").deleted(FOREGROUND),
        object("middle").blocking("top"),
        object("leaf").blocking("middle"),
    ]);
    let foreground = Decision::Delete { propagation: Propagation::Foreground, unblock: false };
    assert_eq!(graph.decide("middle", &missing(&[])), foreground);
    assert_eq!(graph.decide("leaf", &missing(&[])), Decision::Nothing);
}

#[test]
fn a_circle_of_owners_does_not_wait_for_itself() {
    let graph = graph(vec![object("a").blocking("b").deleted(FOREGROUND), object("b").blocking("a")]);
    let unblocking = Decision::Delete { propagation: Propagation::Foreground, unblock: true };
    assert_eq!(graph.decide("b", &missing(&[])), unblocking);
}

#[test]
fn orphaning_lets_the_dependents_go() {
    let mut graph = graph(vec![object("owner"), object("child").owned_by("owner")]);
    assert_eq!(graph.observe(object("owner").deleted(ORPHAN).0), ["owner"]);
    assert_eq!(graph.decide("owner", &missing(&[])), Decision::Orphan(vec!["child".into()]));
    graph.observe(object("child").0);
    assert_eq!(graph.decide("owner", &missing(&[])), Decision::Orphan(vec![]));
    assert!(graph.remove("owner").is_empty());
}

#[test]
fn a_dependent_that_finds_another_owner_stands_in_nobodys_way() {
    let mut graph = graph(vec![object("owner").deleted(FOREGROUND), object("child").blocking("owner")]);
    assert_eq!(graph.observe(object("child").0), ["owner"]);
    assert_eq!(graph.decide("owner", &missing(&[])), Decision::Finish);
}
