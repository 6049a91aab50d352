//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386), with Kubernetes' answers to what fails.
//!
//! The third kind of patch, strategic merge, needs types: see [`strategic`](super::strategic). The fourth, server-side apply,
//! is [`apply`](super::apply()).

use super::decode::{MAX_BODY, MAX_DEPTH};
use crate::status::Status;
use json_patch::PatchOperation;
use serde_json::Value;

/// The largest number of operations in one JSON patch.
const MAX_OPERATIONS: usize = 10_000;

/// Applies a JSON patch: all of its operations, or none.
///
/// # Errors
/// 400 if it is no JSON patch, 413 if it is too long, 422 if an operation fails.
pub fn json_patch(document: &Value, patch: &Value) -> Result<Value, Status> {
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    if operations.0.len() > MAX_OPERATIONS {
        let message =
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", operations.0.len());
        return Err(Status::failure(413, "RequestEntityTooLarge", message));
    }
    let mut patched = document.clone();
    let mut growth = Growth { depth: depth(document), copied: 0 };
    for (index, operation) in operations.0.iter().enumerate() {
        growth.foresee(&patched, operation)?;
        if expects_nothing(&patched, operation) {
            continue;
        }
        // What fails is thrown away with the copy, so there is nothing to undo.
        json_patch::patch_unsafe(&mut patched, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            unprocessable(&error.to_string())
        })?;
    }
    Ok(patched)
}

/// A test for null where nothing is, in an object that is there. Unlike RFC 6902 (4.6), but like the library that Kubernetes uses: so
/// kube-rs makes sure that an object has no finalizers yet.
fn expects_nothing(document: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let Some((parent, key)) = test.path.split_back().filter(|_| test.value.is_null()) else { return false };
    let parent = document.pointer(parent.as_str()).and_then(Value::as_object);
    parent.is_some_and(|parent| !parent.contains_key(key.decoded().as_ref()))
}

/// How far a patch has gone: a small one may copy its copies and dig deeper with every step.
struct Growth {
    /// The document is nested no deeper than this.
    depth: usize,
    /// Bytes of JSON that copies have added.
    copied: usize,
}

