//! What scripts in browsers do: a token as a WebSocket's protocol, and watches over WebSockets.

use crate::access::House;
use crate::stream_client::{Client, message};
use crate::support::{CONFIGMAPS, configmap};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// The owner's token as a protocol.
fn token() -> String {
    format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode("owner"))
}

async fn event(client: &mut Client) -> (String, String, String) {
    let (opcode, payload) = client.frame().await.expect("a message");
    assert_eq!(opcode, TEXT, "{}", String::from_utf8_lossy(&payload));
    let event: Value = serde_json::from_slice(&payload).expect("one event");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["object"];
    (text(&event["type"]), text(&object["metadata"]["name"]), text(&object["metadata"]["resourceVersion"]))
}

#[tokio::test(start_paused = true)]
async fn a_browser_watches_over_a_websocket_with_its_token_as_a_protocol() {
    let house = House::new().await;
    house.admin.post(CONFIGMAPS, configmap("before")).await.created();
    let mut client = Client::new(&house.admin.api.router());
    let uri = format!("{CONFIGMAPS}?watch=true");
    let head = client.websocket(&uri, &format!("{}, base64.binary.k8s.io", token())).await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-protocol: base64.binary.k8s.io\r\n"), "the token is not sent back: {head}");
    let (kind, name, _) = event(&mut client).await;
    assert_eq!((kind.as_str(), name.as_str()), ("ADDED", "before"));
    // What the client says means nothing.
    client.send(&message(TEXT, b"hello")).await;
    house.admin.post(CONFIGMAPS, configmap("after")).await.created();
    house.admin.delete(&format!("{CONFIGMAPS}/after"), Value::Null).await.ok();
    for expected in ["ADDED", "DELETED"] {
        let (kind, name, _) = event(&mut client).await;
        assert_eq!((kind.as_str(), name.as_str()), (expected, "after"));
    }
    client.send(&message(CLOSE, &1000_u16.to_be_bytes())).await;
    while let Some((opcode, _)) = client.frame().await {
        assert_eq!(opcode, CLOSE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_over_a_websocket_ends_with_its_time_out() {
    let house = House::new().await;
    let mut client = Client::new(&house.admin.router);
    let head = client.websocket(&format!("{CONFIGMAPS}?watch=true&resourceVersion=1&timeoutSeconds=5"), "").await;
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    let start = tokio::time::Instant::now();
    let (opcode, _) = client.frame().await.expect("a frame");
    assert_eq!((opcode, start.elapsed().as_secs()), (CLOSE, 5));
}

#[tokio::test(start_paused = true)]
async fn a_websockets_token_is_judged_like_any_other() {
    let house = House::new().await;
    let uri = format!("{CONFIGMAPS}?watch=true");
    let forged = token().replace(&URL_SAFE_NO_PAD.encode("owner"), &URL_SAFE_NO_PAD.encode("nobody"));
    for (protocols, code) in [
        (format!("{forged}, base64.binary.k8s.io"), "401"),
        (format!("{}, {}, base64.binary.k8s.io", token(), token()), "401"),
        (token(), "401"),
        ("base64.binary.k8s.io".to_owned(), "403"),
        (format!("{}, base64.binary.k8s.io", token()), "101"),
    ] {
        let mut client = Client::new(&house.admin.api.router());
        let head = client.websocket(&uri, &protocols).await;
        assert!(head.starts_with(&format!("http/1.1 {code} ")), "{protocols}: {head}");
    }
    // What goes wrong before the watch begins is told by the answer.
    let mut client = Client::new(&house.admin.router);
    let head = client.websocket(&format!("{uri}&resourceVersion=x"), "").await;
    assert!(head.starts_with("http/1.1 422 "), "{head}");
}
