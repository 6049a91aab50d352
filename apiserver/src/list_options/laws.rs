//! Continue tokens: what was given is read as it was given, and nothing else is read as something that leads out of its list.

use super::*;
use proptest::prelude::*;

fn raw(value: impl std::fmt::Display) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The key of an object below its list: one segment, or a namespace and one.
fn key() -> impl Strategy<Value = String> {
    "([a-z0-9]([-a-z0-9.:]{0,8}[a-z0-9])?/)?[a-z0-9]([-a-z0-9.:]{0,8}[a-z0-9])?"
}

fn code(token: &str) -> u16 {
    Continue::decode(token).expect_err(token).code
}

/// Go's `path.Clean` for what begins with a slash.
fn cleaned(path: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(out.pop()),
            other => out.push(other),
        }
    }
    format!("/{}", out.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_continue_token_comes_back_as_it_was_given(after in key(), revision in proptest::option::of(1..=i64::MAX)) {
        let token = Continue { revision: revision.map(|revision| Revision(revision.unsigned_abs())), after };
        prop_assert_eq!(Continue::decode(&token.encode()).expect("a token"), token);
    }

    #[test]
    fn a_truncated_or_longer_token_is_refused(after in key(), revision in 1..=i64::MAX, at in any::<prop::sample::Index>(), more in "[!-~]{1,4}") {
        let token = Continue { revision: Some(Revision(revision.unsigned_abs())), after: after.clone() }.encode();
        let cut = &token[..at.index(token.len())];
        prop_assert_eq!(code(cut), 400, "{}", cut);
        let whole = json!({"v": VERSION, "rv": revision, "start": after});
        prop_assert_eq!(code(&raw(format!("{whole}{more}"))), 400, "{}", more);
    }

    #[test]
    fn no_start_leads_out_of_the_list(start in "[./a]{0,8}|/?[a-z]{1,3}(/[a-z.]{0,3}){0,3}", revision in prop_oneof![Just(-1_i64), Just(7)]) {
        let token = raw(json!({"v": VERSION, "rv": revision, "start": start}));
        let path = if start.starts_with('/') { start.clone() } else { format!("/{start}") };
        if start.is_empty() || cleaned(&path) != path {
            prop_assert_eq!(code(&token), 400, "{}", start);
        } else {
            let read = Continue::decode(&token).expect("a token");
            prop_assert_eq!(read.after, &path[1..]);
            prop_assert_eq!(read.revision, (revision > 0).then_some(Revision(7)));
        }
    }

    #[test]
    fn what_no_server_has_given_is_refused_whatever_it_is(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "\\PC{0,24}") {
        let told: Option<Value> = serde_json::from_slice(&bytes).ok();
        prop_assume!(told.is_none_or(|value| value["v"] != VERSION));
        prop_assert_eq!(code(&URL_SAFE_NO_PAD.encode(&bytes)), 400);
        prop_assert_eq!(code(&text), 400);
    }
}

#[test]
fn a_forged_token_is_refused_in_upstreams_words() {
    let refused = |token: &str| Continue::decode(token).expect_err(token).message;
    let cases = [
        (json!({"v": "meta.k8s.io/v9", "rv": 1, "start": "a"}), ": server does not recognize this encoded version"),
        (json!({"rv": 1, "start": "a"}), ": server does not recognize this encoded version"),
        (
            json!({"v": VERSION, "rv": 0, "start": "a"}),
            ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        ),
        (json!({"v": VERSION, "start": "a"}), ": incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
        (json!({"v": VERSION, "rv": 1}), ": encoded start key empty (version meta.k8s.io/v1)"),
        (json!({"v": VERSION, "rv": 1, "start": "../secrets"}), ": ../secrets"),
    ];
    for (token, why) in cases {
        assert_eq!(refused(&raw(&token)), format!("invalid continue token: continue key is not valid{why}"), "{token}");
    }
    // Padded base64, which Go's RawURLEncoding does not take either.
    assert!(refused("e30=").starts_with("invalid continue token: continue key is not valid: "));
}
