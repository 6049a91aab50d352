//! Label and field selectors: `app in (a,b),!old` and `status.phase!=Running`, matched against an object's JSON.
//!
//! Follows `k8s.io/apimachinery/pkg/{labels,fields}`. Which fields a kind can be selected by stands in its row.

use crate::extract::extract;
use crate::kinds::metadata;
use crate::registry::ResourceKind;
use crate::status::Status;
use crate::storage;
use serde_json::Value;
use std::borrow::Cow;
use store::KeyValue;

/// A selection among the objects of a kind; empty selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
    /// What of an object has to be read to decide.
    paths: Vec<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FieldRequirement {
    field: String,
    value: String,
    equal: bool,
}

/// What an object can be looked up by: a field or a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    Field(String),
    Label(String),
}

impl Hook {
    /// Its value in an object; `None` if there is no such label.
    pub(crate) fn value<'a>(&self, object: &'a Value) -> Option<Cow<'a, str>> {
        match self {
            Hook::Field(field) => Some(field_value(object, field)),
            Hook::Label(label) => label_value(object, label).map(Cow::Borrowed),
        }
    }
}

impl Selector {
    /// Reads both selectors of a request for objects of `kind`.
    pub(crate) fn new(kind: &ResourceKind, labels: &str, fields: &str) -> Result<Self, Status> {
        let labels =
            parse_labels(labels).map_err(|why| Status::bad_request(format!("unable to parse requirement: {why}")))?;
        let fields = parse_fields(fields).map_err(Status::bad_request)?;
        for FieldRequirement { field, .. } in &fields {
            let general = field == "metadata.name" || field == "metadata.namespace";
            if !general && !kind.selectable_fields.iter().any(|known| known == field) {
                return Err(Status::bad_request(if kind.selectable_fields.is_empty() {
                    format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                } else {
                    format!("field label not supported: {field}")
                }));
            }
        }
        Ok(Selector::over(labels, fields))
    }

    fn over(labels: Vec<Requirement>, fields: Vec<FieldRequirement>) -> Self {
        let labelled = (!labels.is_empty()).then_some("metadata.labels");
        let paths = fields.iter().map(|requirement| field_path(&requirement.field)).chain(labelled);
        let paths = paths.map(|path| path.split('.').map(str::to_owned).collect()).collect();
        Selector { labels, fields, paths }
    }

    /// A selector over labels only.
    pub(crate) fn labels(text: &str) -> Result<Self, String> {
        Ok(Selector::over(parse_labels(text)?, Vec::new()))
    }

    /// A `metav1.LabelSelector`; matches nothing if it cannot be read.
    pub(crate) fn matches_label_selector(selector: &Value, object: &Value) -> bool {
        Selector::labels(&label_selector_text(selector)).is_ok_and(|selector| selector.matches(object))
    }

    /// Selects only the object of this name.
    pub(crate) fn require_name(&mut self, name: &str) {
        if self.name() != Some(name) {
            let (field, value) = ("metadata.name".to_owned(), name.to_owned());
            self.fields.push(FieldRequirement { field, value, equal: true });
            *self = Selector::over(std::mem::take(&mut self.labels), std::mem::take(&mut self.fields));
        }
    }

    /// Whether everything is selected.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, if the selector says so.
    pub(crate) fn name(&self) -> Option<&str> {
        let wanted = |field: &&FieldRequirement| field.equal && field.field == "metadata.name";
        self.fields.iter().find(wanted).map(|field| field.value.as_str())
    }

    /// Something that has one value in all objects that are selected, and that value.
    pub(crate) fn hook(&self) -> Option<(Hook, &str)> {
        let field = self.fields.iter().find(|field| field.equal);
        let field = field.map(|field| (Hook::Field(field.field.clone()), field.value.as_str()));
        field.or_else(|| {
            self.labels.iter().find_map(|label| match &label.operator {
                Operator::In(values) if values.len() == 1 => Some((Hook::Label(label.key.clone()), &*values[0])),
                _ => None,
            })
        })
    }

    /// What of an object has to be read to decide.
    pub(crate) fn paths(&self) -> &[Vec<String>] {
        &self.paths
    }

    /// What stands at these paths of a stored object, or more of it.
    pub(crate) fn read(kind: &ResourceKind, kv: &KeyValue, paths: &[Vec<String>]) -> Result<Value, Status> {
        if kind.view_of.is_some() { storage::decode(kind, kv) } else { Ok(extract(&kv.value, paths)) }
    }

