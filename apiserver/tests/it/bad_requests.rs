//! Requests that are wrong, one kind of wrong after another, and the one right refusal of each.

use crate::support::{Answer, CONFIGMAPS, Server, complete, configmap};
use http::Method;
use serde_json::{Value, json};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MB: usize = 1 << 20;

async fn post(server: &Server, uri: &str, media: &str, body: impl Into<axum::body::Body>) -> Answer {
    server.send(Method::POST, uri, &[("content-type", media)], body).await
}

/// Fails unless the answer is a `Status` of this code and reason.
#[track_caller]
fn refused(answer: &Answer, code: u16, reason: &str, what: &str) {
    let body = &answer.body;
    assert_eq!(
        (answer.code.as_u16(), &body["reason"], &body["kind"]),
        (code, &json!(reason), &json!("Status")),
        "{what}: {body}"
    );
    assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!("Failure")), "{what}");
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_read_is_a_bad_request() {
    let server = complete().await;
    let object = configmap("a").to_string();
    let deep = |open: &str, close: &str, levels: usize| {
        format!("{{\"metadata\":{{\"name\":\"a\"}},\"data\":{}1{}}}", open.repeat(levels), close.repeat(levels))
    };
    let steps: String = (0..500).map(|step| format!("{}a:\n", " ".repeat(step))).collect();
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("truncated JSON", JSON, object.as_bytes()[..object.len() - 1].to_vec()),
        ("truncated YAML", YAML, b"metadata: {name: a".to_vec()),
        ("truncated protobuf", PROTOBUF, b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Config".to_vec()),
        ("no protobuf at all", PROTOBUF, object.clone().into_bytes()),
        ("protobuf of no kind", PROTOBUF, b"k8s\0\x0a\x0c\x0a\x02v9\x12\x06Nobody\x12\x00".to_vec()),
        ("protobuf with a length beyond its end", PROTOBUF, b"k8s\0\x12\xff\xff\xff\xff\x7f".to_vec()),
        ("two documents", JSON, format!("{object}{object}").into_bytes()),
        ("nothing", JSON, Vec::new()),
        ("a list", JSON, b"[]".to_vec()),
        ("lists without end", JSON, vec![b'['; 100_000]),
        ("objects without end", JSON, deep("{\"a\":", "}", 5000).into_bytes()),
        ("YAML without end", YAML, steps.into_bytes()),
        ("a thousand million aliases", YAML, bomb().into_bytes()),
        ("no UTF-8 in JSON", JSON, b"{\"metadata\":{\"name\":\"a\"},\"data\":{\"a\":\"\xff\xfe\"}}".to_vec()),
        ("no UTF-8 in YAML", YAML, b"metadata: {name: \xff\xfe}".to_vec()),
        ("half a surrogate", JSON, br#"{"metadata":{"name":"a"},"data":{"a":"\ud800"}}"#.to_vec()),
        ("a number beyond all", JSON, br#"{"metadata":{"name":"a","generation":1e999}}"#.to_vec()),
        ("a number beyond 64 bits", JSON, br#"{"metadata":{"name":"a","generation":99999999999999999999}}"#.to_vec()),
        ("another kind", JSON, br#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#.to_vec()),
        ("another version", JSON, br#"{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"a"}}"#.to_vec()),
        ("metadata that is none", JSON, br#"{"metadata":[]}"#.to_vec()),
    ];
    for (what, media, body) in cases {
        refused(&post(&server, CONFIGMAPS, media, body).await, 400, "BadRequest", what);
    }
    let pod = |port: &str| {
        format!(
            r#"{{"metadata":{{"name":"a"}},"spec":{{"containers":[{{"name":"c","image":"i","ports":[{{"containerPort":{port}}}]}}]}}}}"#
        )
    };
    for port in ["2147483648", "-2147483649", "80.5", "1e10", "\"80\"", "true"] {
        refused(&post(&server, PODS, JSON, pod(port)).await, 400, "BadRequest", port);
    }
    refused(&post(&server, PODS, JSON, pod("65536")).await, 422, "Invalid", "a port that is none");
    let twice = r#"{"metadata":{"name":"a"},"data":{"a":"1","a":"2"}}"#;
    refused(
        &post(&server, &format!("{CONFIGMAPS}?fieldValidation=Strict"), JSON, twice).await,
        400,
        "BadRequest",
        "twice",
    );
    server.get(&format!("{CONFIGMAPS}/a")).await.expect(404);
    // An option that is passed over would delete what should have stayed.
    let kept = "/api/v1/namespaces/default/configmaps/kept";
    server.post(CONFIGMAPS, configmap("kept")).await.created();
    for options in [
        r#"{"dryRun":"All"}"#,
        r#"{"preconditions":{"uid":5}}"#,
        r#"{"preconditions":"x"}"#,
        r#"{"gracePeriodSeconds":"soon"}"#,
        r#"{"propagationPolicy":true}"#,
        r#"{"orphanDependents":"true"}"#,
        "[]",
        "7",
    ] {
        for uri in [kept, CONFIGMAPS] {
            let answer = server.send(Method::DELETE, uri, &[("content-type", JSON)], options).await;
            refused(&answer, 400, "BadRequest", options);
        }
    }
    let answer = server.delete(&format!("{kept}?gracePeriodSeconds=soon"), Value::Null).await;
    refused(&answer, 400, "BadRequest", "no number of seconds");
    server.get(kept).await.ok();
    // What is asked and not kept is read like everything else.
    for (uri, body) in [
        ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", r#"{"spec":{"resourceAttributes":{"verb":5}}}"#),
        ("/apis/authorization.k8s.io/v1/subjectaccessreviews", r#"{"spec":{"user":"a","groups":"b"}}"#),
        ("/apis/authorization.k8s.io/v1/subjectaccessreviews", r#"{"kind":"Pod","spec":{}}"#),
        ("/apis/authentication.k8s.io/v1/tokenreviews", r#"{"spec":{"token":5}}"#),
        ("/api/v1/namespaces/default/serviceaccounts/default/token", r#"{"spec":{"audiences":"vault"}}"#),
        ("/api/v1/namespaces/default/serviceaccounts/default/token", r#"{"spec":{"expirationSeconds":"600"}}"#),
    ] {
        refused(&post(&server, uri, JSON, body).await, 400, "BadRequest", body);
    }
    for body in ["\"text\"", "[]", "7"] {
        let review = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        refused(&post(&server, review, JSON, body).await, 400, "BadRequest", body);
    }
}

/// Nine lines that would be a thousand million values.
fn bomb() -> String {
    let mut text = "metadata: {name: a}\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for step in 1..9 {
        let aliases = vec![format!("*a{}", step - 1); 10].join(", ");
        text.push_str(&format!("a{step}: &a{step} [{aliases}]\n"));
    }
    text
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_refused_whether_sent_or_grown() {
    let server = complete().await;
    let large = |size: usize| json!({"metadata": {"name": "a", "annotations": {"a": "x".repeat(size)}}}).to_string();
    for media in [JSON, YAML, PROTOBUF] {
        refused(&post(&server, CONFIGMAPS, media, large(3 * MB)).await, 413, "RequestEntityTooLarge", media);
    }
    for kind in ["json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"] {
        let uri = format!("{CONFIGMAPS}/a?fieldManager=m");
        let headers = [("content-type", &*format!("application/{kind}"))];
        let answer = server.send(Method::PATCH, &uri, &headers, large(3 * MB)).await;
        refused(&answer, 413, "RequestEntityTooLarge", kind);
    }
    // A revision has no limit of its own but the store's, and grows by patches that are small enough.
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    server.post(revisions, json!({"metadata": {"name": "r"}, "data": {"a": {}}, "revision": 1})).await.created();
    let patch = |part: &str| json!({"data": {part: "x".repeat(900 << 10)}});
    let uri = format!("{revisions}/r");
    server.patch(&uri, "merge-patch+json", json!({"revision": 2})).await.ok();
    let one = server
        .post(revisions, json!({"metadata": {"name": "s"}, "data": {"b": "x".repeat(900 << 10)}, "revision": 1}))
        .await;
    one.created();
    let grown =
        server.post(revisions, json!({"metadata": {"name": "t"}, "data": patch("a")["data"], "revision": 1})).await;
    grown.created();
    let twice = json!({"metadata": {"name": "u"}, "data": {"a": "x".repeat(900 << 10), "b": "x".repeat(900 << 10)}, "revision": 1});
    refused(&server.post(revisions, twice).await, 413, "RequestEntityTooLarge", "1.8 MB");
    let copies: Vec<Value> = (0..9).map(|_| json!({"op": "copy", "from": "/data", "path": "/data/c"})).collect();
    let answer = server.patch(&format!("{revisions}/t"), "json-patch+json", copies.into()).await;
    refused(&answer, 422, "Invalid", "copies of copies");
    // Deep, but readable; and too deep to be read again.
    let nested = |levels: usize| {
        format!(
            "{{\"metadata\":{{\"name\":\"d\"}},\"revision\":1,\"data\":{}1{}}}",
            "{\"a\":".repeat(levels),
            "}".repeat(levels)
        )
    };
    refused(&post(&server, revisions, JSON, nested(124)).await, 400, "BadRequest", "124 levels");
    post(&server, revisions, JSON, nested(100)).await.created();
    server.get(revisions).await.ok();
}

#[tokio::test(start_paused = true)]
async fn a_wrong_method_media_type_or_place_has_its_code() {
    let server = complete().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let a = "/api/v1/namespaces/default/configmaps/a";
    for (method, uri, code, reason) in [
        (Method::DELETE, "/api/v1/namespaces", 405, "MethodNotAllowed"),
        (Method::POST, a, 405, "MethodNotAllowed"),
        (Method::PUT, CONFIGMAPS, 405, "MethodNotAllowed"),
        (Method::PATCH, CONFIGMAPS, 405, "MethodNotAllowed"),
        (Method::POST, "/api/v1/configmaps", 405, "MethodNotAllowed"),
        (Method::GET, "/apis/authentication.k8s.io/v1/tokenreviews", 405, "MethodNotAllowed"),
        (Method::POST, "/version", 405, "MethodNotAllowed"),
        (Method::PUT, "/openapi/v3", 405, "MethodNotAllowed"),
        (Method::GET, "/api/v1/configmaps/a", 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/nodes", 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/nothings", 404, "NotFound"),
        (Method::GET, "/api/v9/namespaces/default/configmaps", 404, "NotFound"),
        (Method::GET, "/apis/nobody.example/v1/things", 404, "NotFound"),
        (Method::GET, "/apis/apps/v9/deployments", 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/configmaps/a/status", 404, "NotFound"),
        (Method::GET, "/nowhere", 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/configmaps/%2e%2e", 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/configmaps/..%2f..%2fsecrets%2fa", 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/..%2f..%2f..%2fetc/configmaps/passwd", 404, "NotFound"),
        (Method::GET, "/openapi/v3/../../etc/passwd", 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/configmaps/a%00", 404, "NotFound"),
        (Method::GET, "/api/v1/namespaces/default/configmaps/a%0d%0aset-cookie:%20x", 404, "NotFound"),
    ] {
        let body = if method == Method::GET { String::new() } else { configmap("a").to_string() };
        let answer = server.send(method.clone(), uri, &[("content-type", JSON)], body).await;
        refused(&answer, code, reason, &format!("{method} {uri}"));
        assert!(answer.headers.get("set-cookie").is_none());
    }
    for (method, uri, media) in [
        (Method::POST, CONFIGMAPS, "text/plain"),
        (Method::PUT, a, "application/x-www-form-urlencoded"),
        (Method::PATCH, a, "application/json"),
        (Method::PATCH, a, ""),
    ] {
        let answer = server.send(method, uri, &[("content-type", media)], "{}").await;
        refused(&answer, 415, "UnsupportedMediaType", media);
    }
    for accept in
        ["text/html", "application/json;as=Nothing;v=v1;g=meta.k8s.io", "application/xml;q=0.9", "application/json;q=0"]
    {
        refused(&server.get_as(a, accept).await, 406, "NotAcceptable", accept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_makes_no_sense_is_told_so() {
    let server = complete().await;
    server.post(CONFIGMAPS, configmap("a")).await.created();
    let forged = |token: Value| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.to_string())
    };
    let version = "meta.k8s.io/v1";
    for (query, code, reason) in [
        ("labelSelector=((".to_owned(), 400, "BadRequest"),
        ("labelSelector=a%20in%20(b".to_owned(), 400, "BadRequest"),
        ("labelSelector=-a%3Db".to_owned(), 400, "BadRequest"),
        ("labelSelector=%ff%fe".to_owned(), 400, "BadRequest"),
        ("fieldSelector=data.a%3D1".to_owned(), 400, "BadRequest"),
        ("fieldSelector=metadata.name".to_owned(), 400, "BadRequest"),
        ("limit=many".to_owned(), 400, "BadRequest"),
        ("continue=garbage".to_owned(), 400, "BadRequest"),
        (format!("continue={}", forged(json!({"v": "meta.k8s.io/v9", "rv": 1, "start": "a"}))), 400, "BadRequest"),
        (format!("continue={}", forged(json!({"v": version, "rv": "1", "start": "a"}))), 400, "BadRequest"),
        (format!("continue={}", forged(json!({"v": version, "rv": 0, "start": "a"}))), 400, "BadRequest"),
        (format!("continue={}", forged(json!({"v": version, "rv": 1}))), 400, "BadRequest"),
        (format!("continue={}", forged(json!({"v": version, "rv": i64::MAX, "start": "a"}))), 504, "Timeout"),
        ("resourceVersion=999999".to_owned(), 504, "Timeout"),
        ("resourceVersion=999999&resourceVersionMatch=Exact".to_owned(), 504, "Timeout"),
        ("watch=true&resourceVersion=999999".to_owned(), 504, "Timeout"),
        ("resourceVersion=old".to_owned(), 422, "Invalid"),
        ("resourceVersionMatch=Exact".to_owned(), 422, "Invalid"),
        ("watch=true&sendInitialEvents=true".to_owned(), 422, "Invalid"),
    ] {
        refused(&server.get(&format!("{CONFIGMAPS}?{query}")).await, code, reason, &query);
    }
    // A token cannot lead out of its collection.
    server.post("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await.created();
    for start in ["../../secrets/default/s", "a/../../../secrets", "a//b", "./a", ".."] {
        let token = forged(json!({"v": version, "rv": -1, "start": start}));
        refused(&server.get(&format!("{CONFIGMAPS}?limit=5&continue={token}")).await, 400, "BadRequest", start);
    }
    for start in ["\u{0}", "zzzz", "/"] {
        let token = forged(json!({"v": version, "rv": -1, "start": start}));
        let list = server.get(&format!("{CONFIGMAPS}?limit=5&continue={token}")).await.ok();
        assert!(list["items"].as_array().is_some_and(|items| items.iter().all(|item| item["metadata"]["name"] == "a")));
    }
    let mut stale = server.get(&format!("{CONFIGMAPS}/a")).await.ok();
    server.patch(&format!("{CONFIGMAPS}/a"), "merge-patch+json", json!({"data": {"b": "2"}})).await.ok();
    stale["data"]["c"] = "3".into();
    refused(&server.put(&format!("{CONFIGMAPS}/a"), stale.clone()).await, 409, "Conflict", "a stale version");
    stale["metadata"]["name"] = "b".into();
    refused(&server.put(&format!("{CONFIGMAPS}/a"), stale).await, 400, "BadRequest", "another name");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_writes_cannot_get_out_of_a_header() {
    let server = complete().await;
    let body = r#"{"metadata":{"name":"a"},"x\r\nset-cookie: a=b":1,"ä\"\\":2}"#;
    let answer = post(&server, &format!("{CONFIGMAPS}?fieldValidation=Warn"), JSON, body).await;
    assert!(answer.headers.get("set-cookie").is_none());
    let warnings = answer.headers.get_all("warning").iter().count();
    assert!((1..=2).contains(&warnings), "{:?}", answer.headers);
    answer.created();
}
