//! Kinds whose rows bring their schema: ClusterNetworkPolicy, and whatever a CustomResourceDefinition adds.

use crate::support::{Server, server};
use apiserver::registry::ResourceKind;
use apiserver::schema::openapi::Documents;
use apiserver::schema::structural::object_type;
use serde_json::{Value, json};

const GROUP: &str = "/apis/policy.networking.k8s.io/v1alpha2";
const POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

/// A policy of every part there is.
fn policy(name: &str) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": name, "labels": {"team": "net"}},
        "spec": {
            "tier": "Admin",
            "priority": 10,
            "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}},
            "ingress": [
                {"name": "api", "action": "Accept", "from": [{"namespaces": {"matchLabels": {"env": "prod"}}}],
                 "protocols": [{"tcp": {"destinationPort": {"number": 5432}}}, {"destinationNamedPort": "metrics"}]},
                {"action": "Deny", "from": [{"pods": {"podSelector": {"matchExpressions": [
                    {"key": "app", "operator": "NotIn", "values": ["api"]}]}}}]}],
            "egress": [
                {"action": "Pass", "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}],
                 "protocols": [{"udp": {"destinationPort": {"range": {"start": 53, "end": 54}}}}]},
                {"action": "Accept", "to": [{"domainNames": ["*.example.com"]}, {"nodes": {}}]}]
        }
    })
}

/// A policy with `value` at `pointer`.
fn with(pointer: &str, value: Value) -> Value {
    let mut policy = policy("p");
    *policy.pointer_mut(pointer).expect("a place in the policy") = value;
    policy
}

#[tokio::test(start_paused = true)]
async fn a_whole_policy_is_read_back_as_it_was_written() {
    let server = server().await;
    let created = server.post(&format!("{POLICIES}?fieldValidation=Strict"), policy("p")).await.created();
    assert_eq!(created["spec"], policy("p")["spec"]);
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:tier"], json!({}));
    assert_eq!(server.get(&format!("{POLICIES}/p")).await.ok(), created);
    assert_eq!(server.get(POLICIES).await.ok()["items"][0]["spec"], created["spec"]);
}

#[tokio::test(start_paused = true)]
async fn rule_12_7_the_policies_of_v1alpha1_are_kept_with_their_protocols_filled_in() {
    let server = server().await;
    let group = "/apis/policy.networking.k8s.io/v1alpha1";
    let rule = json!({"action": "Allow", "from": [{"namespaces": {}}], "ports": [{"portNumber": {"port": 80}}, {"portRange": {"start": 1, "end": 9}}]});
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let admin = json!({"priority": 5, "subject": {"namespaces": {}}, "ingress": [rule]});
    let admin = object("AdminNetworkPolicy", "a", admin);
    let created = server.post(&format!("{group}/adminnetworkpolicies?fieldValidation=Strict"), admin).await.created();
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(
        created["spec"]["ingress"][0]["ports"],
        json!([{"portNumber": {"port": 80, "protocol": "TCP"}}, {"portRange": {"start": 1, "end": 9, "protocol": "TCP"}}])
    );
    let baseline = |name: &str| object("BaselineAdminNetworkPolicy", name, json!({"subject": {"namespaces": {}}}));
    let url = format!("{group}/baselineadminnetworkpolicies?fieldValidation=Strict");
    server.post(&url, baseline("default")).await.created();
    server.post(&url, baseline("second")).await.expect(422);
    server
        .post(&url, object("BaselineAdminNetworkPolicy", "default", json!({"subject": {}, "priority": 1})))
        .await
        .expect(400);
}

