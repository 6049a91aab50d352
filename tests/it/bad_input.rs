//! Requests that are wrong, and the exact words they are refused with: the code, the reason and the message of the Status.
//!
//! Straight to the API's router, as any client's request arrives there after authentication.

use coracle::Cluster;
use expect_test::{Expect, expect};
use http_body_util::BodyExt;
use regex::Regex;
use serde_json::{Value, json};
use tower::ServiceExt;

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
const JSON: &str = "application/json";

async fn cluster() -> Cluster {
    Cluster::builder().nodes(1).seed(7).start().await.expect("a cluster")
}

struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: Value,
}

async fn send(cluster: &Cluster, method: &str, path: &str, media: &str, body: impl Into<axum::body::Body>) -> Answer {
    let request =
        http::Request::builder().method(method).uri(path).header("Content-Type", media).header("Accept", JSON);
    let request = request.body(body.into()).expect("a request");
    let answer = cluster.router().oneshot(request).await.expect("the router answers");
    let code = answer.status().as_u16();
    let warnings = answer.headers().get_all("Warning").iter();
    let warnings = warnings.map(|value| value.to_str().expect("text").to_owned()).collect();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    Answer { code, warnings, body: serde_json::from_slice(&body).unwrap_or_else(|_| panic!("no JSON: {body:?}")) }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.code)?;
        if self.body["kind"] == "Status" && self.body["status"] == "Failure" {
            assert_eq!(self.body["code"], self.code, "the Status and the response agree");
            let reason = self.body["reason"].as_str().unwrap_or("-");
            write!(f, " {reason}: {}", self.body["message"].as_str().unwrap_or_default())?;
        }
        for warning in &self.warnings {
            write!(f, "\n  Warning: {warning}")?;
        }
        Ok(())
    }
}

/// A request, and what is wrong with it.
struct Request {
    what: String,
    method: &'static str,
    path: String,
    media: &'static str,
    body: String,
}

fn request(
    what: impl Into<String>,
    method: &'static str,
    path: impl Into<String>,
    media: &'static str,
    body: impl std::fmt::Display,
) -> Request {
    Request { what: what.into(), method, path: path.into(), media, body: body.to_string() }
}

/// Sends each of these and compares what comes back, a paragraph each.
async fn check(cluster: &Cluster, requests: impl IntoIterator<Item = Request>, expected: Expect) {
    let mut text = String::new();
    for Request { what, method, path, media, body } in requests {
        let answer = send(cluster, method, &path, media, body).await;
        text.push_str(&format!("{what}\n  {answer}\n"));
    }
    // What differs from run to run.
    let chance = Regex::new(r"(record \(|object meta: |current: |ResourceVersion in the precondition \()[0-9a-f-]+")
        .expect("a pattern");
    expected.assert_eq(&chance.replace_all(&text, "${1}…"));
}

/// Creates each of these objects at a path; what comes back for each.
async fn check_created(cluster: &Cluster, path: &str, objects: Vec<(&str, Value)>, expected: Expect) {
    let requests = objects.into_iter().map(|(what, object)| request(what, "POST", path, JSON, object));
    check(cluster, requests, expected).await;
}

