//! Tokens of browsers: a script can give a WebSocket no headers but names of protocols, so the token is one of them.
//!
//! Follows `k8s.io/apiserver/pkg/authentication/request/websocket`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName};

/// What the token stands behind, in base64.
const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The values of a header that is a list, over all its lines.
fn listed<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

/// Whether the client asks for a WebSocket.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    let says = |name: &HeaderName, word: &str| listed(headers, name).any(|value| value.eq_ignore_ascii_case(word));
    says(&CONNECTION, "upgrade") && says(&UPGRADE, "websocket")
}

/// The protocols that the client names and that are no tokens, in its order.
pub(crate) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    listed(headers, &SEC_WEBSOCKET_PROTOCOL).filter(|name| !name.starts_with(PREFIX))
}

/// The token that a WebSocket is asked for with, if there is one.
///
/// # Errors
/// Why it cannot be read, for people. A client that names no protocol beside it could not be answered with one.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    if !is_asked(headers) {
        return Ok(None);
    }
    let mut tokens = listed(headers, &SEC_WEBSOCKET_PROTOCOL).filter_map(|name| name.strip_prefix(PREFIX));
    let Some(encoded) = tokens.next() else { return Ok(None) };
    if tokens.next().is_some() {
        return Err("multiple base64.bearer.authorization tokens specified");
    }
    if protocols(headers).next().is_none() {
        return Err("missing additional subprotocol");
    }
    let decoded = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.filter(|token| !token.is_empty()).map(Some).ok_or("invalid base64.bearer.authorization token encoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_protocol_beside_others_and_only_of_a_websocket() {
        let read = |upgrade: &str, protocols: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, "keep-alive, Upgrade".parse().expect("a value"));
            headers.insert(UPGRADE, upgrade.parse().expect("a value"));
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocols.parse().expect("a value"));
            token(&headers)
        };
        let named = |token: &str| format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(token));
        assert_eq!(read("websocket", &format!("v4.channel.k8s.io, {}", named("abc"))), Ok(Some("abc".to_owned())));
        assert_eq!(read("WebSocket", &format!("{},v4", named("abc"))), Ok(Some("abc".to_owned())));
        assert_eq!(read("websocket", "v4.channel.k8s.io"), Ok(None));
        assert_eq!(read("SPDY/3.1", &format!("v4, {}", named("abc"))), Ok(None));
        assert!(read("websocket", &named("abc")).is_err(), "nothing could be answered");
        assert!(read("websocket", &format!("v4, {}, {}", named("a"), named("b"))).is_err());
        assert!(read("websocket", &format!("v4, {PREFIX}%")).is_err());
        assert!(read("websocket", &format!("v4, {PREFIX}")).is_err());
        assert!(read("websocket", &format!("v4, {PREFIX}{}", URL_SAFE_NO_PAD.encode([0xff, 0xfe]))).is_err());
    }
}
