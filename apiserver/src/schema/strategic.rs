//! Strategic merge patch: a merge patch that knows the types.
//!
//! Lists whose field has the strategy `merge` are merged by their merge key (or, holding scalars, as sets) instead of being
//! replaced. Directives say what a merge cannot: `$patch: replace | delete`, `$retainKeys`, `$deleteFromPrimitiveList/FIELD`
//! and `$setElementOrder/FIELD`. What `kubectl apply`, `edit`, `set` and `rollout restart` send.
//!
//! Follows "Strategic Merge Patch" of the Kubernetes API conventions (sig-api-machinery).

use super::patch::unprocessable;
use super::types::{Field, Object, ObjectRef, Type};
use crate::status::Status;
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of this type.
///
/// # Errors
/// 400 if the patch or one of its directives is malformed, 422 if an element of a list lacks its merge key.
pub fn strategic_merge(object: &ObjectRef, document: &Value, patch: &Value) -> Result<Value, Status> {
    let Value::Object(patch) = patch else {
        return Err(Status::bad_request("error decoding patch: a strategic merge patch must be an object"));
    };
    let original = document.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merge_object(Some(object), original, patch)?))
}

/// Merges a patch into an object; `None` for maps and for objects without known fields.
fn merge_object(
    object: Option<&Object>,
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, Status> {
    match patch.get(PATCH).map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            let mut new = patch.clone();
            new.remove(PATCH);
            return Ok(without_directives(new));
        }
        Some(Some("delete")) => return Ok(Map::new()),
        Some(_) => return Err(bad_directive(&patch[PATCH])),
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain_keys(&mut original, patch, keys)?;
    }
    let mut ordered = HashSet::new();
    for (key, order) in patch {
        let Some(name) = key.strip_prefix(SET_ORDER) else { continue };
        let Value::Array(order) = order else {
            return Err(Status::bad_request(format!("invalid patch format of {key}: it must be a list")));
        };
        let rule = ListRule::of(object.and_then(|object| object.field(name)));
        let before = match original.get(name) {
            Some(Value::Array(elements)) => elements.clone(),
            _ => Vec::new(),
        };
        let changes = match patch.get(name) {
            Some(Value::Array(changes)) => changes.as_slice(),
            Some(Value::Null) | None => &[],
            Some(_) => return Err(Status::bad_request(format!("invalid patch format of {name}: it must be a list"))),
        };
        // A list that only the patch orders is left alone; null, that is "delete", stands below.
        if (before.is_empty() && changes.is_empty()) || patch.get(name).is_some_and(Value::is_null) || !rule.merge {
            continue;
        }
        let merged = merge_list(&rule, before.clone(), changes, name)?;
        original.insert(name.to_owned(), Value::Array(in_order(&rule, merged, order, &before)));
        ordered.insert(name);
    }
    for (key, change) in patch {
        if key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || ordered.contains(key.as_str()) {
            continue;
        }
        if let Some(name) = key.strip_prefix(DELETE_FROM) {
            let Value::Array(gone) = change else {
                return Err(Status::bad_request(format!("invalid patch format of {key}: it must be a list")));
            };
            if let Some(Value::Array(elements)) = original.get_mut(name) {
                elements.retain(|element| !gone.contains(element));
            }
            continue;
        }
        if change.is_null() {
            original.remove(key);
            continue;
        }
        let field = object.and_then(|object| object.field(key));
        let before = original.remove(key);
        let after = merge_value(object, field, key, before, change)?;
        original.insert(key.clone(), after);
    }
    Ok(original)
}

fn merge_value(
    object: Option<&Object>,
    field: Option<&Field>,
    name: &str,
    before: Option<Value>,
    change: &Value,
) -> Result<Value, Status> {
    match (before, change) {
        (before, Value::Object(change)) => {
            if field.is_some_and(|field| field.strategy.replace) {
                return Ok(Value::Object(without_directives(change.clone())));
            }
            let before = match before {
                Some(Value::Object(before)) => before,
                _ => Map::new(),
            };
            let inner = match field.map(|field| &field.ty) {
                Some(Type::Object { schema, .. }) => Some(&**schema),
                // The values of a map are merged with the type the map gives them.
                Some(Type::Map(map)) => return merge_map(&map.element, before, change).map(Value::Object),
                _ => None,
            };
            merge_object(inner, before, change).map(Value::Object)
        }
        (before, Value::Array(changes)) => {
            let rule = ListRule::of(field);
            if !rule.merge {
                return Ok(Value::Array(changes.iter().cloned().map(clean).collect()));
            }
            let before = match before {
                Some(Value::Array(before)) => before,
                _ => Vec::new(),
            };
            let merged = merge_list(&rule, before.clone(), changes, object.map_or(name, Object::short_name))?;
            Ok(Value::Array(in_order(&rule, merged, changes, &before)))
        }
        (_, change) => Ok(change.clone()),
    }
}