    /// Whether the object stored so is selected.
    pub(crate) fn matches_stored(&self, kind: &ResourceKind, kv: &KeyValue) -> Result<bool, Status> {
        Ok(self.is_empty() || self.matches(&Selector::read(kind, kv, &self.paths)?))
    }

    /// Whether `object` is selected.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.iter().all(|requirement| {
            let value = label_value(object, &requirement.key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.iter().any(|wanted| wanted == value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
                Operator::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
                Operator::LessThan(bound) => number().is_some_and(|number| number < *bound),
            }
        }) && self.fields.iter().all(|field| (field_value(object, &field.field) == field.value) == field.equal)
    }
}

fn label_value<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// Three names in field selectors are not paths.
fn field_path(field: &str) -> &str {
    match field {
        "source" => "source.component",
        "status.successful" => "status.succeeded",
        "status.podIPs" => "status.podIP",
        path => path,
    }
}

/// What a field selector compares with; a missing field is the zero value of its type.
fn field_value<'a>(object: &'a Value, field: &str) -> Cow<'a, str> {
    let mut value = Some(object);
    for part in field_path(field).split('.') {
        value = value.and_then(|value| value.get(part));
    }
    match value {
        Some(Value::String(text)) => Cow::Borrowed(text),
        Some(Value::Null) | None => Cow::Borrowed(match field {
            "spec.unschedulable" | "spec.hostNetwork" => "false",
            "status.replicas" | "status.successful" => "0",
            _ => "",
        }),
        Some(other) => Cow::Owned(other.to_string()),
    }
}

/// The text of a `metav1.LabelSelector`, of a plain map of labels, or of a selector that is text already.
pub(crate) fn label_selector_text(selector: &Value) -> String {
    let equalities = |labels: Option<&Value>| -> Vec<String> {
        let labels = labels.and_then(Value::as_object).into_iter().flatten();
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect()
    };
    let Value::Object(fields) = selector else {
        return selector.as_str().unwrap_or_default().to_owned();
    };
    if !fields.contains_key("matchLabels") && !fields.contains_key("matchExpressions") {
        return equalities(Some(selector)).join(",");
    }
    let mut parts = equalities(fields.get("matchLabels"));
    for expression in fields.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut requirements = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (requirement, after) = parse_requirement(rest)?;
        requirements.push(requirement);
        rest = after.trim_start();
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start();
            if rest.is_empty() {
                return Err("found '', expected: identifier after ','".to_owned());
            }
        } else if !rest.is_empty() {
            return Err(format!("found '{rest}', expected: ',' or 'end of string'"));
        }
    }
    Ok(requirements)
}

/// A word of a label selector and what follows it.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_whitespace() || "=!(),<>".contains(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start())
}

fn parse_requirement(text: &str) -> Result<(Requirement, &str), String> {
    if let Some(rest) = text.strip_prefix('!') {
        let (key, rest) = word(rest.trim_start());
        let key = checked_key(key)?;
        return Ok((Requirement { key, operator: Operator::DoesNotExist }, rest));
    }
    let (key, rest) = word(text);
    let key = checked_key(key)?;
    for (sign, negated) in [("==", false), ("=", false), ("!=", true)] {
        if let Some(after) = rest.strip_prefix(sign) {
            let (value, rest) = word(after.trim_start());
            checked_value(value)?;
            let values = vec![value.to_owned()];
            let operator = if negated { Operator::NotIn(values) } else { Operator::In(values) };
            return Ok((Requirement { key, operator }, rest));
        }
    }
    for sign in ['>', '<'] {
        if let Some(after) = rest.strip_prefix(sign) {
            let (value, rest) = word(after.trim_start());
            let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
            let bound = value.parse().map_err(|_| format!("values[0][{key}]: Invalid value: {value:?}: {detail}"))?;
            let operator = if sign == '>' { Operator::GreaterThan(bound) } else { Operator::LessThan(bound) };
            return Ok((Requirement { key, operator }, rest));
        }
    }
    let (keyword, after) = word(rest);
    match keyword {
        "in" | "notin" => {
            let inner = after.strip_prefix('(').ok_or_else(|| format!("found '{after}' expected: '('"))?;
            let (list, left) =
                inner.split_once(')').ok_or_else(|| format!("found '{inner}', expected: ',', or ')'"))?;
            let values: Vec<String> = list.split(',').map(|value| value.trim().to_owned()).collect();
            values.iter().try_for_each(|value| checked_value(value))?;
            let operator = if keyword == "in" { Operator::In(values) } else { Operator::NotIn(values) };
            Ok((Requirement { key, operator }, left))
        }
        "" => Ok((Requirement { key, operator: Operator::Exists }, rest)),
        other => Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    }
}

