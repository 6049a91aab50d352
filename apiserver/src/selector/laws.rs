//! Selectors against a naive reader and judge, which share nothing with the real ones: the label grammar by a state machine of
//! tokens, fields by splitting characters.

use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// A condition as a sentence: what has to hold of the label `key`.
#[derive(Clone, Debug)]
enum Naive {
    OneOf(String, Vec<String>),
    NoneOf(String, Vec<String>),
    There(String),
    NotThere(String),
    Above(String, i64),
    Below(String, i64),
}

/// A word, or one of the signs.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Sign(&'static str),
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let two: String = chars[at..(at + 2).min(chars.len())].iter().collect();
        let sign = ["==", "!=", "=", "!", "(", ")", ",", "<", ">"].into_iter().find(|sign| two.starts_with(sign));
        if let Some(sign) = sign {
            out.push(Token::Sign(sign));
            at += sign.len();
        } else if chars[at].is_whitespace() {
            at += 1;
        } else {
            let mut word = String::new();
            while at < chars.len() && !chars[at].is_whitespace() && !"=!(),<>".contains(chars[at]) {
                word.push(chars[at]);
                at += 1;
            }
            out.push(Token::Word(word));
        }
    }
    Some(out)
}

fn name_part(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inner) && outer(text.chars().next()) && outer(text.chars().next_back())
}

fn is_key(text: &str) -> bool {
    let subdomain = |text: &str| {
        text.len() <= 253
            && text.split('.').all(|label| {
                let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                !label.is_empty()
                    && label.chars().all(|c| lower(c) || c == '-')
                    && label.starts_with(lower)
                    && label.ends_with(lower)
            })
    };
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => name_part(name),
        [prefix, name] => subdomain(prefix) && name_part(name),
        _ => false,
    }
}

fn is_value(text: &str) -> bool {
    text.is_empty() || name_part(text)
}

/// The conditions of a label selector; `None` if it is none.
fn read(text: &str) -> Option<Vec<Naive>> {
    let tokens = tokens(text)?;
    let (mut out, mut at) = (Vec::new(), 0);
    let word = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) => Some(word.clone()),
        _ => None,
    };
    let sign = |at: usize| match tokens.get(at) {
        Some(Token::Sign(sign)) => Some(*sign),
        _ => None,
    };
    while at < tokens.len() {
        if sign(at) == Some("!") {
            out.push(Naive::NotThere(word(at + 1)?));
            at += 2;
        } else {
            let key = word(at)?;
            at += 1;
            match (sign(at), word(at)) {
                (None, None) | (Some(","), _) => out.push(Naive::There(key)),
                (Some(one @ ("=" | "==" | "!=")), _) => {
                    // A value may be left out: the empty one.
                    let value = word(at + 1);
                    at += if value.is_some() { 2 } else { 1 };
                    let values = vec![value.unwrap_or_default()];
                    out.push(if one == "!=" { Naive::NoneOf(key, values) } else { Naive::OneOf(key, values) });
                }
                (Some(one @ ("<" | ">")), _) => {
                    let number = word(at + 1)?.parse().ok()?;
                    at += 2;
                    out.push(if one == "<" { Naive::Below(key, number) } else { Naive::Above(key, number) });
                }
                (_, Some(keyword)) if keyword == "in" || keyword == "notin" => {
                    if sign(at + 1) != Some("(") {
                        return None;
                    }
                    at += 2;
                    let mut values = vec![String::new()];
                    loop {
                        if let Some(value) = word(at) {
                            let last = values.last_mut()?;
                            if !last.is_empty() {
                                return None;
                            }
                            *last = value;
                        } else if sign(at) == Some(",") {
                            values.push(String::new());
                        } else if sign(at) == Some(")") {
                            at += 1;
                            break;
                        } else {
                            return None;
                        }
                        at += 1;
                    }
                    out.push(if keyword == "in" { Naive::OneOf(key, values) } else { Naive::NoneOf(key, values) });
                }
                _ => return None,
            }
        }
        if at < tokens.len() {
            if sign(at) != Some(",") || at + 1 == tokens.len() {
                return None;
            }
            at += 1;
        }
    }
    let sound = out.iter().all(|condition| match condition {
        Naive::OneOf(key, values) | Naive::NoneOf(key, values) => is_key(key) && values.iter().all(|v| is_value(v)),
        Naive::There(key) | Naive::NotThere(key) | Naive::Above(key, _) | Naive::Below(key, _) => is_key(key),
    });
    sound.then_some(out)
}