fn merge_map(
    element: &Type,
    before: Map<String, Value>,
    change: &Map<String, Value>,
) -> Result<Map<String, Value>, Status> {
    let Type::Object { schema, .. } = element else { return merge_object(None, before, change) };
    // An object whose fields are the entries of the map and all have its type.
    let fields = change.keys().map(|key| Field::new(key.clone(), Type::object(schema.clone()))).collect();
    let entries = Object { fields, ..Object::default() }.finish();
    merge_object(Some(&entries), before, change)
}

/// How a list is merged.
struct ListRule<'a> {
    merge: bool,
    key: Option<&'a str>,
    element: Option<&'a Object>,
}

impl<'a> ListRule<'a> {
    fn of(field: Option<&'a Field>) -> Self {
        let element = match field.map(|field| &field.ty) {
            Some(Type::List(list)) => match &list.element {
                Type::Object { schema, .. } => Some(&**schema),
                _ => None,
            },
            _ => None,
        };
        ListRule {
            merge: field.is_some_and(|field| field.strategy.merge),
            key: field.and_then(|field| field.merge_key.as_deref()),
            element,
        }
    }

    /// What tells an element from the others: its merge key's value, or itself.
    fn identity(&self, element: &Value) -> Option<String> {
        match self.key {
            Some(key) => element.get(key).map(Value::to_string),
            None => Some(element.to_string()),
        }
    }
}

fn merge_list(rule: &ListRule<'_>, before: Vec<Value>, changes: &[Value], name: &str) -> Result<Vec<Value>, Status> {
    let Some(key) = rule.key else {
        let mut seen = HashSet::new();
        let both = before.into_iter().chain(changes.iter().cloned());
        return Ok(both.filter(|element| seen.insert(element.to_string())).collect());
    };
    let mut merged = before;
    let mut additions = Vec::new();
    let mut replace = false;
    for change in changes {
        let Value::Object(change) = change else {
            return Err(Status::bad_request(format!("invalid patch format of {name}: its elements must be objects")));
        };
        let Some(identity) = change.get(key) else {
            if change.get(PATCH).and_then(Value::as_str) == Some("replace") {
                replace = true;
                continue;
            }
            return Err(unprocessable(&format!(
                "map: {} does not contain declared merge key: {key}",
                Value::Object(change.clone())
            )));
        };
        match change.get(PATCH).map(Value::as_str) {
            None => additions.push((identity, change)),
            Some(Some("delete")) => merged.retain(|element| element.get(key) != Some(identity)),
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => {
                return Err(Status::bad_request("merging lists cannot yet be specified in the patch"));
            }
            Some(_) => return Err(bad_directive(&change[PATCH])),
        }
    }
    if replace {
        return Ok(additions
            .into_iter()
            .map(|(_, change)| Value::Object(without_directives(change.clone())))
            .collect());
    }
    let mut index: HashMap<String, usize> = HashMap::with_capacity(merged.len());
    for (at, element) in merged.iter().enumerate() {
        if let Some(identity) = element.get(key) {
            index.entry(identity.to_string()).or_insert(at);
        }
    }
    for (identity, change) in additions {
        let at = *index.entry(identity.to_string()).or_insert(merged.len());
        let before = match merged.get_mut(at).map(Value::take) {
            Some(Value::Object(before)) => before,
            _ => Map::new(),
        };
        let element = Value::Object(merge_object(rule.element, before, change)?);
        match merged.get_mut(at) {
            Some(slot) => *slot = element,
            None => merged.push(element),
        }
    }
    Ok(merged)
}

