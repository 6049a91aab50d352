//! Label selectors in objects: what is wrong with one, and whether it selects some labels.

use super::field::{complaints, invalid};
use super::json::{list, object, text, texts};
use super::{metadata, names};
use crate::status::FieldError;
use serde_json::Value;

/// Everything wrong with the `LabelSelector` `selector` that stands at `field`.
pub(crate) fn errors(selector: &Value, field: &str, errors: &mut Vec<FieldError>) {
    metadata::labels(&format!("{field}.matchLabels"), object(selector, "/matchLabels").into_iter().flatten(), errors);
    for (index, expression) in list(selector, "/matchExpressions").iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        let (key, operator, values) =
            (text(expression, "/key"), text(expression, "/operator"), texts(expression, "/values"));
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                format!("{field}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                format!("{field}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(invalid(format!("{field}.operator"), other, "not a valid selector operator")),
        }
        errors.extend(complaints(&format!("{field}.key"), key, names::qualified_name(key)));
        for (index, value) in values.into_iter().enumerate() {
            errors.extend(complaints(&format!("{field}.values[{index}]"), value, names::label_value(value)));
        }
    }
}

/// Whether the selector has no condition, so that it selects everything.
pub(crate) fn is_empty(selector: &Value) -> bool {
    object(selector, "/matchLabels").is_none_or(serde_json::Map::is_empty)
        && list(selector, "/matchExpressions").is_empty()
}

/// Whether the `LabelSelector` selects what has the labels at `pointer` of `value`.
pub(crate) fn selects(selector: &Value, value: &Value, pointer: &str) -> bool {
    let labels = object(value, pointer);
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let all_labels = object(selector, "/matchLabels").into_iter().flatten();
    all_labels.into_iter().all(|(key, wanted)| label(key) == wanted.as_str())
        && list(selector, "/matchExpressions").iter().all(|expression| {
            let (found, values) = (label(text(expression, "/key")), texts(expression, "/values"));
            match text(expression, "/operator") {
                "In" => found.is_some_and(|found| values.contains(&found)),
                "NotIn" => found.is_none_or(|found| !values.contains(&found)),
                "Exists" => found.is_some(),
                _ => found.is_none(),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_selector_selects_what_meets_all_its_conditions() {
        let labels = json!({"l": {"app": "web", "tier": "front"}});
        for (selector, verdict) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "web", "tier": "back"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "api"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), false),
        ] {
            assert_eq!(selects(&selector, &labels, "/l"), verdict, "{selector}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_selector_is_said_by_field() {
        let mut found = Vec::new();
        let selector = json!({"matchExpressions": [
            {"key": "a", "operator": "In"}, {"key": "b", "operator": "Exists", "values": ["x"]}, {"key": "c", "operator": "Is"}]});
        errors(&selector, "spec.selector", &mut found);
        expect![[r#"
            spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
            spec.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'
            spec.selector.matchExpressions[2].operator: Invalid value: "Is": not a valid selector operator
        "#]]
        .assert_eq(&found.iter().map(|error| format!("{}: {}\n", error.field, error.message)).collect::<String>());
    }
}
