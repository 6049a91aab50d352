//! Parameter expansion (POSIX 2.6.2, and bash's additions): `$x`, `${x:-word}`, `${x%pattern}` and all the others.

use super::Shell;
use super::expand::{Expanded, Place, Quoting, ansi_c, quoted};
use super::fields::Fields;
use super::pattern::{self, Extent};
use super::variables::Value;
use brush_parser::word::{
    Parameter, ParameterExpr, ParameterTestType, ParameterTransformOp, SpecialParameter, SubstringMatchKind,
};

/// What a parameter stands for.
enum Found {
    Unset,
    One(String),
    /// `$@` and `$*`, or all of an array; `joined`: the form with `*`.
    Many {
        items: Vec<String>,
        joined: bool,
    },
}

impl Shell {
    async fn find(&mut self, parameter: &Parameter) -> Expanded<Found> {
        Ok(match parameter {
            Parameter::Positional(number) => match self.positional.get((*number as usize).wrapping_sub(1)) {
                Some(value) => Found::One(value.clone()),
                None => Found::Unset,
            },
            Parameter::Special(special) => match special {
                SpecialParameter::AllPositionalParameters { concatenate } => {
                    Found::Many { items: self.positional.clone(), joined: *concatenate }
                }
                SpecialParameter::PositionalParameterCount => Found::One(self.positional.len().to_string()),
                SpecialParameter::LastExitStatus => Found::One(self.status.to_string()),
                SpecialParameter::CurrentOptionFlags => Found::One(self.settings.letters(self.interactive)),
                SpecialParameter::ProcessId => Found::One(self.pid.to_string()),
                SpecialParameter::LastBackgroundProcessId => match self.jobs.last {
                    Some(pid) => Found::One(pid.to_string()),
                    None => Found::Unset,
                },
                SpecialParameter::ShellName => Found::One(self.name.clone()),
            },
            Parameter::Named(name) => match self.lookup(name) {
                Some(value) => Found::One(value),
                None => Found::Unset,
            },
            Parameter::NamedWithIndex { name, index } => {
                let items = self.elements(name);
                let index = self.arithmetic(index).await?;
                let index = if index < 0 { index + items.len() as i64 } else { index };
                match usize::try_from(index).ok().and_then(|index| items.get(index)) {
                    Some(item) => Found::One(item.clone()),
                    None => Found::Unset,
                }
            }
            Parameter::NamedWithAllIndices { name, concatenate } => {
                Found::Many { items: self.elements(name), joined: *concatenate }
            }
        })
    }

    /// The value, or that of the variable it names with `${!x}`.
    async fn find_maybe_indirect(&mut self, parameter: &Parameter, indirect: bool) -> Expanded<Found> {
        let found = self.find(parameter).await?;
        match found {
            Found::One(name) if indirect => match name.parse::<u32>() {
                Ok(number) if number > 0 => self.find(&Parameter::Positional(number)).await,
                _ => self.find(&Parameter::Named(name)).await,
            },
            found => Ok(found),
        }
    }

    /// The value, which must be set under `set -u`.
    async fn value(&mut self, parameter: &Parameter, indirect: bool) -> Expanded<Found> {
        match self.find_maybe_indirect(parameter, indirect).await? {
            Found::Unset if self.settings.unset_is_error => {
                let name = parameter_name(parameter);
                Err(self.mistake(&format!("{name}: parameter not set")).await)
            }
            found => Ok(found),
        }
    }