fn holds(condition: &Naive, labels: &Labels) -> bool {
    let number = |key: &String| labels.get(key).and_then(|value| value.parse::<i64>().ok());
    match condition {
        Naive::OneOf(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
        Naive::NoneOf(key, values) => !labels.get(key).is_some_and(|value| values.contains(value)),
        Naive::There(key) => labels.contains_key(key),
        Naive::NotThere(key) => !labels.contains_key(key),
        Naive::Above(key, bound) => number(key).is_some_and(|number| number > *bound),
        Naive::Below(key, bound) => number(key).is_some_and(|number| number < *bound),
    }
}

/// A field selector by characters: terms, each a field, whether it is to be equal, and a value.
fn read_fields(text: &str) -> Option<Vec<(String, bool, String)>> {
    let mut terms = vec![String::new()];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let last = terms.last_mut()?;
        match c {
            '\\' => {
                last.push(c);
                last.extend(chars.next());
            }
            ',' => terms.push(String::new()),
            c => last.push(c),
        }
    }
    let mut out = Vec::new();
    for term in terms.iter().filter(|term| !term.is_empty()) {
        let field: String = term.chars().take_while(|c| !"=!".contains(*c)).collect();
        let rest = &term[field.len()..];
        let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
            (false, value)
        } else if let Some(value) = rest.strip_prefix("==") {
            (true, value)
        } else {
            (true, rest.strip_prefix('=')?)
        };
        if field.is_empty() {
            return None;
        }
        let mut plain = String::new();
        let mut chars = value.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => plain.push(chars.next().filter(|c| "\\,=".contains(*c))?),
                '=' => return None,
                c => plain.push(c),
            }
        }
        out.push((field, equal, plain));
    }
    Some(out)
}

/// Mostly selectors, now and then broken ones.
fn selector_text() -> impl Strategy<Value = String> {
    let key = prop_oneof![8 => "[ab]", 1 => "(ex\\.co/)?[ab]", 1 => "[-a_.B/]{0,4}"];
    let value = prop_oneof![8 => "[xy]?", 2 => "[0-9]", 1 => "[-x_.Y]{0,4}"];
    let set = proptest::collection::vec(value.clone(), 0..3).prop_map(|values| values.join(", "));
    let term = prop_oneof![
        (key.clone(), prop::sample::select(vec!["=", "==", "!=", " = ", ">", "<", " "]), value)
            .prop_map(|(key, sign, value)| format!("{key}{sign}{value}")),
        (key.clone(), prop::sample::select(vec![" in (", " notin (", "in(", " in "]), set)
            .prop_map(|(key, sign, set)| format!("{key}{sign}{set})")),
        key.clone().prop_map(|key| format!("!{key}")),
        key,
    ];
    let whole = proptest::collection::vec(term, 0..3).prop_map(|terms| terms.join(","));
    prop_oneof![9 => whole, 1 => "[ab=!(), <>x0-9]{0,8}"]
}

fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map("[ab]|ex\\.co/a", "[xy0-9]?", 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn label_selectors_are_read_and_judged_as_a_naive_reader_does(text in selector_text(), labels in labels()) {
        let object = json!({"metadata": {"labels": labels}});
        let expected = read(&text).map(|conditions| conditions.iter().all(|condition| holds(condition, &labels)));
        prop_assert_eq!(Selector::labels(&text).ok().map(|selector| selector.matches(&object)), expected, "{}", text);
    }

    #[test]
    fn field_selectors_are_read_and_judged_as_a_naive_reader_does(
        text in prop_oneof![
            3 => "((spec\\.a|metadata\\.name)(=|==|!=)[xy]?(\\\\[,=\\\\])?,?){0,3}",
            1 => "[a.=!,\\\\xy]{0,8}",
        ],
        name in "[xy]?", a in proptest::option::of("[xy,=\\\\]{0,2}"),
    ) {
        let kind = ResourceKind::new("", "v1", "Pod", "pods").with_selectable_fields(&["spec.a", "a"]);
        let mut object = json!({"metadata": {"name": name}, "spec": {}});
        if let Some(a) = &a {
            object["spec"]["a"] = a.as_str().into();
        }
        let known = |field: &str| matches!(field, "metadata.name" | "metadata.namespace" | "spec.a" | "a");
        let expected = read_fields(&text).filter(|terms| terms.iter().all(|(field, ..)| known(field))).map(|terms| {
            terms.iter().all(|(field, equal, value)| {
                let found = match field.as_str() {
                    "metadata.name" => name.as_str(),
                    "spec.a" => a.as_deref().unwrap_or_default(),
                    _ => "",
                };
                (found == value) == *equal
            })
        });
        prop_assert_eq!(Selector::new(&kind, "", &text).ok().map(|selector| selector.matches(&object)), expected, "{}", text);
    }

    #[test]
    fn a_selector_object_means_what_its_text_means(labels in labels(), wanted in labels(), values in proptest::collection::vec("[xy]", 1..3)) {
        let object = json!({"metadata": {"labels": labels}});
        for (operator, expected) in [
            ("In", labels.get("a").is_some_and(|value| values.contains(value))),
            ("NotIn", !labels.get("a").is_some_and(|value| values.contains(value))),
            ("Exists", labels.contains_key("a")),
            ("DoesNotExist", !labels.contains_key("a")),
        ] {
            let values = if operator.contains("In") { json!(values) } else { json!([]) };
            let expression = json!({"key": "a", "operator": operator, "values": values});
            let selector = json!({"matchLabels": wanted, "matchExpressions": [expression]});
            let expected = expected && wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
            prop_assert_eq!(Selector::matches_label_selector(&selector, &object), expected, "{}", selector);
        }
    }
}
