//! Patches of a Deployment. The first line says which part of it, how strictly, and whether the write is only tried: `/scale Strict dry`.

use crate::house::with;
use http::Method;

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

/// Patches; whatever it did, the object can be read, and written back as it is.
fn patch(media: &str, query: &str, data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return };
    let (line, body) = (String::from_utf8_lossy(&data[..end]), &data[end + 1..]);
    let has = |word: &&str| line.split(' ').any(|known| known == *word);
    let part = ["/status", "/scale"].into_iter().find(has).unwrap_or_default();
    let dry = if has(&"dry") { "&dryRun=All" } else { "" };
    let strict = ["Strict", "Warn"].into_iter().find(has).unwrap_or("Ignore");
    with(|house| {
        let uri = format!("{WEB}{part}?fieldManager=m&fieldValidation={strict}{query}{dry}");
        let patched = house.send(Method::PATCH, &uri, &[("content-type", media)], body.to_vec());
        // Upstream calls a configuration that does not fit its type the server's fault; so does this one, word by word.
        let unfit = String::from_utf8_lossy(&patched.body).contains("failed to create typed patch object");
        patched.is_sound(if unfit { &[500] } else { &[] });
        if patched.code != 200 {
            return;
        }
        let read = house.get(WEB);
        let object = read.json().expect("an object");
        if object["metadata"].get("deletionTimestamp").is_some() {
            return;
        }
        assert_eq!(read.code, 200, "{}", String::from_utf8_lossy(&read.body));
        let uri = format!("{WEB}?fieldValidation=Strict&fieldManager=m");
        let again = house.send(Method::PUT, &uri, &[("content-type", "application/json")], object.to_string());
        assert_eq!(again.code, 200, "{} {object}", String::from_utf8_lossy(&again.body));
        assert_eq!(again.json(), Some(object), "writing what was read changes nothing");
    });
}

/// RFC 6902.
pub(crate) fn json(data: &[u8]) {
    patch("application/json-patch+json", "", data);
}

/// RFC 7386.
pub(crate) fn merge(data: &[u8]) {
    patch("application/merge-patch+json", "", data);
}

/// Strategic merge.
pub(crate) fn strategic(data: &[u8]) {
    patch("application/strategic-merge-patch+json", "", data);
}

/// Server-side apply.
pub(crate) fn apply(data: &[u8]) {
    patch("application/apply-patch+yaml", "&force=true", data);
}
