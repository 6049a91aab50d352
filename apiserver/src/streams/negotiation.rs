//! Which protocol a stream is spoken in: the client says what it can, the server chooses or refuses.
//!
//! A WebSocket names its protocols in `Sec-WebSocket-Protocol`; SPDY, the older way, in `X-Stream-Protocol-Version` beside
//! `Upgrade: SPDY/3.1`. In both the client's order decides. Follows upstream's `wsstream` and `httpstream.Handshake`.

use crate::authentication::websocket::protocols;
use crate::encode;
use crate::status::Status;
use axum::body::Body;
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use axum::response::Response;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

const SPDY: &str = "SPDY/3.1";
const PROTOCOL_VERSION: &str = "x-stream-protocol-version";
const ACCEPTED_VERSIONS: &str = "x-accepted-stream-protocol-versions";
/// What a client may send in one message, as upstream has it (`golang.org/x/net/websocket`).
const LARGEST_MESSAGE: usize = 32 << 20;

/// How the client goes on. The protocol is empty if it names none, which on a WebSocket means the oldest one.
pub(super) enum Agreed {
    WebSocket(WebSocketUpgrade, &'static str),
    Spdy(OnUpgrade, &'static str),
}

/// Chooses among the protocols the resource speaks on a WebSocket and over SPDY.
///
/// # Errors
/// The answer that refuses: 400 to what is no upgrade, 403 when no protocol is known to both.
pub(super) async fn negotiate(
    parts: &mut Parts,
    websocket: &[&'static str],
    spdy: &[&'static str],
) -> Result<Agreed, Response> {
    let names = |header: &HeaderMap, name: &HeaderName, word: &str| {
        listed(header, name).any(|value| value.eq_ignore_ascii_case(word))
    };
    if names(&parts.headers, &CONNECTION, "upgrade") && names(&parts.headers, &UPGRADE, SPDY) {
        let wanted: Vec<&str> = listed(&parts.headers, &HeaderName::from_static(PROTOCOL_VERSION)).collect();
        if wanted.is_empty() {
            let text = "unable to upgrade: X-Stream-Protocol-Version is required";
            return Err(encode::failure(&Status::bad_request(text)));
        }
        let chosen = choose(&wanted, spdy).ok_or_else(|| refusal(&wanted, spdy))?;
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or_else(|| encode::failure(&Status::bad_request("Upgrade request required")))?;
        return Ok(Agreed::Spdy(upgrade, chosen));
    }
    let upgrade = WebSocketUpgrade::from_request_parts(parts, &()).await;
    let upgrade = upgrade.map_err(|_| encode::failure(&Status::bad_request("Upgrade request required")))?;
    let wanted: Vec<&str> = protocols(&parts.headers).collect();
    let chosen = match wanted.is_empty() {
        true => "",
        false => choose(&wanted, websocket).ok_or_else(|| refusal(&wanted, websocket))?,
    };
    let upgrade = upgrade.max_message_size(LARGEST_MESSAGE).max_frame_size(LARGEST_MESSAGE).protocols([chosen]);
    Ok(Agreed::WebSocket(upgrade, chosen))
}

/// The values of a header that is a list, over all its lines.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

fn choose(wanted: &[&str], spoken: &[&'static str]) -> Option<&'static str> {
    wanted.iter().find_map(|name| spoken.iter().find(|known| *known == name).copied())
}

fn refusal(wanted: &[&str], spoken: &[&'static str]) -> Response {
    let text = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]\n",
        wanted.join(" "),
        spoken.join(" ")
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::FORBIDDEN;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    for known in spoken {
        response.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(known));
    }
    response
}

/// Says yes to SPDY and hands the connection to `serve` once the client has it.
pub(super) fn switch_to_spdy<F>(
    upgrade: OnUpgrade,
    protocol: &'static str,
    serve: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        if let Ok(connection) = upgrade.await {
            serve(TokioIo::new(connection)).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_order_decides_and_lists_may_span_lines() {
        let mut headers = HeaderMap::new();
        headers.append(PROTOCOL_VERSION, HeaderValue::from_static("v9, v3"));
        headers.append(PROTOCOL_VERSION, HeaderValue::from_static("v4"));
        let wanted: Vec<&str> = listed(&headers, &HeaderName::from_static(PROTOCOL_VERSION)).collect();
        assert_eq!(wanted, ["v9", "v3", "v4"]);
        assert_eq!(choose(&wanted, &["v4", "v3"]), Some("v3"));
        assert_eq!(choose(&wanted, &["v5"]), None);
    }
}