    fn emit(&mut self, found: Found, place: Place, fields: &mut Fields) {
        match found {
            Found::Unset => {}
            Found::One(text) => fields.expansion(&text, place.quoted),
            Found::Many { items, joined: true } if place.quoted => {
                let separator = match self.lookup("IFS") {
                    Some(separators) => separators.chars().next().map(String::from).unwrap_or_default(),
                    None => " ".to_owned(),
                };
                fields.expansion(&items.join(&separator), true);
            }
            Found::Many { items, .. } => {
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        fields.end_field();
                    }
                    if place.quoted {
                        fields.literal(item, true);
                    } else {
                        fields.expansion(item, false);
                    }
                }
            }
        }
    }

    /// The word of `${x:-word}`, expanded where the parameter stands.
    async fn inner_word(&mut self, word: &Option<String>, place: Place, fields: &mut Fields) -> Expanded<()> {
        let Some(word) = word else { return Ok(()) };
        let word = if place.quoted { word.clone() } else { self.tilde(word) };
        // Within double quotes a single quote is itself, and double quotes quote again.
        let literal = place.quoted && word.contains('\'');
        let pieces = self.parse_word(&if literal { word.replace('"', "") } else { word }, literal).await?;
        let place = Place { quoted: place.quoted, inner: !place.quoted && fields.splits() };
        self.pieces(&pieces, place, fields).await
    }

    async fn optional_pattern(&mut self, word: &Option<String>) -> Expanded<String> {
        match word {
            Some(word) => self.expand_to_pattern(word).await,
            None => Ok(String::new()),
        }
    }

    pub(super) async fn parameter(
        &mut self,
        expression: &ParameterExpr,
        place: Place,
        fields: &mut Fields,
    ) -> Expanded<()> {
        let changed = match expression {
            ParameterExpr::Parameter { parameter, indirect } => self.value(parameter, *indirect).await?,
            ParameterExpr::UseDefaultValues { parameter, indirect, test_type, default_value } => {
                let found = self.find_maybe_indirect(parameter, *indirect).await?;
                if lacks(&found, test_type) {
                    return self.inner_word(default_value, place, fields).await;
                }
                found
            }
            ParameterExpr::AssignDefaultValues { parameter, indirect, test_type, default_value } => {
                let found = self.find_maybe_indirect(parameter, *indirect).await?;
                if lacks(&found, test_type) {
                    let mut whole = Fields::whole();
                    self.inner_word(default_value, place, &mut whole).await?;
                    let value = whole.into_text();
                    match parameter {
                        Parameter::Named(name) => self.assign(name, Value::Scalar(value.clone())).await?,
                        other => {
                            let name = parameter_name(other);
                            return Err(self.mistake(&format!("{name}: cannot assign in this way")).await);
                        }
                    }
                    Found::One(value)
                } else {
                    found
                }
            }
            ParameterExpr::IndicateErrorIfNullOrUnset { parameter, indirect, test_type, error_message } => {
                let found = self.find_maybe_indirect(parameter, *indirect).await?;
                if lacks(&found, test_type) {
                    let mut whole = Fields::whole();
                    self.inner_word(error_message, place, &mut whole).await?;
                    let message = match whole.into_text() {
                        text if text.is_empty() => "parameter not set or null".to_owned(),
                        text => text,
                    };
                    let name = parameter_name(parameter);
                    return Err(self.mistake(&format!("{name}: {message}")).await);
                }
                found
            }
            ParameterExpr::UseAlternativeValue { parameter, indirect, test_type, alternative_value } => {
                let found = self.find_maybe_indirect(parameter, *indirect).await?;
                if lacks(&found, test_type) {
                    return Ok(());
                }
                return self.inner_word(alternative_value, place, fields).await;
            }
            ParameterExpr::ParameterLength { parameter, indirect } => {
                let length = match self.value(parameter, *indirect).await? {
                    Found::Unset => 0,
                    Found::One(text) => text.chars().count(),
                    Found::Many { items, .. } => items.len(),
                };
                Found::One(length.to_string())
            }
            ParameterExpr::RemoveSmallestSuffixPattern { parameter, indirect, pattern } => {
                let wanted = self.optional_pattern(pattern).await?;
                let found = self.value(parameter, *indirect).await?;
                found.map(|text| pattern::without_suffix(text, &wanted, Extent::Shortest))
            }
            ParameterExpr::RemoveLargestSuffixPattern { parameter, indirect, pattern } => {
                let wanted = self.optional_pattern(pattern).await?;
                let found = self.value(parameter, *indirect).await?;
                found.map(|text| pattern::without_suffix(text, &wanted, Extent::Longest))
            }
            ParameterExpr::RemoveSmallestPrefixPattern { parameter, indirect, pattern } => {
                let wanted = self.optional_pattern(pattern).await?;
                let found = self.value(parameter, *indirect).await?;
                found.map(|text| pattern::without_prefix(text, &wanted, Extent::Shortest))
            }
            ParameterExpr::RemoveLargestPrefixPattern { parameter, indirect, pattern } => {
                let wanted = self.optional_pattern(pattern).await?;
                let found = self.value(parameter, *indirect).await?;
                found.map(|text| pattern::without_prefix(text, &wanted, Extent::Longest))
            }
            ParameterExpr::Substring { parameter, indirect, offset, length } => {
                let found = self.value(parameter, *indirect).await?;
                let offset = self.arithmetic(&offset.value).await?;
                let length = match length {
                    Some(length) => Some(self.arithmetic(&length.value).await?),
                    None => None,
                };
                match found {
                    Found::Many { mut items, joined } => {
                        if matches!(parameter, Parameter::Special(_)) {
                            items.insert(0, self.name.clone());
                        }
                        Found::Many { items: part(items, offset, length), joined }
                    }
                    found => found.map(|text| part(text.chars().collect(), offset, length).into_iter().collect()),
                }
            }
            ParameterExpr::ReplaceSubstring { parameter, indirect, pattern, replacement, match_kind } => {
                let wanted = self.expand_to_pattern(pattern).await?;
                let replacement = match replacement {
                    Some(word) => self.expand_to_string(word, Quoting::Unquoted).await?,
                    None => String::new(),
                };
                let found = self.value(parameter, *indirect).await?;
                found.map(|text| match match_kind {
                    SubstringMatchKind::FirstOccurrence => pattern::replace(text, &wanted, &replacement, false),
                    SubstringMatchKind::Anywhere => pattern::replace(text, &wanted, &replacement, true),
                    SubstringMatchKind::Prefix => match pattern::without_prefix(text, &wanted, Extent::Longest) {
                        rest if rest.len() < text.len() => format!("{replacement}{rest}"),
                        rest => rest,
                    },
                    SubstringMatchKind::Suffix => match pattern::without_suffix(text, &wanted, Extent::Longest) {
                        rest if rest.len() < text.len() => format!("{rest}{replacement}"),
                        rest => rest,
                    },
                })
            }
            ParameterExpr::UppercasePattern { parameter, indirect, .. } => {
                self.value(parameter, *indirect).await?.map(|text| text.to_uppercase())
            }
            ParameterExpr::LowercasePattern { parameter, indirect, .. } => {
                self.value(parameter, *indirect).await?.map(|text| text.to_lowercase())
            }
            ParameterExpr::UppercaseFirstChar { parameter, indirect, .. } => {
                self.value(parameter, *indirect).await?.map(|text| first_char(text, |c| c.to_uppercase().collect()))
            }
            ParameterExpr::LowercaseFirstChar { parameter, indirect, .. } => {
                self.value(parameter, *indirect).await?.map(|text| first_char(text, |c| c.to_lowercase().collect()))
            }
            ParameterExpr::Transform { parameter, indirect, op } => {
                let found = self.value(parameter, *indirect).await?;
                found.map(|text| match op {
                    ParameterTransformOp::ToUpperCase => text.to_uppercase(),
                    ParameterTransformOp::ToLowerCase => text.to_lowercase(),
                    ParameterTransformOp::CapitalizeInitial => first_char(text, |c| c.to_uppercase().collect()),
                    ParameterTransformOp::Quoted => quoted(text),
                    ParameterTransformOp::ExpandEscapeSequences => ansi_c(text),
                    _ => text.to_owned(),
                })
            }
            ParameterExpr::VariableNames { prefix, concatenate } => {
                let mut items: Vec<String> =
                    self.variables.keys().filter(|name| name.starts_with(prefix.as_str())).cloned().collect();
                items.sort();
                Found::Many { items, joined: *concatenate }
            }
            ParameterExpr::MemberKeys { variable_name, concatenate } => {
                let items = (0..self.elements(variable_name).len()).map(|index| index.to_string()).collect();
                Found::Many { items, joined: *concatenate }
            }
        };
        self.emit(changed, place, fields);
        Ok(())
    }
}