fn checked_key(key: &str) -> Result<String, String> {
    if key.is_empty() {
        return Err("found '', expected: !, identifier, or 'end of string'".to_owned());
    }
    complaint("key", key, "").map_or_else(|| Ok(key.to_owned()), Err)
}

fn checked_value(value: &str) -> Result<(), String> {
    complaint("values[0]", "key", value).map_or(Ok(()), Err)
}

/// What the rules for labels say against this one.
fn complaint(field: &str, key: &str, value: &str) -> Option<String> {
    let mut errors = Vec::new();
    let labels = [(key.to_owned(), Value::from(value))];
    metadata::labels(field, labels.iter().map(|(key, value)| (key, value)), &mut errors);
    errors.first().map(|error| format!("{field}: {}", error.message))
}

fn parse_fields(text: &str) -> Result<Vec<FieldRequirement>, String> {
    split_unescaped(text, ',')
        .into_iter()
        .filter(|term| !term.is_empty())
        .map(|term| {
            let at = term.find(['=', '!']).filter(|at| *at > 0);
            let (field, rest) = at.map_or(("", ""), |at| term.split_at(at));
            for (sign, equal) in [("!=", false), ("==", true), ("=", true)] {
                if let Some(value) = rest.strip_prefix(sign) {
                    return Ok(FieldRequirement { field: field.to_owned(), value: unescape(value)?, equal });
                }
            }
            Err(format!("invalid selector: '{text}'; can't understand '{term}'"))
        })
        .collect()
}

fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if !escaped && c == separator {
            parts.push(&text[start..at]);
            start = at + c.len_utf8();
        }
        escaped = !escaped && c == '\\';
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => return Err(format!("invalid field selector: invalid escape sequence in {value:?}")),
            },
            '=' | ',' => return Err(format!("invalid field selector: unescaped character in value: {c}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, object: &Value) -> bool {
        Selector::labels(selector).expect(selector).matches(object)
    }

    #[test]
    fn label_selectors_select_by_sets_equality_and_existence() {
        let web = json!({"metadata": {"labels": {"app": "web", "tier": "front", "rank": "7"}}});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web , tier = front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("other notin (db)", true),
            ("app", true),
            ("!app", false),
            ("!other,tier", true),
            ("rank>6,rank<8", true),
            ("rank>7", false),
            ("app in ()", false),
            ("example.com/x=", false),
        ];
        for (selector, expected) in cases {
            assert_eq!(matches(selector, &web), expected, "{selector}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for selector in ["app=", "a b", "a in x", "a in (b", "=b", ",", "a,", "a=b c", "a=$", "-a=b", "a>b", "!"] {
            let result = Selector::labels(selector);
            assert_eq!(result.is_ok(), selector == "app=", "{selector}: {result:?}");
        }
        let pod = ResourceKind::new("", "v1", "Pod", "pods").with_selectable_fields(&["spec.nodeName"]);
        for fields in ["spec.host=a", "x", "=a", "spec.nodeName=a=b", "spec.nodeName=\\x"] {
            assert_eq!(Selector::new(&pod, "", fields).expect_err(fields).code, 400, "{fields}");
        }
    }

    #[test]
    fn field_selectors_compare_with_the_zero_value_of_what_is_missing() {
        let pod =
            ResourceKind::new("", "v1", "Pod", "pods").with_selectable_fields(&["spec.nodeName", "spec.hostNetwork"]);
        let bound = json!({"metadata": {"name": "a,b"}, "spec": {"nodeName": "n1", "hostNetwork": true}});
        let free = json!({"metadata": {"name": "a"}, "spec": {}});
        for (fields, on_bound, on_free) in [
            ("spec.nodeName=n1", true, false),
            ("spec.nodeName=", false, true),
            ("spec.nodeName!=", true, false),
            ("spec.hostNetwork=false", false, true),
            ("spec.hostNetwork==true", true, false),
            ("metadata.name=a\\,b,spec.nodeName!=x", true, false),
        ] {
            let selector = Selector::new(&pod, "", fields).expect(fields);
            assert_eq!((selector.matches(&bound), selector.matches(&free)), (on_bound, on_free), "{fields}");
        }
    }

    #[test]
    fn a_label_selector_object_has_a_text() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["x", "y"]}, {"key": "d", "operator": "DoesNotExist"}]});
        assert_eq!(label_selector_text(&selector), "a=b,c in (x,y),!d");
        assert_eq!(label_selector_text(&json!({"app": "web"})), "app=web");
    }
}