#[tokio::test(start_paused = true)]
async fn a_value_of_a_wrong_type_is_refused_so_that_the_list_can_always_be_read() {
    let server = server().await;
    for (pointer, value, found, field, wanted) in [
        ("/spec/ingress/0/name", json!(false), "bool", "spec.ingress.name", "string"),
        ("/spec/priority", json!("10"), "string", "spec.priority", "int32"),
        ("/spec/priority", json!(1.5), "number 1.5", "spec.priority", "int32"),
        ("/spec/egress/0/to/0/networks", json!("10.0.0.0/8"), "string", "spec.egress.to.networks", "[]string"),
        ("/spec/egress/0/to/0/networks/0", json!(10), "number", "spec.egress.to.networks", "string"),
        ("/spec/subject/pods", json!([]), "array", "spec.subject.pods", "map[string]interface {}"),
        (
            "/spec/subject/pods/podSelector/matchLabels/app",
            json!(1),
            "number",
            "spec.subject.pods.podSelector.matchLabels.app",
            "string",
        ),
    ] {
        let status = server.post(&format!("{POLICIES}?fieldValidation=Ignore"), with(pointer, value)).await.expect(400);
        assert_eq!(
            status["message"],
            format!(
                "ClusterNetworkPolicy in version \"v1alpha2\" cannot be handled as a ClusterNetworkPolicy: json: cannot \
                 unmarshal {found} into Go struct field ClusterNetworkPolicy.{field} of type {wanted}"
            )
        );
    }
    server.post(POLICIES, policy("p")).await.created();
    let patch = json!({"spec": {"priority": "high"}});
    server.patch(&format!("{POLICIES}/p"), "merge-patch+json", patch).await.expect(400);
    assert_eq!(server.get(POLICIES).await.ok()["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_pruned_with_a_warning_or_refused_where_that_is_asked_for() {
    let server = server().await;
    let mut odd = policy("p");
    odd["spec"]["colour"] = "red".into();
    odd["spec"]["ingress"][0]["from"][0]["ipBlock"] = json!({});
    let refused = server.post(&format!("{POLICIES}?fieldValidation=Strict"), odd.clone()).await.expect(400);
    let message = refused["message"].as_str().expect("a text");
    assert!(
        message.ends_with(
            "strict decoding error: unknown field \"spec.colour\", unknown field \"spec.ingress[0].from[0].ipBlock\""
        ),
        "{message}"
    );
    let answer = server.post(POLICIES, odd).await;
    assert_eq!(answer.headers.get_all("warning").iter().count(), 2);
    assert_eq!(answer.headers["warning"], r#"299 - "unknown field \"spec.colour\"""#);
    assert_eq!(answer.created()["spec"], policy("p")["spec"]);
}

#[tokio::test(start_paused = true)]
async fn everything_that_typed_clients_need_must_be_there() {
    let server = server().await;
    let mut odd = policy("p");
    odd["spec"]["egress"][0]["protocols"] = json!([{"tcp": {"destinationPort": {"range": {"start": 1}}}}]);
    odd["spec"]["ingress"][0].as_object_mut().expect("a rule").remove("action");
    odd["spec"]["ingress"][1]["protocols"] = json!([]);
    let status = server.post(POLICIES, odd).await.expect(422);
    let causes: Vec<&str> = status["details"]["causes"]
        .as_array()
        .expect("causes")
        .iter()
        .map(|cause| cause["field"].as_str().expect("a field"))
        .collect();
    assert_eq!(
        causes,
        [
            "spec.ingress[0].action",
            "spec.ingress[1].protocols",
            "spec.egress[0].protocols[0].tcp.destinationPort.range.end"
        ]
    );
    server.post(POLICIES, policy("p")).await.created();
    let status = |time: &str| {
        let condition = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": time});
        json!({"status": {"conditions": [condition]}})
    };
    let path = format!("{POLICIES}/p/status");
    let refused = server.patch(&path, "merge-patch+json", status("yesterday")).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "status.conditions[0].lastTransitionTime");
    let set = server.patch(&path, "merge-patch+json", status("2026-01-01T00:00:00Z")).await.ok();
    assert_eq!(set["status"]["conditions"][0]["type"], "Accepted");
    assert_eq!(set["metadata"]["generation"], 1);
}

#[tokio::test(start_paused = true)]
async fn appliers_share_a_policy_and_strategic_merge_is_not_for_custom_resources() {
    let server = server().await;
    let apply = async |manager: &str, force: bool, object: Value| {
        let path = format!("{POLICIES}/p?fieldManager={manager}&force={force}");
        server.patch(&path, "apply-patch+yaml", object).await
    };
    apply("a", false, policy("p")).await.created();
    let other = json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "spec": {"priority": 20}});
    let conflict = apply("b", false, other.clone()).await.expect(409);
    assert_eq!(conflict["details"]["causes"][0]["field"], ".spec.priority");
    assert_eq!(apply("b", true, other).await.ok()["spec"]["priority"], 20);
    let refused = server.patch(&format!("{POLICIES}/p"), "strategic-merge-patch+json", json!({})).await.expect(415);
    assert!(refused["message"].as_str().is_some_and(|text| !text.contains("strategic")), "{refused}");
}