impl Found {
    fn map(self, change: impl Fn(&str) -> String) -> Found {
        match self {
            Found::Unset => Found::One(change("")),
            Found::One(text) => Found::One(change(&text)),
            Found::Many { items, joined } => {
                Found::Many { items: items.iter().map(|item| change(item)).collect(), joined }
            }
        }
    }
}

fn lacks(found: &Found, test: &ParameterTestType) -> bool {
    match (found, test) {
        (Found::Unset, _) => true,
        (Found::One(text), ParameterTestType::UnsetOrNull) => text.is_empty(),
        (Found::One(_), ParameterTestType::Unset) => false,
        (Found::Many { items, .. }, _) => items.is_empty(),
    }
}

fn parameter_name(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Positional(number) => number.to_string(),
        Parameter::Special(special) => special.to_string(),
        Parameter::Named(name)
        | Parameter::NamedWithIndex { name, .. }
        | Parameter::NamedWithAllIndices { name, .. } => name.clone(),
    }
}

/// `${x:offset:length}`: negative numbers count from the end.
fn part<T>(items: Vec<T>, offset: i64, length: Option<i64>) -> Vec<T> {
    let all = items.len() as i64;
    let start = if offset < 0 { all.saturating_add(offset) } else { offset.min(all) };
    if start < 0 {
        return Vec::new();
    }
    let end = match length {
        None => all,
        Some(length) if length < 0 => all.saturating_add(length),
        Some(length) => start.saturating_add(length).min(all),
    };
    let take = end.saturating_sub(start).max(0);
    items.into_iter().skip(start as usize).take(take as usize).collect()
}

fn first_char(text: &str, change: impl Fn(char) -> String) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => change(first) + chars.as_str(),
        None => String::new(),
    }
}
