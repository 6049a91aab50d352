//! Cells that many kinds share, and times in kubectl's short form.

use super::json::{object, text};
use crate::registry::ResourceKind;
use jiff::Timestamp;
use serde_json::{Value, json};

/// What an empty cell says.
pub(crate) const NONE: &str = "<none>";
/// What a cell says whose value cannot be told.
pub(crate) const UNKNOWN: &str = "<unknown>";

/// The row of kinds without columns of their own: name and time of creation, which kubectl turns into an age or leaves as it is.
pub fn name_and_creation(_: &ResourceKind, object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), object.pointer("/metadata/creationTimestamp").cloned().unwrap_or(Value::Null)]
}

/// The row of kinds that show name and age.
pub(crate) fn name_and_age(_: &ResourceKind, object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

/// The cell `Name`.
pub(crate) fn name(object: &Value) -> Value {
    text(object, "/metadata/name").into()
}

/// The cell `Age`.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    since(text(object, "/metadata/creationTimestamp"), now).into()
}

/// How long ago `time` was; `<unknown>` if it is no time.
pub(crate) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human_duration(now.as_second() - time.as_second()),
        Err(_) => UNKNOWN.to_owned(),
    }
}

/// A span of seconds as kubectl writes it: two units while they matter, one when they do not.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 8 * 365 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// A cell of text, `<none>` if it is empty.
pub(crate) fn or_none(text: &str) -> Value {
    if text.is_empty() { NONE.into() } else { text.into() }
}

/// The texts joined by commas, `<none>` if there are none.
pub(crate) fn joined<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
    let texts: Vec<&str> = texts.into_iter().collect();
    or_none(&texts.join(","))
}

/// Labels as `a=b,c=d`, sorted by key; `<none>` if there are none.
pub(crate) fn label_text(value: &Value, pointer: &str) -> String {
    let mut labels: Vec<(&str, &str)> = object(value, pointer)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
        .collect();
    if labels.is_empty() {
        return NONE.to_owned();
    }
    labels.sort_unstable();
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}

/// A `LabelSelector` as kubectl writes it; `<none>` for one without conditions.
pub(crate) fn selector_text(value: &Value, pointer: &str) -> String {
    let selector = super::json::present(value, pointer).unwrap_or(&Value::Null);
    let mut parts: Vec<(String, String)> = object(selector, "/matchLabels")
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in super::json::list(selector, "/matchExpressions") {
        let key = text(expression, "/key");
        let mut values = super::json::texts(expression, "/values");
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), part));
    }
    if parts.is_empty() {
        return NONE.to_owned();
    }
    parts.sort();
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    parts.join(",")
}

/// Names and images of the containers of a pod template, each joined by commas.
pub(crate) fn containers_and_images(value: &Value, pod_spec: &str) -> [Value; 2] {
    let containers = super::json::list(value, &format!("{pod_spec}/containers"));
    ["/name", "/image"].map(|field| {
        let texts: Vec<&str> = containers.iter().map(|container| text(container, field)).collect();
        texts.join(",").into()
    })
}

/// The first three of many, and how many more there are; `otherwise` if there are none.
pub(crate) fn three_of_many(texts: &[String], otherwise: &str) -> Value {
    const SHOWN: usize = 3;
    match texts.len() {
        0 => otherwise.into(),
        1..=SHOWN => texts.join(",").into(),
        count => format!("{} + {} more...", texts[..SHOWN].join(","), count - SHOWN).into(),
    }
}

/// A number, 0 if it is missing.
pub(crate) fn number(value: &Value, pointer: &str) -> Value {
    json!(super::json::int(value, pointer).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_two_units_while_they_matter() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (147, "2m27s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (45 * 86_400, "45d"),
            (800 * 86_400, "2y70d"),
            (730 * 86_400, "2y"),
            (9 * 365 * 86_400, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds} s");
        }
    }

    #[test]
    fn a_selector_is_written_as_kubectl_does() {
        let selector = json!({"s": {"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]}});
        assert_eq!(selector_text(&selector, "/s"), "a in (x,y),b=1,!c");
        assert_eq!(selector_text(&json!({"s": {}}), "/s"), "<none>");
        assert_eq!(selector_text(&json!({}), "/s"), "<none>");
    }
}