fn document(server: &Server, path: &str) -> Value {
    let documents = Documents::new(&server.api.registry(), server.api.schemas().clone(), "v1.36.0", None);
    serde_json::from_slice(&documents.v3(path).expect("a document").body).expect("JSON")
}

#[tokio::test(start_paused = true)]
async fn documents_explain_every_field_of_a_policy() {
    fn undescribed(schema: &Value, path: &str, out: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["description"].as_str().is_none_or(str::is_empty) {
                out.push(path.clone());
            }
            undescribed(property, &path, out);
            undescribed(&property["items"], &path, out);
        }
    }
    let server = server().await;
    let document = document(&server, GROUP.trim_start_matches('/'));
    let schemas = &document["components"]["schemas"];
    let kind = &schemas["io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicy"];
    let spec = &kind["properties"]["spec"];
    assert_eq!(spec["required"], json!(["priority", "subject", "tier"]));
    assert_eq!(spec["properties"]["tier"]["enum"], json!(["Admin", "Baseline"]));
    assert_eq!(spec["properties"]["priority"]["maximum"], 1000);
    let mut missing = Vec::new();
    undescribed(spec, "spec", &mut missing);
    undescribed(&kind["properties"]["status"], "status", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
    let list = &schemas["io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicyList"];
    assert_eq!(list["x-kubernetes-group-version-kind"][0]["kind"], "ClusterNetworkPolicyList");
    assert_eq!(
        list["properties"]["items"]["items"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicy"
    );
    let patch = &document["paths"][format!("{POLICIES}/{{name}}")]["patch"]["requestBody"]["content"];
    assert!(patch.get("application/merge-patch+json").is_some());
    assert!(patch.get("application/strategic-merge-patch+json").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_added_later_is_checked_pruned_defaulted_and_published_by_the_schema_it_brings() {
    let server = server().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "schedule": {"type": "string", "description": "When."},
        "keep": {"type": "integer", "default": 3}}}}});
    let schema = object_type("dev.example.v1.Backup", &schema).expect("structural");
    server.api.add_kind(ResourceKind::new("example.dev", "v1", "Backup", "backups").with_schema(schema));
    let path = "/apis/example.dev/v1/namespaces/default/backups";
    let backup = |schedule: Value| json!({"metadata": {"name": "b"}, "spec": {"schedule": schedule, "x": 1}});
    server.post(path, backup(json!(7))).await.expect(400);
    let created = server.post(path, backup(json!("daily"))).await;
    assert_eq!(created.headers["warning"], r#"299 - "unknown field \"spec.x\"""#);
    assert_eq!(created.created()["spec"], json!({"schedule": "daily", "keep": 3}));
    let document = document(&server, "apis/example.dev/v1");
    let schema = &document["components"]["schemas"]["dev.example.v1.Backup"];
    assert_eq!(schema["properties"]["spec"]["properties"]["schedule"]["description"], "When.");
}
