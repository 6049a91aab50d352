//! What is wrong with any object: its text, its fields, its name, its version.

use super::{CONFIGMAPS, JSON, check, check_created, cluster, request, send};
use expect_test::expect;
use serde_json::{Value, json};

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