/// Puts the elements that `order` names into its order, and leaves the others about where they were among `before`.
fn in_order(rule: &ListRule<'_>, merged: Vec<Value>, order: &[Value], before: &[Value]) -> Vec<Value> {
    let positions = |list: &[Value]| {
        let mut positions = HashMap::with_capacity(list.len());
        for (at, element) in list.iter().enumerate() {
            if let Some(identity) = rule.identity(element) {
                positions.entry(identity).or_insert(at);
            }
        }
        positions
    };
    let (wanted, were) = (positions(order), positions(before));
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for element in merged {
        let identity = rule.identity(&element).unwrap_or_default();
        let was = were.get(&identity).copied();
        match wanted.get(&identity) {
            Some(at) => named.push((*at, was, element)),
            None => others.push((was.unwrap_or(usize::MAX), was, element)),
        }
    }
    named.sort_by_key(|(at, ..)| *at);
    others.sort_by_key(|(at, ..)| *at);
    // An element nobody ordered goes before the next ordered one that used to stand behind it.
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, was, element) in named {
        while let (Some((_, Some(other), _)), Some(was)) = (others.peek(), was) {
            if *other >= was {
                break;
            }
            out.extend(others.next().map(|(.., element)| element));
        }
        out.push(element);
    }
    out.extend(others.map(|(.., element)| element));
    out
}

fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>, keys: &Value) -> Result<(), Status> {
    let malformed =
        || Status::bad_request("invalid patch format of retainKeys: it must be a list of the fields to keep");
    let Value::Array(keys) = keys else { return Err(malformed()) };
    let keys: HashSet<&str> = keys.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(malformed)?;
    let stray =
        patch.iter().find(|(key, value)| !key.starts_with('$') && !value.is_null() && !keys.contains(key.as_str()));
    if stray.is_some() {
        return Err(malformed());
    }
    original.retain(|key, _| keys.contains(key.as_str()));
    Ok(())
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER)
}

/// What a patch puts where nothing was: itself, without nulls and directives.
fn without_directives(map: Map<String, Value>) -> Map<String, Value> {
    map.into_iter().filter(|(key, value)| !is_directive(key) && !value.is_null()).map(|(k, v)| (k, clean(v))).collect()
}

fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(elements) => {
            let gone = |element: &Value| element.get(PATCH).and_then(Value::as_str) == Some("delete");
            Value::Array(elements.into_iter().filter(|element| !gone(element)).map(clean).collect())
        }
        other => other,
    }
}