impl Growth {
    /// Refuses an operation after which the document would be too large or too deep.
    fn foresee(&mut self, document: &Value, operation: &PatchOperation) -> Result<(), Status> {
        let (path, value) = match operation {
            PatchOperation::Add(add) => (&add.path, Some(&add.value)),
            PatchOperation::Replace(replace) => (&replace.path, Some(&replace.value)),
            PatchOperation::Move(r#move) => (&r#move.path, document.pointer(r#move.from.as_str())),
            PatchOperation::Copy(copy) => {
                let value = document.pointer(copy.from.as_str());
                self.copied += value.map_or(0, |value| value.to_string().len());
                if self.copied > MAX_BODY {
                    return Err(unprocessable(&format!(
                        "unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MAX_BODY}",
                        self.copied
                    )));
                }
                (&copy.path, value)
            }
            PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
        };
        // An estimate that is too high costs a look; a large value that is moved ten thousand times is not measured as often.
        let mut reach = path.count() + self.depth;
        if reach > MAX_DEPTH {
            self.depth = depth(document);
            reach = path.count() + value.map_or(0, depth);
        }
        if reach > MAX_DEPTH {
            return Err(unprocessable(&format!("the patched object would be nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth = self.depth.max(reach);
        Ok(())
    }
}

/// How many containers stand inside one another.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Applies a merge patch: null removes, objects are merged, everything else replaces.
///
/// # Errors
/// 400 if the patch is not an object.
pub fn merge_patch(document: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_object() {
        return Err(Status::bad_request("error decoding patch: a merge patch must be an object"));
    }
    let mut merged = document.clone();
    json_patch::merge(&mut merged, patch);
    Ok(merged)
}

/// 422, which says what failed: Kubernetes' own text ends before the colon.
pub(crate) fn unprocessable(why: &str) -> Status {
    let message = format!("the server rejected our request due to an error in our request: {why}");
    Status::failure(422, "Invalid", message)
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_json_patch_is_applied_whole_or_not_at_all() {
        let document = json!({"metadata": {"annotations": {"a/b": "1"}}, "list": [1, 2]});
        let patch = json!([
            {"op": "test", "path": "/metadata/annotations/a~1b", "value": "1"},
            {"op": "replace", "path": "/metadata/annotations/a~1b", "value": "2"},
            {"op": "add", "path": "/list/-", "value": 3},
            {"op": "remove", "path": "/list/0"}
        ]);
        let patched = json_patch(&document, &patch).expect("applies");
        assert_eq!(patched, json!({"metadata": {"annotations": {"a/b": "2"}}, "list": [2, 3]}));

        let failing = json!([{"op": "remove", "path": "/list"}, {"op": "test", "path": "/x", "value": 1}]);
        let refusal = json_patch(&document, &failing).expect_err("there is no /x");
        assert_eq!((refusal.code, refusal.reason), (422, "Invalid"));
        assert!(
            refusal.message.ends_with("operation '/1' failed at path '/x': path is invalid"),
            "{}",
            refusal.message
        );
        assert_eq!(json_patch(&document, &json!({"op": "add"})).expect_err("no list").code, 400);
        assert_eq!(json_patch(&document, &json!([{"op": "fly", "path": "/"}])).expect_err("no such op").code, 400);
    }

    /// Every operator written with kube-rs adds its finalizer so.
    #[test]
    fn a_test_for_null_holds_where_nothing_is() {
        let first = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["a"]}
        ]);
        let patched = json_patch(&json!({"metadata": {}}), &first).expect("applies");
        assert_eq!(patched, json!({"metadata": {"finalizers": ["a"]}}));
        assert_eq!(json_patch(&patched, &first).expect_err("there are some").code, 422);
        let nowhere = json!([{"op": "test", "path": "/spec/none", "value": null}]);
        assert_eq!(json_patch(&json!({}), &nowhere).expect_err("there is no /spec").code, 422);
    }

    #[test]
    fn a_patch_of_too_many_operations_is_refused() {
        let patch = Value::Array(vec![json!({"op": "test", "path": "", "value": {}}); MAX_OPERATIONS + 1]);
        assert_eq!(json_patch(&json!({}), &patch).expect_err("too many").code, 413);
    }

    #[test]
    fn a_patch_that_copies_its_copies_is_refused_before_it_fills_the_memory() {
        let doubling = json!({"op": "copy", "from": "", "path": "/a"});
        let document = json!({"text": "x".repeat(100)});
        let wide: Vec<Value> = (0..50).map(|_| json!({"op": "copy", "from": "/text", "path": "/text2"})).collect();
        assert!(json_patch(&document, &Value::Array(wide)).is_ok(), "a copy over a copy does not grow");
        let refusal = json_patch(&document, &Value::Array(vec![doubling; 200])).expect_err("too large");
        assert_eq!(refusal.code, 422);
        let mut list = vec![json!({"op": "add", "path": "/l", "value": [1]})];
        list.extend((0..50).map(|_| json!({"op": "copy", "from": "/l", "path": "/l/-"})));
        assert_eq!(json_patch(&document, &Value::Array(list)).expect_err("too large").code, 422);
    }

    #[test]
    fn a_patch_that_digs_deeper_with_every_step_is_refused() {
        let steps: Vec<Value> =
            (1..500).map(|step| json!({"op": "add", "path": "/a".repeat(step), "value": {}})).collect();
        assert_eq!(json_patch(&json!({}), &Value::Array(steps)).expect_err("too deep").code, 422);
        let turns = |step: usize| {
            let (from, to) = if step.is_multiple_of(2) { ("/a", "/b") } else { ("/b", "/a") };
            json!([{"op": "add", "path": to, "value": {}}, {"op": "move", "from": from, "path": format!("{to}/x")}])
        };
        let turns: Vec<Value> = (0..500).flat_map(|step| turns(step).as_array().cloned().unwrap_or_default()).collect();
        assert_eq!(json_patch(&json!({"a": {}}), &Value::Array(turns)).expect_err("too deep").code, 422);
    }

    #[test]
    fn a_merge_patch_removes_with_null() {
        let merged = merge_patch(
            &json!({"a": {"b": 1, "c": 2}, "l": [1]}),
            &json!({"a": {"b": null}, "l": [2], "n": {"x": null}}),
        );
        assert_eq!(merged, Ok(json!({"a": {"c": 2}, "l": [2], "n": {}})));
        assert_eq!(merge_patch(&json!({}), &json!([])).expect_err("not an object").code, 400);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0..5i64).prop_map(Value::from)];
        let object = leaf.prop_recursive(4, 30, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        });
        proptest::collection::btree_map("[a-d]", object, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn merging_twice_is_merging_once_and_merging_into_nothing_gives_the_patch(document in tree(), patch in tree()) {
            let once = merge_patch(&document, &patch).unwrap();
            prop_assert_eq!(merge_patch(&once, &patch).unwrap(), once);
            prop_assert_eq!(merge_patch(&json!({}), &patch).unwrap(), patch);
            prop_assert_eq!(merge_patch(&document, &json!({})).unwrap(), document);
        }
    }
}
