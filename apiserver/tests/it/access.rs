//! Who may: roles and what their holders may grant, nodes, reviews, certificates asked for, the turns of requests.

use crate::support::{Answer, Server, config};
use apiserver::authentication::TokenAuthenticator;
use apiserver::authn::UserInfo;
use apiserver::authz::{Authorizer, Union};
use apiserver::certificate_requests::CertificateRequests;
use apiserver::kinds::{Networking, registry};
use apiserver::node_authorizer::NodeAuthorizer;
use apiserver::node_restriction::NodeRestriction;
use apiserver::rbac::Rbac;
use apiserver::rbac_escalation::RbacEscalation;
use apiserver::tokens::TokenSigner;
use apiserver::{ApiServer, Config, rbac_bootstrap};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::{MemoryStore, Store};

/// A server with everything that decides who may, and its default roles.
pub(crate) struct House {
    pub(crate) admin: Server,
    pub(crate) signer: Arc<TokenSigner>,
}

impl House {
    pub(crate) async fn new() -> House {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let rbac = Rbac::start(store.clone()).await;
        let nodes = NodeAuthorizer::start(store.clone()).await;
        let authorizer: Arc<dyn Authorizer> = Arc::new(Union(vec![Arc::new(nodes), Arc::new(rbac.clone())]));
        let signer = Arc::new(TokenSigner::generate().expect("a key"));
        let (start, since) = (config().start, tokio::time::Instant::now());
        let now = move || start.checked_add(since.elapsed()).expect("in range");
        let tokens = Arc::new(TokenAuthenticator::new(store.clone(), signer.clone(), "owner".to_owned(), now));
        let config = Config {
            authenticator: tokens.clone(),
            authorizer: authorizer.clone(),
            admission: vec![
                Arc::new(NodeRestriction),
                Arc::new(RbacEscalation { rbac, authorizer: authorizer.clone() }),
                Arc::new(CertificateRequests { authorizer }),
            ],
            ..config()
        };
        let api = ApiServer::new(store, registry(Networking::default()), config);
        apiserver::install_defaults(&api, &tokens, &signer);
        let admin = Server { router: api.router_as(UserInfo::admin()), api };
        admin.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await.created();
        admin.post("/api/v1/namespaces", json!({"metadata": {"name": "kube-system"}})).await.created();
        admin.post("/api/v1/namespaces", json!({"metadata": {"name": "kube-public"}})).await.created();
        for name in ["system-node-critical", "system-cluster-critical"] {
            let class = json!({"metadata": {"name": name}, "value": 2_000_000_000});
            admin.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.created();
        }
        for object in rbac_bootstrap::objects() {
            admin.post(&rbac_bootstrap::collection(&object), object).await.created();
        }
        House { admin, signer }
    }

    /// The same server, asked by somebody else.
    pub(crate) fn by(&self, user: UserInfo) -> Server {
        Server { api: self.admin.api.clone(), router: self.admin.api.router_as(user) }
    }

    pub(crate) fn user(&self, name: &str) -> Server {
        self.by(UserInfo::new(name, &[]))
    }

    pub(crate) fn node(&self, name: &str) -> Server {
        self.by(UserInfo::new(format!("system:node:{name}"), &["system:nodes"]))
    }

    /// With the header `Authorization: Bearer …`, as over a wire.
    pub(crate) async fn whoami(&self, token: &str) -> Answer {
        let over_the_wire = Server { api: self.admin.api.clone(), router: self.admin.api.router() };
        let headers = [("content-type", "application/json"), ("authorization", &*format!("Bearer {token}"))];
        over_the_wire.send(http::Method::POST, WHOAMI, &headers, "{}").await
    }

