//! awk's functions.

use super::ast::Expression;
use super::run::{Machine, Ran, Stop};
use super::value::Value;
use regex::Captures;

impl Machine {
    pub(super) fn call(&mut self, name: &str, arguments: &[Expression]) -> Ran<Value> {
        let first = |machine: &mut Self| match arguments.first() {
            Some(argument) => machine.value(argument),
            None => Ok(Value::Input(machine.record.clone())),
        };
        Ok(match name {
            "length" => match arguments.first() {
                Some(Expression::Variable(array)) if self.arrays.contains_key(array) => {
                    Value::Number(self.arrays[array].len() as f64)
                }
                _ => Value::Number(first(self)?.text().chars().count() as f64),
            },
            "tolower" => Value::Text(first(self)?.text().to_lowercase()),
            "toupper" => Value::Text(first(self)?.text().to_uppercase()),
            "int" => Value::Number(first(self)?.number().trunc()),
            "sqrt" => Value::Number(first(self)?.number().sqrt()),
            "exp" => Value::Number(first(self)?.number().exp()),
            "log" => Value::Number(first(self)?.number().ln()),
            "sin" => Value::Number(first(self)?.number().sin()),
            "cos" => Value::Number(first(self)?.number().cos()),
            "systime" => Value::Number(crate::programs::clock::now().as_second() as f64),
            "sprintf" => Value::Text(String::from_utf8_lossy(&self.formatted(arguments)?).into_owned()),
            "index" if arguments.len() == 2 => {
                let (text, wanted) = (self.value(&arguments[0])?.text(), self.value(&arguments[1])?.text());
                Value::Number(text.find(&wanted).map_or(0, |at| text[..at].chars().count() + 1) as f64)
            }
            "substr" if arguments.len() >= 2 => {
                let text = self.value(&arguments[0])?.text();
                let start = self.value(&arguments[1])?.number().round();
                let length = match arguments.get(2) {
                    Some(length) => self.value(length)?.number().round(),
                    None => f64::INFINITY,
                };
                let inside = |at: usize| {
                    let position = at as f64 + 1.0;
                    position >= start && position < start + length
                };
                Value::Text(text.chars().enumerate().filter(|(at, _)| inside(*at)).map(|(_, c)| c).collect())
            }
            "split" if arguments.len() >= 2 => {
                let text = self.value(&arguments[0])?.text();
                let Expression::Variable(array) = &arguments[1] else {
                    return Err(Stop::Mistake("split: no array".to_owned()));
                };
                let separator = match arguments.get(2) {
                    Some(Expression::Matches(expression)) => Some(expression.as_str().to_owned()),
                    Some(separator) => Some(self.value(separator)?.text()),
                    None => None,
                };
                let parts = self.split(&text, separator);
                let count = parts.len();
                self.held += text.len();
                let elements =
                    parts.into_iter().enumerate().map(|(at, part)| ((at + 1).to_string(), Value::Input(part)));
                self.arrays.insert(array.clone(), elements.collect());
                Value::Number(count as f64)
            }
            "match" if arguments.len() >= 2 => {
                let text = self.value(&arguments[0])?.text();
                let expression = self.pattern(&arguments[1])?;
                let (start, length) = match expression.find(&text) {
                    Some(found) => {
                        (text[..found.start()].chars().count() as f64 + 1.0, found.as_str().chars().count() as f64)
                    }
                    None => (0.0, -1.0),
                };
                self.variables.insert("RSTART".to_owned(), Value::Number(start));
                self.variables.insert("RLENGTH".to_owned(), Value::Number(length));
                Value::Number(start)
            }
            "sub" | "gsub" if arguments.len() >= 2 => {
                let expression = self.pattern(&arguments[0])?;
                let replacement = self.value(&arguments[1])?.text();
                let whole = Expression::Field(Box::new(Expression::Number(0.0)));
                let target = arguments.get(2).unwrap_or(&whole);
                let text = self.value(target)?.text();
                let limit = usize::from(name == "sub");
                let mut count = 0;
                let changed = expression
                    .replacen(&text, limit, |captures: &Captures<'_>| {
                        count += 1;
                        replacement.replace("\\&", "\u{0}").replace('&', &captures[0]).replace('\u{0}', "&")
                    })
                    .into_owned();
                if count > 0 {
                    self.assign(target, Value::Text(changed))?;
                }
                Value::Number(f64::from(count))
            }
            other => return Err(Stop::Mistake(format!("call to undefined function {other}"))),
        })
    }
}
