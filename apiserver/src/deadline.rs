//! How long a request may take: `--request-timeout` upstream, and `timeout=` of the request, which kubectl's `--request-timeout` sends.
//!
//! Follows `WithRequestDeadline` and `BasicLongRunningRequestCheck` of `k8s.io/apiserver`.

use crate::request::{Query, RequestInfo};
use crate::status::Status;
use http::Uri;
use serde_json::json;
use std::time::Duration;

/// Subresources whose requests are streams.
const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// How much time the request has; `None` if it may take as long as it likes.
///
/// # Errors
/// 400 if its `timeout` is no duration.
pub(crate) fn of(info: &RequestInfo, uri: &Uri, most: Duration) -> Result<Option<Duration>, Status> {
    if info.is_resource && info.verb == "watch" || is_stream(info) {
        return Ok(None);
    }
    if uri.query().is_none_or(|query| !query.contains("timeout=")) {
        return Ok(Some(most));
    }
    let query = Query::new(uri);
    let Some(text) = query.text("timeout") else { return Ok(Some(most)) };
    let asked = duration(text).ok_or_else(|| {
        let why = format!("invalid timeout specified in the request URL - time: invalid duration {text:?}");
        Status::bad_request(why)
    })?;
    // Nobody gets more by asking, and 0 asks for nothing.
    Ok(Some(if asked.is_zero() { most } else { asked.min(most) }))
}

/// Whether the request lasts as long as somebody uses it.
pub(crate) fn is_stream(info: &RequestInfo) -> bool {
    info.is_resource && STREAMS.contains(&info.subresource.as_str())
}

/// What a request is told that took too long.
pub(crate) fn exceeded() -> Status {
    let message = "Timeout: request did not complete within requested timeout - context deadline exceeded";
    let mut status = Status::failure(504, "Timeout", message);
    status.details = Some(json!({}));
    status
}

/// A duration as Go writes it: `1m30s`, `1.5h`, `0`. Negative ones are none.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text.strip_prefix('+').unwrap_or(text), 0.0);
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..unit].parse().ok()?;
        let end = rest[unit..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |end| unit + end);
        seconds += number
            * match &rest[unit..end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(())?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("5s", Some(5_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("+1s", Some(1_000)),
            ("5", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1d", None),
            ("1s junk", None),
            (".s", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn watches_and_streams_have_no_deadline_and_nobody_gets_a_later_one() {
        let most = Duration::from_secs(60);
        let deadline = |uri: &str| {
            let uri: Uri = uri.parse().expect("a URI");
            of(&RequestInfo::new(&Method::GET, &uri), &uri, most).map_err(|status| status.code)
        };
        for (uri, expected) in [
            ("/api/v1/pods", Ok(Some(60))),
            ("/version", Ok(Some(60))),
            ("/api/v1/pods?timeout=5s", Ok(Some(5))),
            ("/api/v1/pods?timeout=0s", Ok(Some(60))),
            ("/api/v1/pods?timeout=1h", Ok(Some(60))),
            ("/api/v1/pods?timeout=soon", Err(400)),
            ("/api/v1/pods?timeoutSeconds=5", Ok(Some(60))),
            ("/api/v1/pods?watch=1&timeout=5s", Ok(None)),
            ("/api/v1/namespaces/a/pods/b/log?follow=true", Ok(None)),
            ("/api/v1/namespaces/a/pods/b/exec", Ok(None)),
            ("/api/v1/namespaces/a/services/b/proxy/x", Ok(None)),
        ] {
            assert_eq!(deadline(uri), expected.map(|some| some.map(Duration::from_secs)), "{uri}");
        }
    }
}