    /// Gives `user` these rules in `default`.
    async fn grant(&self, user: &str, name: &str, rules: Value) {
        self.admin.post(ROLES, json!({"metadata": {"name": name}, "rules": rules})).await.created();
        let subject = json!({"kind": "User", "apiGroup": GROUP, "name": user});
        let binding = json!({"metadata": {"name": name}, "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name}, "subjects": [subject]});
        self.admin.post(BINDINGS, binding).await.created();
    }
}

const GROUP: &str = "rbac.authorization.k8s.io";
const WHOAMI: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const SECRETS: &str = "/api/v1/namespaces/default/secrets";
pub(crate) const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";

fn role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn rule(verbs: &[&str], resource: &str) -> Value {
    json!({"verbs": verbs, "apiGroups": [""], "resources": [resource]})
}

#[tokio::test(start_paused = true)]
async fn nobody_grants_what_he_does_not_have() {
    let house = House::new().await;
    let writes =
        json!({"verbs": ["create", "update", "get"], "apiGroups": [GROUP], "resources": ["roles", "rolebindings"]});
    house.grant("jane", "jane", json!([writes, rule(&["get", "list"], "pods")])).await;
    let jane = house.user("jane");
    jane.post(ROLES, role("readers", json!([rule(&["get"], "pods")]))).await.created();
    let refused = jane
        .post(ROLES, role("more", json!([rule(&["get", "delete", "list"], "pods"), rule(&["get"], "secrets")])))
        .await;
    assert_eq!(
        refused.expect(403)["message"],
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to \
         grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}\n{APIGroups:[\"\"], \
         Resources:[\"secrets\"], Verbs:[\"get\"]}"
    );
    let mut wider = jane.get(&format!("{ROLES}/readers")).await.ok();
    wider["rules"] = json!([rule(&["get"], "secrets")]);
    jane.put(&format!("{ROLES}/readers"), wider.clone()).await.expect(403);

    // What one may escalate or bind need not be held.
    house.grant("jane", "more", json!([{"verbs": ["escalate"], "apiGroups": [GROUP], "resources": ["roles"], "resourceNames": ["readers"]}])).await;
    jane.put(&format!("{ROLES}/readers"), wider).await.ok();
    let bind = |role: &str| {
        json!({"metadata": {"name": format!("to-{role}")}, "subjects": [],
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}})
    };
    let refused = jane.post(BINDINGS, bind("view")).await.expect(403);
    assert!(
        refused["message"].as_str().expect("text").contains(
            "not currently held:\n{APIGroups:[\"\"], Resources:[\"bindings\"], Verbs:[\"get\" \"list\" \"watch\"]}"
        ),
        "{refused}"
    );
    assert_eq!(
        jane.post(BINDINGS, bind("nothing")).await.expect(404)["message"],
        "clusterroles.rbac.authorization.k8s.io \"nothing\" not found"
    );
    house.grant("jane", "bind", json!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": ["view"]}])).await;
    jane.post(BINDINGS, bind("view")).await.created();
}

#[tokio::test(start_paused = true)]
async fn only_who_may_do_everything_may_aggregate() {
    let house = House::new().await;
    let all = json!({"verbs": ["*"], "apiGroups": [GROUP], "resources": ["clusterroles"]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    house
        .admin
        .post(roles, role("joe", json!([{"verbs": ["create"], "apiGroups": [GROUP], "resources": ["clusterroles"]}])))
        .await
        .created();
    let bound = |role: &str, user: &str| {
        json!({"metadata": {"name": user}, "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": GROUP, "name": user}]})
    };
    house.admin.post(bindings, bound("joe", "joe")).await.created();
    let aggregated = json!({"metadata": {"name": "sum"}, "rules": [], "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    assert_eq!(
        house.user("joe").post(roles, aggregated.clone()).await.expect(403)["message"],
        "clusterroles.rbac.authorization.k8s.io \"sum\" is forbidden: must have cluster-admin privileges to use an aggregationRule"
    );
    house.admin.post(bindings, bound("cluster-admin", "root")).await.created();
    house.user("root").post(roles, aggregated).await.created();
    house.user("root").post(roles, role("all", json!([all]))).await.created();
}

pub(crate) fn pod(name: &str, node: &str, secret: &str) -> Value {
    let volume = json!({"name": "s", "secret": {"secretName": secret}});
    json!({"metadata": {"name": name}, "spec": {"nodeName": node, "serviceAccountName": "default",
        "containers": [{"name": "c", "image": "i"}], "volumes": [volume]}})
}

#[tokio::test(start_paused = true)]
async fn a_node_reads_only_what_its_own_pods_use() {
    let house = House::new().await;
    for name in ["mine", "other"] {
        house.admin.post(SECRETS, json!({"metadata": {"name": name}, "stringData": {"a": "b"}})).await.created();
    }
    house.admin.post(ACCOUNTS, json!({"metadata": {"name": "default"}})).await.created();
    house.admin.post(PODS, pod("web", "node-1", "mine")).await.created();
    house.admin.post(PODS, pod("db", "node-2", "other")).await.created();
    let node = house.node("node-1");
    node.get(&format!("{SECRETS}/mine")).await.ok();
    assert_eq!(
        node.get(&format!("{SECRETS}/other")).await.expect(403)["message"],
        "secrets \"other\" is forbidden: User \"system:node:node-1\" cannot get resource \"secrets\" in API group \"\" in the namespace \
         \"default\": no relationship found between node 'node-1' and this object"
    );
    for path in
        [SECRETS, "/api/v1/secrets", "/api/v1/pods", "/api/v1/nodes", &format!("{PODS}/db"), "/api/v1/nodes/node-2"]
    {
        node.get(path).await.expect(403);
    }
    node.get(&format!("{PODS}/web")).await.ok();
    node.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1").await.ok();
    node.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-2").await.expect(403);
    node.delete(&format!("{SECRETS}/mine"), Value::Null).await.expect(403);

    // With its last pod goes the right to the secret.
    house.admin.delete(&format!("{PODS}/web"), json!({"gracePeriodSeconds": 0})).await.ok();
    tokio::time::sleep(Duration::from_millis(1)).await;
    node.get(&format!("{SECRETS}/mine")).await.expect(403);
    house.user("system:node:node-1").get(&format!("{SECRETS}/mine")).await.expect(403);
}

#[tokio::test(start_paused = true)]
async fn a_node_writes_only_itself_and_its_pods() {
    let house = House::new().await;
    house.admin.post(ACCOUNTS, json!({"metadata": {"name": "default"}})).await.created();
    house.admin.post(PODS, pod("web", "node-1", "s")).await.created();
    house.admin.post(PODS, pod("db", "node-2", "s")).await.created();
    let node = house.node("node-1");
    let said = |answer: Answer| {
        answer.expect(403)["message"]
            .as_str()
            .expect("text")
            .split(" is forbidden: ")
            .nth(1)
            .expect("a reason")
            .to_owned()
    };
    node.post("/api/v1/nodes", json!({"metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "z"}}}))
        .await
        .created();
    assert_eq!(
        said(node.post("/api/v1/nodes", json!({"metadata": {"name": "node-2"}})).await),
        "node \"node-1\" is not allowed to modify node \"node-2\""
    );
    let merge = |path: String, patch: Value| {
        let node = &node;
        async move { node.patch(&path, "merge-patch+json", patch).await }
    };
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    merge("/api/v1/nodes/node-1".into(), label("example.com/own")).await.ok();
    assert_eq!(
        said(merge("/api/v1/nodes/node-1".into(), label("node-restriction.kubernetes.io/secure")).await),
        "is not allowed to modify labels: node-restriction.kubernetes.io/secure"
    );
    assert_eq!(
        said(
            merge("/api/v1/nodes/node-1".into(), json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}))
                .await
        ),
        "node \"node-1\" is not allowed to modify taints"
    );
    let phase = json!({"status": {"phase": "Running"}});
    merge(format!("{PODS}/web/status"), phase.clone()).await.ok();
    assert_eq!(
        said(merge(format!("{PODS}/db/status"), phase).await),
        "node \"node-1\" can only update pod status for pods with spec.nodeName set to itself"
    );
    assert_eq!(
        said(node.delete(&format!("{PODS}/db"), Value::Null).await),
        "node \"node-1\" can only delete pods with spec.nodeName set to itself"
    );
    let mirror = said(node.post(PODS, pod("own", "node-1", "s")).await);
    assert!(mirror.contains("node \"node-1\" can only create mirror pods"), "{mirror}");

    // Tokens only for its pods' service accounts, bound to those pods.
    let token = |pod: Value| json!({"spec": {"boundObjectRef": pod}});
    let path = format!("{ACCOUNTS}/default/token");
    node.post(&path, token(json!({"apiVersion": "v1", "kind": "Pod", "name": "web"}))).await.created();
    assert_eq!(said(node.post(&path, json!({"spec": {}})).await), "node requested token not bound to a pod");
    assert_eq!(
        said(house.node("node-3").post(&path, json!({"spec": {}})).await).split(": ").last(),
        Some("no relationship found between node 'node-3' and this object")
    );
    assert_eq!(
        said(node.post(&path, token(json!({"apiVersion": "v1", "kind": "Pod", "name": "db"}))).await),
        "node requested token bound to a pod scheduled on a different node"
    );
    let other =
        json!({"spec": {"audiences": ["vault"], "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web"}}});
    assert!(said(node.post(&path, other).await).starts_with("audience \"vault\" not found in pod spec volume"));
}

#[tokio::test(start_paused = true)]
async fn reviews_answer_as_the_authorizer_would() {
    let house = House::new().await;
    house.grant("jane", "jane", json!([rule(&["get"], "pods")])).await;
    let reviews = "/apis/authorization.k8s.io/v1";
    let ask = |spec: Value| {
        let (admin, path) = (&house.admin, format!("{reviews}/subjectaccessreviews"));
        async move { admin.post(&path, json!({"spec": spec})).await }
    };
    let pods = json!({"namespace": "default", "verb": "get", "resource": "pods"});
    let yes = ask(json!({"user": "jane", "resourceAttributes": pods})).await.created();
    assert_eq!(
        yes["status"],
        json!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"jane/default\" of Role \"jane\" to User \"jane\""})
    );
    let no = ask(json!({"user": "joe", "resourceAttributes": pods})).await.created();
    assert_eq!(no["status"], json!({"allowed": false}));
    let health =
        json!({"groups": ["system:unauthenticated"], "nonResourceAttributes": {"path": "/healthz", "verb": "get"}});
    assert_eq!(ask(health).await.created()["status"]["allowed"], true);
    ask(json!({"user": "jane"})).await.expect(422);
    ask(json!({"resourceAttributes": pods})).await.expect(422);
    ask(json!({"user": "jane", "resourceAttributes": pods, "nonResourceAttributes": {"path": "/"}})).await.expect(422);

    let local = format!("{reviews}/namespaces/kube-system/localsubjectaccessreviews");
    let mismatch =
        house.admin.post(&local, json!({"spec": {"user": "jane", "resourceAttributes": pods}})).await.expect(400);
    assert_eq!(mismatch["message"], "spec.resourceAttributes.namespace must match namespace: default != kube-system");

    let rules = house
        .user("jane")
        .post(&format!("{reviews}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "default"}}))
        .await
        .created();
    let resources = rules["status"]["resourceRules"].as_array().expect("rules");
    assert!(resources.contains(&json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})), "{rules}");
    assert_eq!(rules["status"]["incomplete"], false);
    let rules = house
        .node("n")
        .post(&format!("{reviews}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "default"}}))
        .await
        .created();
    assert_eq!(rules["status"]["evaluationError"], "node authorizer does not support user rule resolution");
}

#[tokio::test(start_paused = true)]
async fn anonymous_sees_health_and_version_only() {
    let house = House::new().await;
    let anonymous = Server { api: house.admin.api.clone(), router: house.admin.api.router() };
    for (path, code) in [
        ("/healthz", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/version", 200),
        ("/api", 403),
        ("/apis", 403),
        ("/openapi/v3", 403),
        ("/metrics", 403),
        ("/api/v1/pods", 403),
        ("/.well-known/openid-configuration", 403),
        ("/openid/v1/jwks", 403),
        ("/nowhere", 403),
    ] {
        assert_eq!(anonymous.get(path).await.code, code, "{path}");
    }
    let account = house.by(UserInfo::new("system:serviceaccount:default:x", &["system:serviceaccounts"]));
    let keys = account.get("/openid/v1/jwks").await.ok();
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    let discovered = account.get("/.well-known/openid-configuration").await.ok();
    assert_eq!(discovered["jwks_uri"], "https://kubernetes.default.svc.cluster.local/openid/v1/jwks");
}

fn signing_request(name: &str, subject: &str, groups: &[&str], signer: &str) -> Value {
    use base64::Engine;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    let request =
        params.serialize_request(&KeyPair::generate().expect("a key")).expect("a request").pem().expect("PEM");
    json!({"metadata": {"name": name}, "spec": {"signerName": signer, "usages": ["client auth"], "username": "forged",
        "request": base64::engine::general_purpose::STANDARD.encode(request)}})
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_asked_for_approved_and_signed_by_those_who_may() {
    let house = House::new().await;
    let csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let client = "kubernetes.io/kube-apiserver-client";
    let made = house.admin.post(csrs, signing_request("jane", "jane", &["dev"], client)).await.created();
    assert_eq!(made["spec"]["username"], "system:admin", "who asks is who asks");
    let masters = house.admin.post(csrs, signing_request("m", "m", &["system:masters"], client)).await.expect(403);
    assert!(
        masters["message"].as_str().expect("text").ends_with("signer with system:masters group is not allowed"),
        "{masters}"
    );
    let mut broken = signing_request("b", "b", &[], client);
    broken["spec"]["request"] = "bm90aGluZw==".into();
    broken["spec"]["expirationSeconds"] = 60.into();
    let broken = house.admin.post(csrs, broken).await.expect(422);
    assert_eq!(broken["details"]["causes"].as_array().expect("causes").len(), 2, "{broken}");

    let group = "certificates.k8s.io";
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let may = |verb: &str, part: &str| {
        json!([{"verbs": ["update", "get", "patch"], "apiGroups": [group], "resources": [format!("certificatesigningrequests/{part}")]},
        {"verbs": [verb], "apiGroups": [group], "resources": ["signers"], "resourceNames": ["kubernetes.io/*"]}])
    };
    house.admin.post(roles, role("almost", json!([may("x", "approval")[0]]))).await.created();
    house.admin.post(roles, role("approver", may("approve", "approval"))).await.created();
    house.admin.post(roles, role("signer", may("sign", "status"))).await.created();
    for name in ["almost", "approver", "signer"] {
        let binding = json!({"metadata": {"name": name}, "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "User", "apiGroup": GROUP, "name": name}]});
        house.admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.created();
    }
    let verdict = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Fine", "message": "fine"}]}});
    let approve = |user: &str| {
        let (server, path, verdict) = (house.user(user), format!("{csrs}/jane/approval"), verdict.clone());
        async move { server.patch(&path, "merge-patch+json", verdict).await }
    };
    assert_eq!(
        approve("almost").await.expect(403)["message"],
        format!(
            "certificatesigningrequests.certificates.k8s.io \"jane\" is forbidden: user not permitted to approve requests with signerName {client:?}"
        )
    );
    approve("approver").await.ok();
    let certificate = json!({"status": {"certificate": "bm90aGluZw==", "conditions": []}});
    let path = format!("{csrs}/jane/status");
    house.user("approver").patch(&path, "merge-patch+json", certificate.clone()).await.expect(403);
    let signed = house.user("signer").patch(&path, "merge-patch+json", certificate).await.ok();
    assert_eq!(signed["status"]["conditions"][0]["type"], "Approved", "the verdict stays");
    let both = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]}});
    house.admin.patch(&format!("{csrs}/jane/approval"), "merge-patch+json", both).await.expect(422);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_keeps_no_seat_for_ever() {
    let house = House::new().await;
    let body = axum::body::Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let headers = [("content-type", "application/json")];
    let answer = house.admin.send(http::Method::POST, SECRETS, &headers, body).await;
    assert_eq!(answer.expect(504)["reason"], "Timeout");
}

#[tokio::test(start_paused = true)]
async fn flow_control_says_where_a_request_belongs_and_looks_after_its_objects() {
    let house = House::new().await;
    for object in apiserver::flow_control::objects() {
        house.admin.post(apiserver::flow_control::collection(&object), object).await.created();
    }
    house.admin.api.follow_flow_control().await;
    let keeper = tokio::spawn({
        let api = house.admin.api.clone();
        async move { api.keep_flow_control().await }
    });
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let answer = house.user("jane").get("/apis").await;
    let schema = house.admin.get(&format!("{schemas}/global-default")).await.ok();
    assert_eq!(answer.headers["x-kubernetes-pf-flowschema-uid"], schema["metadata"]["uid"].as_str().expect("a uid"));
    assert!(answer.headers.contains_key("x-kubernetes-pf-prioritylevel-uid"));

    let everything = schema["spec"]["rules"].clone();
    let mine = json!({"metadata": {"name": "mine"}, "spec": {"priorityLevelConfiguration": {"name": "later"}, "matchingPrecedence": 50, "rules": everything}});
    house.admin.post(schemas, mine).await.created();
    let dangling = || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let conditions = house.admin.get(&format!("{schemas}/mine")).await.ok()["status"]["conditions"].clone();
        conditions[0]["status"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(dangling().await, "True");
    let levels = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
    let later = json!({"metadata": {"name": "later"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
    let later = house.admin.post(levels, later).await.created();
    assert_eq!(later["spec"]["limited"]["nominalConcurrencyShares"], 30);
    assert_eq!(dangling().await, "False");
    let answer = house.user("jane").get("/apis").await;
    assert_eq!(answer.headers["x-kubernetes-pf-prioritylevel-uid"], later["metadata"]["uid"].as_str().expect("a uid"));

    // Without a share there is no seat.
    let none = json!({"spec": {"limited": {"nominalConcurrencyShares": 0}}});
    house.admin.patch(&format!("{levels}/later"), "merge-patch+json", none).await.ok();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refused = house.user("jane").get("/apis").await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.headers.contains_key("x-kubernetes-pf-flowschema-uid"));
    assert_eq!(refused.expect(429)["reason"], "TooManyRequests");

    // What is mandatory comes back.
    house.admin.delete(&format!("{schemas}/catch-all"), Value::Null).await.ok();
    tokio::time::sleep(Duration::from_secs(1)).await;
    house.admin.get(&format!("{schemas}/catch-all")).await.ok();
    keeper.abort();
}