fn bad_directive(directive: &Value) -> Status {
    Status::bad_request(format!("unknown patch type: {directive}"))
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::super::table::builtin;
    use super::super::testing::any_json;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn apply(kind: (&str, &str), document: Value, patch: Value) -> Result<Value, Status> {
        let object = builtin().kind(kind.0, "v1", kind.1).expect("a built-in kind");
        strategic_merge(&object, &document, &patch)
    }

    const POD: (&str, &str) = ("", "Pod");
    const DEPLOYMENT: (&str, &str) = ("apps", "Deployment");

    #[track_caller]
    fn pod_spec(before: Value, patch: Value, after: Value) {
        let result = apply(POD, json!({"spec": before}), json!({"spec": patch}));
        assert_eq!(result, Ok(json!({"spec": after})));
    }

    #[test]
    fn containers_are_merged_by_name() {
        pod_spec(
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
        );
    }

    #[test]
    fn ports_are_merged_by_container_port_and_env_by_name() {
        pod_spec(
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "x"}], "env": [{"name": "A", "value": "1"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}],
                                   "env": [{"name": "A", "value": null, "valueFrom": {"fieldRef": {"fieldPath": "p"}}}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}],
                                   "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "p"}}}]}]}),
        );
    }

    #[test]
    fn a_list_without_merge_strategy_is_replaced() {
        pod_spec(
            json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}),
            json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}),
            json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}),
        );
    }

    #[test]
    fn finalizers_are_a_set_and_can_be_deleted_from() {
        let with = |list: Value| json!({"metadata": {"finalizers": list}});
        assert_eq!(apply(POD, with(json!(["a", "b"])), with(json!(["b", "c"]))), Ok(with(json!(["a", "b", "c"]))));
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
        assert_eq!(apply(POD, with(json!(["a", "b"])), patch), Ok(with(json!(["b"]))));
    }

    #[test]
    fn an_element_is_deleted_by_its_merge_key() {
        pod_spec(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        );
    }

    #[test]
    fn a_list_is_replaced_if_one_element_says_so() {
        pod_spec(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}),
            json!({"containers": [{"name": "c"}]}),
        );
    }

    #[test]
    fn an_object_is_replaced_or_emptied_by_directive() {
        let before = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let patch = |directive: &str| json!({"metadata": {"labels": {"$patch": directive, "c": "3"}}});
        assert_eq!(apply(POD, before.clone(), patch("replace")), Ok(json!({"metadata": {"labels": {"c": "3"}}})));
        assert_eq!(apply(POD, before.clone(), patch("delete")), Ok(json!({"metadata": {"labels": {}}})));
        assert_eq!(apply(POD, before, patch("fly")).expect_err("no such directive").code, 400);
    }

    #[test]
    fn retained_keys_are_all_that_is_left() {
        let before = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
        assert_eq!(apply(DEPLOYMENT, before.clone(), patch), Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})));
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["rollingUpdate"], "type": "Recreate"}}});
        assert_eq!(apply(DEPLOYMENT, before, patch).expect_err("type is not retained").code, 400);
    }

    #[test]
    fn the_order_of_elements_can_be_set() {
        pod_spec(
            json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}], "containers": [{"name": "c"}]}),
            json!({"containers": [{"name": "server"}, {"name": "b"}, {"name": "a"}, {"name": "c"}]}),
        );
        pod_spec(
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
        );
    }

    #[test]
    fn null_removes_and_is_not_left_in_what_is_new() {
        let before = json!({"spec": {"replicas": 1, "template": {"spec": {"nodeName": "n"}}}});
        let patch = json!({"spec": {"replicas": null, "template": {"spec": {"nodeName": null, "dnsConfig": {"options": null}}}}});
        assert_eq!(apply(DEPLOYMENT, before, patch), Ok(json!({"spec": {"template": {"spec": {"dnsConfig": {}}}}})));
    }

    #[test]
    fn directives_do_not_survive_where_nothing_was() {
        pod_spec(
            json!({}),
            json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "b"}], "$setElementOrder/containers": [{"name": "b"}],
                   "$setElementOrder/volumes": [{"name": "v"}]}),
            json!({"containers": [{"name": "b"}]}),
        );
    }

    #[test]
    fn an_element_without_its_merge_key_is_refused() {
        let refusal = apply(POD, json!({}), json!({"spec": {"containers": [{"image": "i"}]}})).expect_err("no name");
        assert_eq!(refusal.code, 422);
        let expected = r#"map: {"image":"i"} does not contain declared merge key: name"#;
        assert!(refusal.message.ends_with(expected), "{}", refusal.message);
        assert_eq!(apply(POD, json!({}), json!([])).expect_err("not an object").code, 400);
    }

    fn containers() -> impl Strategy<Value = Vec<Value>> {
        proptest::collection::btree_map("[a-e]", ("[x-z]", proptest::option::of("[p-r]")), 0..5).prop_map(|map| {
            map.into_iter()
                .map(|(name, (image, value))| match value {
                    Some(value) => json!({"name": name, "image": image, "env": [{"name": "E", "value": value}]}),
                    None => json!({"name": name, "image": image}),
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn patching_twice_is_patching_once(before in containers(), patch in containers()) {
            let (document, patch) = (json!({"spec": {"containers": before}}), json!({"spec": {"containers": patch}}));
            let once = apply(POD, document, patch.clone()).unwrap();
            prop_assert_eq!(apply(POD, once.clone(), patch).unwrap(), once);
        }

        #[test]
        fn replacing_by_directive_gives_the_patch_in_its_order(before in containers(), mut after in containers()) {
            let expected = json!({"spec": {"containers": after.clone()}});
            after.push(json!({"$patch": "replace"}));
            let patched = apply(POD, json!({"spec": {"containers": before}}), json!({"spec": {"containers": after}})).unwrap();
            prop_assert_eq!(patched, expected);
        }

        #[test]
        fn any_patch_is_applied_or_refused_but_never_panics(document in any_json(), patch in any_json()) {
            let _ = apply(DEPLOYMENT, document, patch);
        }
    }
}