/// Lays `change` over `object`: null removes, maps merge, all else replaces (RFC 7396).
fn merged(mut object: Value, change: &Value) -> Value {
    if let (Value::Object(object), Value::Object(change)) = (&mut object, change) {
        for (name, value) in change {
            if value.is_null() {
                object.remove(name);
            } else {
                let before = object.remove(name).unwrap_or(Value::Null);
                object.insert(name.clone(), merged(before, value));
            }
        }
        return Value::Object(object.clone());
    }
    change.clone()
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused_with_its_place() {
    let cluster = cluster().await;
    let yaml = "application/yaml";
    let post = |what, media, body: &str| request(what, "POST", CONFIGMAPS, media, body);
    check(
        &cluster,
        [
            post("cut off", JSON, r#"{"metadata": {"name": "a"#),
            post("a bare word", JSON, "hello"),
            post("nothing", JSON, ""),
            post("a list", JSON, "[]"),
            post("a number", JSON, "7"),
            post("an unquoted key", JSON, "{metadata: {}}"),
            post("YAML with a tab", yaml, "metadata:\n\tname: a\n"),
            post("YAML that never closes", yaml, "metadata: {name: a"),
            post("YAML with an alias to nothing", yaml, "metadata: *nothing"),
            post("a media type of another world", "text/html", "{}"),
            post("protobuf that is none", "application/vnd.kubernetes.protobuf", "k8s\0 nonsense"),
            post("another kind", JSON, r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}"#),
            post("another version", JSON, r#"{"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}}"#),
            post("another namespace", JSON, r#"{"metadata": {"name": "a", "namespace": "other"}}"#),
            post("nested beyond reason", JSON, &"[".repeat(100_000)),
        ],
        expect![[r#"
            cut off
              400 BadRequest: couldn't get version/kind; json parse error: EOF while parsing a string at line 1 column 24
            a bare word
              400 BadRequest: couldn't get version/kind; json parse error: expected value at line 1 column 1
            nothing
              400 BadRequest: couldn't get version/kind; json parse error: EOF while parsing a value at line 1 column 0
            a list
              400 BadRequest: the body of the request is not a ConfigMap: it is no JSON object
            a number
              400 BadRequest: the body of the request is not a ConfigMap: it is no JSON object
            an unquoted key
              400 BadRequest: couldn't get version/kind; json parse error: key must be a string at line 1 column 2
            YAML with a tab
              400 BadRequest: error decoding YAML: tabs disallowed within this context (block indentation) at line 2, column 2
            YAML that never closes
              400 BadRequest: error decoding YAML: unclosed bracket '{' at line 1, column 11
            YAML with an alias to nothing
              400 BadRequest: error decoding YAML: alias references unknown anchor at line 1, column 11
            a media type of another world
              415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf
            protobuf that is none
              400 BadRequest: error decoding protobuf: proto: illegal wireType 7
            another kind
              400 BadRequest: the kind in the data (Secret) does not match the expected kind (ConfigMap)
            another version
              400 BadRequest: the API version in the data (v2) does not match the expected API version (v1)
            another namespace
              400 BadRequest: the namespace of the provided object does not match the namespace sent on the request
            nested beyond reason
              400 BadRequest: couldn't get version/kind; json parse error: recursion limit exceeded at line 1 column 128
        "#]],
    )
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn fields_of_a_wrong_type_or_name_are_named() {
    let cluster = cluster().await;
    let post = |what: &str, query: &str, body: Value| request(what, "POST", format!("{CONFIGMAPS}{query}"), JSON, body);
    let mut requests = vec![
        post("data that is text", "", json!({"metadata": {"name": "a"}, "data": "text"})),
        post("data with a number", "", json!({"metadata": {"name": "a"}, "data": {"port": 80}})),
        post("a label that is a number", "", json!({"metadata": {"name": "a", "labels": {"a": 1}}})),
        post("immutable that is text", "", json!({"metadata": {"name": "a"}, "immutable": "yes"})),
        post("metadata that is a list", "", json!({"metadata": []})),
        post("a name that is a number", "", json!({"metadata": {"name": 5}})),
        post("binaryData that is no base64", "", json!({"metadata": {"name": "a"}, "binaryData": {"a": "%"}})),
    ];
    let unknown = json!({"metadata": {"name": "u", "labls": {}}, "dta": {"a": "b"}});
    for validation in ["Strict", "Warn", "Ignore", "Sometimes"] {
        requests.push(post(
            &format!("unknown fields, {validation}"),
            &format!("?dryRun=All&fieldValidation={validation}"),
            unknown.clone(),
        ));
    }
    let twice = r#"{"metadata": {"name": "twice"}, "data": {"a": "1", "a": "2"}}"#;
    for (what, query) in [("a field twice, strict", "&fieldValidation=Strict"), ("a field twice, warned of", "")] {
        requests.push(request(what, "POST", format!("{CONFIGMAPS}?dryRun=All{query}"), JSON, twice));
    }
    check(&cluster, requests, expect![[r#"
        data that is text
          400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal string into Go struct field ConfigMap.data of type map[string]string
        data with a number
          400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data.port of type string
        a label that is a number
          400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels.a of type string
        immutable that is text
          400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal string into Go struct field ConfigMap.immutable of type bool
        metadata that is a list
          400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go struct field ConfigMap.metadata of type v1.ObjectMeta
        a name that is a number
          400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string
        binaryData that is no base64
          400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: illegal base64 data at input byte 0
        unknown fields, Strict
          400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dta", unknown field "metadata.labls"
        unknown fields, Warn
          201
          Warning: 299 - "unknown field \"dta\""
          Warning: 299 - "unknown field \"metadata.labls\""
        unknown fields, Ignore
          201
        unknown fields, Sometimes
          422 Invalid: CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Sometimes": supported values: "", "Ignore", "Strict", "Warn"
        a field twice, strict
          400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data.a"
        a field twice, warned of
          201
          Warning: 299 - "duplicate field \"data.a\""
    "#]]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn names_that_are_taken_or_malformed_are_refused() {
    let cluster = cluster().await;
    send(&cluster, "POST", CONFIGMAPS, JSON, r#"{"metadata": {"name": "taken"}}"#).await;
    let named = |name: &str| json!({"metadata": {"name": name}});
    check_created(
        &cluster,
        CONFIGMAPS,
        vec![
            ("a name that is taken", named("taken")),
            ("no name", json!({"metadata": {}})),
            ("no metadata", json!({})),
            ("capitals", named("Capitals")),
            ("a slash", named("a/b")),
            ("too long", named(&"a".repeat(254))),
            ("a bad label key", json!({"metadata": {"name": "a", "labels": {"-a": "b"}}})),
            ("a resourceVersion on creation", json!({"metadata": {"name": "a", "resourceVersion": "1"}})),
            ("a bad key of data", json!({"metadata": {"name": "a"}, "data": {"a b": "c"}})),
            (
                "a key in data and binaryData",
                json!({"metadata": {"name": "a"}, "data": {"k": "c"}, "binaryData": {"k": "YQ=="}}),
            ),
        ],
        expect![[r#"
            a name that is taken
              409 AlreadyExists: configmaps "taken" already exists
            no name
              422 Invalid: ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required
            no metadata
              422 Invalid: ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required
            capitals
              422 Invalid: ConfigMap "Capitals" is invalid: metadata.name: Invalid value: "Capitals": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            a slash
              422 Invalid: ConfigMap "a/b" is invalid: metadata.name: Invalid value: "a/b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            too long
              422 Invalid: ConfigMap "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is invalid: metadata.name: Invalid value: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": must be no more than 253 bytes
            a bad label key
              422 Invalid: ConfigMap "a" is invalid: metadata.labels: Invalid value: "-a": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            a resourceVersion on creation
              400 BadRequest: resourceVersion should not be set on objects to be created
            a bad key of data
              422 Invalid: ConfigMap "a" is invalid: data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            a key in data and binaryData
              422 Invalid: ConfigMap "a" is invalid: data[k]: Invalid value: "k": duplicate of key present in binaryData
        "#]],
    )
    .await;
    let (taken, path) = (json!({"metadata": {"name": "taken"}}), format!("{CONFIGMAPS}/other"));
    check(
        &cluster,
        [
            request("a name that is not the path's", "PUT", &path, JSON, &taken),
            request("a namespace that is not there", "POST", "/api/v1/namespaces/nowhere/configmaps", JSON, &taken),
            request("a kind that is not there", "POST", "/api/v1/namespaces/default/nothings", JSON, &taken),
            request("a group that is not there", "GET", "/apis/nothing.example.com/v1/things", JSON, ""),
            request("a verb that the kind has not", "PUT", CONFIGMAPS, JSON, &taken),
            request("an object that is not there", "DELETE", &path, JSON, ""),
        ],
        expect![[r#"
            a name that is not the path's
              400 BadRequest: the name of the object (taken) does not match the name on the URL (other)
            a namespace that is not there
              404 NotFound: namespaces "nowhere" not found
            a kind that is not there
              404 NotFound: the server could not find the requested resource
            a group that is not there
              404 NotFound: the server could not find the requested resource
            a verb that the kind has not
              405 MethodNotAllowed: the server does not allow this method on the requested resource
            an object that is not there
              404 NotFound: configmaps "other" not found
        "#]],
    )
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn stale_and_impossible_versions_are_refused() {
    let cluster = cluster().await;
    let first = send(&cluster, "POST", CONFIGMAPS, JSON, r#"{"metadata": {"name": "a"}}"#).await.body;
    let path = format!("{CONFIGMAPS}/a");
    let mut stale = first.clone();
    stale["data"] = json!({"k": "1"});
    assert_eq!(send(&cluster, "PUT", &path, JSON, stale.to_string()).await.code, 200);
    stale["data"] = json!({"k": "2"});
    let version = |version: &str| json!({"metadata": {"name": "a", "resourceVersion": version}});
    let merge = "application/merge-patch+json";
    let get = |what, query: &str| request(what, "GET", format!("{CONFIGMAPS}?{query}"), JSON, "");
    let old = first["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    check(
        &cluster,
        [
            request("an update of what has changed since", "PUT", &path, JSON, &stale),
            request("a patch of what has changed since", "PATCH", &path, merge, version(&old)),
            request("a version that is no number", "PUT", &path, JSON, version("new")),
            request("another uid", "PUT", &path, JSON, json!({"metadata": {"name": "a", "uid": "other"}})),
            request("deletion of another uid", "DELETE", &path, JSON, json!({"preconditions": {"uid": "other"}})),
            request(
                "deletion of an old version",
                "DELETE",
                &path,
                JSON,
                json!({"preconditions": {"resourceVersion": old}}),
            ),
            request(
                "two policies of deletion",
                "DELETE",
                &path,
                JSON,
                json!({"propagationPolicy": "Orphan", "orphanDependents": true}),
            ),
            request("an unknown policy of deletion", "DELETE", &path, JSON, json!({"propagationPolicy": "Later"})),
            get("a list at no version", "resourceVersion=x"),
            get("a list at a version to come", "resourceVersion=999999999"),
            get("an exact list without a version", "resourceVersionMatch=Exact"),
            get("a watch list without its match", "watch=true&sendInitialEvents=true"),
            get("a negative limit", "limit=-1"),
            get("a continuation that nobody gave", "limit=1&continue=abc"),
            get("a selector that is none", "labelSelector=a%3D%3D%3Db"),
            get("a field that cannot be selected", "fieldSelector=data.k%3D1"),
            request("a patch that is no JSON", "PATCH", &path, merge, "{"),
            request("a patch of an unknown type", "PATCH", &path, "application/json", "{}"),
            request(
                "a JSON patch of nothing",
                "PATCH",
                &path,
                "application/json-patch+json",
                r#"[{"op": "remove", "path": "/nothing"}]"#,
            ),
            request(
                "a JSON patch with no such operation",
                "PATCH",
                &path,
                "application/json-patch+json",
                r#"[{"op": "frob", "path": "/data"}]"#,
            ),
            request(
                "an apply without a manager",
                "PATCH",
                &path,
                "application/apply-patch+yaml",
                r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}"#,
            ),
            request("a patch of the name", "PATCH", &path, merge, r#"{"metadata": {"name": "b"}}"#),
        ],
        expect![[r#"
            an update of what has changed since
              409 Conflict: Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again
            a patch of what has changed since
              409 Conflict: Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again
            a version that is no number
              422 Invalid: ConfigMap "a" is invalid: metadata.resourceVersion: Invalid value: "new": must be a number that the server has given
            another uid
              409 Conflict: Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: other, UID in object meta: …
            deletion of another uid
              409 Conflict: Operation cannot be fulfilled on ConfigMap "a": the UID in the precondition (other) does not match the UID in record (…). The object might have been deleted and then recreated
            deletion of an old version
              409 Conflict: Operation cannot be fulfilled on ConfigMap "a": the ResourceVersion in the precondition (…) does not match the ResourceVersion in record (…). The object might have been modified
            two policies of deletion
              422 Invalid: DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set
            an unknown policy of deletion
              422 Invalid: DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Later": supported values: "Foreground", "Background", "Orphan", "nil"
            a list at no version
              422 Invalid: configmaps "" is invalid: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax
            a list at a version to come
              504 Timeout: Timeout: Too large resource version: 999999999, current: …
            an exact list without a version
              422 Invalid: ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided
            a watch list without its match
              422 Invalid: ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan
            a negative limit
              200
            a continuation that nobody gave
              400 BadRequest: invalid continue token: continue key is not valid: expected value at line 1 column 1
            a selector that is none
              400 BadRequest: unable to parse requirement: found '=b', expected: ',' or 'end of string'
            a field that cannot be selected
              400 BadRequest: "data.k" is not a known field selector: only "metadata.name", "metadata.namespace"
            a patch that is no JSON
              400 BadRequest: couldn't get version/kind; json parse error: EOF while parsing an object at line 1 column 1
            a patch of an unknown type
              415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml
            a JSON patch of nothing
              422 Invalid: the server rejected our request due to an error in our request: operation '/0' failed at path '/nothing': path is invalid
            a JSON patch with no such operation
              400 BadRequest: error decoding patch: unknown variant `frob`, expected one of `add`, `remove`, `replace`, `move`, `copy`, `test`
            an apply without a manager
              422 Invalid: PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch
            a patch of the name
              400 BadRequest: the name of the object (b) does not match the name on the URL (a)
        "#]],
    )
    .await;
    cluster.stop().await;
}

/// A valid Service with a change.
fn service(change: Value) -> Value {
    let base = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    merged(base, &change)
}

#[tokio::test]
async fn services_that_cannot_be_are_refused_with_every_reason() {
    let cluster = cluster().await;
    let spec = |change: Value| service(json!({"spec": change}));
    let ports = |ports: Value| spec(json!({"ports": ports}));
    let external = |change: Value| {
        merged(
            json!({"metadata": {"name": "web"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}),
            &json!({"spec": change}),
        )
    };
    check_created(
        &cluster,
        SERVICES,
        vec![
            ("a name that is no DNS label", service(json!({"metadata": {"name": "Web_1"}}))),
            ("a name that is too long", service(json!({"metadata": {"name": "a".repeat(64)}}))),
            ("no ports", ports(json!([]))),
            ("two ports without names", ports(json!([{"port": 80}, {"port": 81}]))),
            ("two ports of one name", ports(json!([{"name": "a", "port": 80}, {"name": "a", "port": 81}]))),
            ("a port twice", ports(json!([{"name": "a", "port": 80}, {"name": "b", "port": 80}]))),
            ("a port name that is no label", ports(json!([{"name": "A b", "port": 80}]))),
            ("a target port that is no name", ports(json!([{"port": 80, "targetPort": "a-name-that-is-too-long"}]))),
            ("a target port of digits", ports(json!([{"port": 80, "targetPort": "8080"}]))),
            ("a protocol that is none", ports(json!([{"port": 80, "protocol": "ICMP"}]))),
            ("port 0", ports(json!([{"port": 0}]))),
            ("port 70000", ports(json!([{"port": 70000, "targetPort": 70000}]))),
            ("an affinity that is none", spec(json!({"sessionAffinity": "Cookie"}))),
            ("a timeout without affinity", spec(json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}))),
            ("a timeout of 0", spec(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}))),
            ("a timeout of more than a day", spec(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}))),
            ("ExternalName without a name", external(json!({"externalName": null}))),
            ("an external name that is none", external(json!({"externalName": "under_score"}))),
            ("an external name with an address", external(json!({"clusterIP": "10.96.0.50"}))),
            ("a type that is none", spec(json!({"type": "Internal"}))),
            ("a headless NodePort", spec(json!({"type": "NodePort", "clusterIP": "None"}))),
            ("a headless LoadBalancer", spec(json!({"type": "LoadBalancer", "clusterIP": "None"}))),
            ("an address that is none", spec(json!({"clusterIP": "10.96.0"}))),
            ("an address outside the range", spec(json!({"clusterIP": "192.168.0.1"}))),
            ("an address that is taken", spec(json!({"clusterIP": "10.96.0.10"}))),
            ("two addresses that differ", spec(json!({"clusterIP": "10.96.0.50", "clusterIPs": ["10.96.0.51"]}))),
            ("an external policy without reason", spec(json!({"externalTrafficPolicy": "Local"}))),
            ("an external policy that is none", spec(json!({"type": "NodePort", "externalTrafficPolicy": "Near"}))),
            ("an internal policy that is none", spec(json!({"internalTrafficPolicy": "Near"}))),
            ("a health check port without Local", spec(json!({"type": "LoadBalancer", "healthCheckNodePort": 31000}))),
            ("a load balancer class without one", spec(json!({"loadBalancerClass": "example.com/lb"}))),
            ("node ports of a load balancer without one", spec(json!({"allocateLoadBalancerNodePorts": true}))),
            ("source ranges that are none", spec(json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]}))),
            ("external addresses of no use", spec(json!({"externalIPs": ["127.0.0.1", "0.0.0.0", "169.254.0.1", "224.0.0.1", "x"]}))),
            ("a node port outside the range", spec(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}))),
            ("a node port without the type", ports(json!([{"port": 80, "nodePort": 30001}]))),
            ("two families", spec(json!({"ipFamilyPolicy": "RequireDualStack"}))),
            ("a family that is none", spec(json!({"ipFamilies": ["IPv5"]}))),
            ("a family that is not here", spec(json!({"ipFamilies": ["IPv6"]}))),
            ("a selector that is none", spec(json!({"selector": {"a b": "c d"}}))),
            ("a traffic distribution that is none", spec(json!({"trafficDistribution": "PreferFar"}))),
            ("much at once", spec(json!({"type": "Internal", "sessionAffinity": "Cookie", "ports": [{"port": 0}, {"port": 70000}]}))),
        ],
        expect![[r#"
            a name that is no DNS label
              422 Invalid: Service "Web_1" is invalid: metadata.name: Invalid value: "Web_1": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            a name that is too long
              422 Invalid: Service "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is invalid: metadata.name: Invalid value: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": must be no more than 63 bytes
            no ports
              422 Invalid: Service "web" is invalid: spec.ports: Required value
            two ports without names
              422 Invalid: Service "web" is invalid: [spec.ports[0].name: Required value, spec.ports[1].name: Required value]
            two ports of one name
              422 Invalid: Service "web" is invalid: spec.ports[1].name: Duplicate value: "a"
            a port twice
              422 Invalid: Service "web" is invalid: spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}
            a port name that is no label
              422 Invalid: Service "web" is invalid: spec.ports[0].name: Invalid value: "A b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            a target port that is no name
              422 Invalid: Service "web" is invalid: spec.ports[0].targetPort: Invalid value: "a-name-that-is-too-long": must be no more than 15 characters
            a target port of digits
              422 Invalid: Service "web" is invalid: spec.ports[0].targetPort: Invalid value: "8080": must contain at least one letter (a-z)
            a protocol that is none
              422 Invalid: Service "web" is invalid: spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            port 0
              422 Invalid: Service "web" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]
            port 70000
              422 Invalid: Service "web" is invalid: [spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive]
            an affinity that is none
              422 Invalid: Service "web" is invalid: spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"
            a timeout without affinity
              422 Invalid: Service "web" is invalid: spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None
            a timeout of 0
              422 Invalid: Service "web" is invalid: spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400
            a timeout of more than a day
              422 Invalid: Service "web" is invalid: spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400
            ExternalName without a name
              422 Invalid: Service "web" is invalid: spec.externalName: Required value
            an external name that is none
              422 Invalid: Service "web" is invalid: spec.externalName: Invalid value: "under_score": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            an external name with an address
              422 Invalid: Service "web" is invalid: spec.clusterIPs: Forbidden: may not be set for ExternalName services
            a type that is none
              422 Invalid: Service "web" is invalid: spec.type: Unsupported value: "Internal": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
            a headless NodePort
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services
            a headless LoadBalancer
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for LoadBalancer services
            an address that is none
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "10.96.0": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            an address outside the range
              422 Invalid: Service "web" is invalid: spec.clusterIPs: Invalid value: ["192.168.0.1"]: failed to allocate IP 192.168.0.1: the provided IP (192.168.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12
            an address that is taken
              422 Invalid: Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: provided IP is already allocated
            two addresses that differ
              422 Invalid: Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.51"]: first value must match `clusterIP`
            an external policy without reason
              422 Invalid: Service "web" is invalid: spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services
            an external policy that is none
              422 Invalid: Service "web" is invalid: spec.externalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"
            an internal policy that is none
              422 Invalid: Service "web" is invalid: spec.internalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"
            a health check port without Local
              422 Invalid: Service "web" is invalid: spec.healthCheckNodePort: Invalid value: 31000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'
            a load balancer class without one
              422 Invalid: Service "web" is invalid: spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'
            node ports of a load balancer without one
              422 Invalid: Service "web" is invalid: spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'
            source ranges that are none
              422 Invalid: Service "web" is invalid: spec.loadBalancerSourceRanges[0]: Invalid value: "10.0.0.1": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            external addresses of no use
              422 Invalid: Service "web" is invalid: [spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128), spec.externalIPs[1]: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0), spec.externalIPs[2]: Invalid value: "169.254.0.1": may not be in the link-local range (169.254.0.0/16, fe80::/10), spec.externalIPs[3]: Invalid value: "224.0.0.1": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10), spec.externalIPs[4]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)]
            a node port outside the range
              422 Invalid: Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767
            a node port without the type
              422 Invalid: Service "web" is invalid: spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
            two families
              422 Invalid: Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services
            a family that is none
              422 Invalid: Service "web" is invalid: spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"
            a family that is not here
              422 Invalid: Service "web" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster
            a selector that is none
              422 Invalid: Service "web" is invalid: [spec.selector: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), spec.selector: Invalid value: "c d": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')]
            a traffic distribution that is none
              422 Invalid: Service "web" is invalid: spec.trafficDistribution: Unsupported value: "PreferFar": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"
            much at once
              422 Invalid: Service "web" is invalid: [spec.ports[0].name: Required value, spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[1].name: Required value, spec.ports[1].port: Invalid value: 70000: must be between 1 and 65535, inclusive, spec.ports[1].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive, spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None", spec.type: Unsupported value: "Internal": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
        "#]],
    )
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn updates_of_services_keep_what_must_not_change() {
    let cluster = cluster().await;
    let create = |change: Value| send(&cluster, "POST", SERVICES, JSON, service(change).to_string());
    create(json!({"spec": {"clusterIP": "10.96.0.50"}})).await;
    create(json!({"metadata": {"name": "taken"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}})).await;
    create(
        json!({"metadata": {"name": "lb"}, "spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"}}),
    )
    .await;
    let patch = |what, name: &str, spec: Value| {
        request(what, "PATCH", format!("{SERVICES}/{name}"), "application/merge-patch+json", json!({"spec": spec}))
    };
    check(
        &cluster,
        [
            patch("another address", "web", json!({"clusterIP": "10.96.0.51", "clusterIPs": ["10.96.0.51"]})),
            patch("no address any more", "web", json!({"clusterIP": "None", "clusterIPs": ["None"]})),
            patch("another class", "lb", json!({"loadBalancerClass": "example.com/other"})),
            patch(
                "a node port that is taken",
                "web",
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}),
            ),
            patch("another type keeps the address", "web", json!({"type": "NodePort"})),
            patch("ExternalName drops it", "web", json!({"type": "ExternalName", "externalName": "example.com"})),
        ],
        expect![[r#"
            another address
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: ["10.96.0.51"]: may not change once set
            no address any more
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set
            another class
              422 Invalid: Service "lb" is invalid: spec.loadBalancerClass: Invalid value: "example.com/other": may not change once set
            a node port that is taken
              422 Invalid: Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated
            another type keeps the address
              200
            ExternalName drops it
              200
        "#]],
    )
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn policies_that_cannot_be_are_refused_with_every_reason() {
    let cluster = cluster().await;
    let policy = |spec: Value| json!({"metadata": {"name": "p"}, "spec": merged(json!({"podSelector": {}}), &spec)});
    let from = |peer: Value| policy(json!({"ingress": [{"from": [peer]}]}));
    let ports = |port: Value| policy(json!({"ingress": [{"ports": [port]}]}));
    check_created(
        &cluster,
        POLICIES,
        vec![
            ("a peer with no field", from(json!({}))),
            ("a block together with a selector", from(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}))),
            ("a block that is none", from(json!({"ipBlock": {"cidr": "10.0.0.0"}}))),
            ("a block without an address", from(json!({"ipBlock": {}}))),
            ("an exception outside the block", from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}))),
            ("an exception as wide as the block", from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}))),
            ("an exception that is none", from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1"]}}))),
            ("an end without a port", ports(json!({"endPort": 90}))),
            ("an end of a named port", ports(json!({"port": "http", "endPort": 90}))),
            ("an end before the port", ports(json!({"port": 80, "endPort": 79}))),
            ("an end beyond all ports", ports(json!({"port": 80, "endPort": 70000}))),
            ("a port that is none", ports(json!({"port": 70000}))),
            ("a port name that is none", ports(json!({"port": "a name that is none"}))),
            ("a protocol that is none", ports(json!({"port": 80, "protocol": "ICMP"}))),
            ("a type that is none", policy(json!({"policyTypes": ["Ingress", "Both"]}))),
            ("too many types", policy(json!({"policyTypes": ["Ingress", "Egress", "Ingress"]}))),
            ("a selector that is none", policy(json!({"podSelector": {"matchLabels": {"a b": "c"}}}))),
            ("an operator that is none", policy(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}}))),
            ("an operator without values", policy(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}))),
            ("much at once", policy(json!({"policyTypes": ["Both"], "ingress": [{"from": [{}], "ports": [{"port": 0}]}], "egress": [{"to": [{}]}]}))),
        ],
        expect![[r#"
            a peer with no field
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0]: Required value: must specify a peer
            a block together with a selector
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer
            a block that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            a block without an address
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.cidr: Required value
            an exception outside the block
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`
            an exception as wide as the block
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`
            an exception that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "10.1": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            an end without a port
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is not specified
            an end of a named port
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric
            an end before the port
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`
            an end beyond all ports
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].endPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            a port that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive
            a port name that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: [spec.ingress[0].ports[0].port: Invalid value: "a name that is none": must be no more than 15 characters, spec.ingress[0].ports[0].port: Invalid value: "a name that is none": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)]
            a protocol that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            a type that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.policyTypes[1]: Unsupported value: "Both": supported values: "Egress", "Ingress"
            too many types
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.policyTypes: Invalid value: ["Ingress","Egress","Ingress"]: may not specify more than two policyTypes
            a selector that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.podSelector.matchLabels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            an operator that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.podSelector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator
            an operator without values
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.podSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
            much at once
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: [spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ingress[0].from[0]: Required value: must specify a peer, spec.egress[0].to[0]: Required value: must specify a peer, spec.policyTypes[0]: Unsupported value: "Both": supported values: "Egress", "Ingress"]
        "#]],
    )
    .await;
    cluster.stop().await;
}
