//! Request lines and headers: paths, selectors, continue tokens, `Accept`.

use crate::house::with;
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Method, Request, Uri};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Text as it stands in a query.
fn escaped(text: &[u8]) -> String {
    text.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// A label selector, a line's end, a field selector. A list and a watch take the same ones.
pub(crate) fn selector(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (labels, fields) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    with(|house| {
        let query = format!("labelSelector={}&fieldSelector={}", escaped(labels), escaped(fields));
        let listed = house.get(&format!("{PODS}?{query}"));
        listed.is_sound(&[]);
        assert!(matches!(listed.code, 200 | 400), "{} {}", listed.code, String::from_utf8_lossy(&listed.body));
        let watched = house.get(&format!("{PODS}?watch=true&timeoutSeconds=1&{query}"));
        assert_eq!(watched.code, listed.code, "{}", String::from_utf8_lossy(&watched.body));
    });
}

/// A method, a space, a request target; then, after a line's end, a body.
pub(crate) fn path(data: &[u8]) {
    let mut lines = data.splitn(2, |byte| *byte == b'\n');
    let (line, body) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut words = line.splitn(2, |byte| *byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(target)) else { return };
    with(|house| {
        let request = Request::builder().method(method.clone()).uri(uri.clone());
        let answer = house.ask(request.body(Body::from(body.to_vec())).expect("a request"));
        // Nothing stands behind the streams and proxies here; a version that is still to come is waited for.
        let none = uri.path().contains("/proxy") || uri.path().contains("/log") || uri.path().contains("/exec");
        let none = none || uri.path().contains("/attach") || uri.path().contains("/portforward");
        if method == Method::HEAD {
            // What went wrong is not said without a body.
            assert!(answer.code < 500 || none || answer.code == 504, "{}", answer.code);
            return;
        }
        answer.is_sound(if none { &[500, 501, 502, 503, 504] } else { &[504] });
    });
}

/// A token as it stands in the query; then the same bytes as what a token contains.
pub(crate) fn continue_token(data: &[u8]) {
    with(|house| {
        for token in [escaped(data), URL_SAFE_NO_PAD.encode(data)] {
            let uri = format!("/api/v1/namespaces/default/configmaps?limit=1&continue={token}");
            let answer = house.get(&uri);
            // From a snapshot that is gone, or is still to come.
            let told = matches!(answer.code, 200 | 400 | 410 | 504);
            assert!(told, "{} {}", answer.code, String::from_utf8_lossy(&answer.body));
            answer.is_sound(&[504]);
        }
    });
}

/// A header `Accept`.
pub(crate) fn accept(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    with(|house| {
        for uri in [PODS, "/api/v1/namespaces/default/pods/p1", "/apis", "/openapi/v2?x"] {
            // The documents of OpenAPI are large, and only their form depends on the header.
            if uri.starts_with("/openapi") && !data.len().is_multiple_of(64) {
                continue;
            }
            let request = Request::builder().uri(uri).header("accept", &value).body(Body::empty());
            let answer = house.ask(request.expect("a request"));
            answer.is_sound(&[]);
            assert!(matches!(answer.code, 200 | 400 | 406), "{uri} {}", answer.code);
        }
    });
}
