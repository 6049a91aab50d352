//! awk's values and operators.

use super::ast::Binary;
use super::lexer::number_length;
use super::run::{MEMORY, Ran, Stop};

/// A number, a text, or a text from outside that may look like a number.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Number(f64),
    Text(String),
    Input(String),
    Unset,
}

impl Value {
    pub(super) fn number(&self) -> f64 {
        match self {
            Value::Number(number) => *number,
            Value::Text(text) | Value::Input(text) => leading_number(text),
            Value::Unset => 0.0,
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Value::Number(number) => shown(*number),
            Value::Text(text) | Value::Input(text) => text.clone(),
            Value::Unset => String::new(),
        }
    }

    pub(super) fn holds(&self) -> bool {
        match self {
            Value::Number(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Input(text) if self.looks_numeric() => leading_number(text) != 0.0,
            Value::Input(text) => !text.is_empty(),
            Value::Unset => false,
        }
    }

    pub(super) fn looks_numeric(&self) -> bool {
        match self {
            Value::Number(_) | Value::Unset => true,
            Value::Text(_) => false,
            Value::Input(text) => {
                let trimmed = text.trim();
                let unsigned = trimmed.trim_start_matches(['-', '+']);
                !unsigned.is_empty()
                    && trimmed.len() - unsigned.len() <= 1
                    && number_length(unsigned) == unsigned.len()
                    && unsigned.parse::<f64>().is_ok()
            }
        }
    }
}

fn leading_number(text: &str) -> f64 {
    let trimmed = text.trim_start();
    let (sign, digits) = match trimmed.strip_prefix('-') {
        Some(digits) => (-1.0, digits),
        None => (1.0, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    sign * digits[..number_length(digits)].parse::<f64>().unwrap_or(0.0)
}

/// A number as `%.6g` shows it; whole ones as they are.
fn shown(number: f64) -> String {
    if number == number.trunc() && number.abs() < 1e16 {
        return format!("{number:.0}").replace("-0", if number == 0.0 { "0" } else { "-0" });
    }
    let magnitude = number.abs().log10().floor();
    if (-4.0..6.0).contains(&magnitude) {
        let text = format!("{number:.*}", (5.0 - magnitude) as usize);
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let text = format!("{number:.5e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let mantissa =
                if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

pub(super) fn apply(operator: Binary, left: &Value, right: &Value) -> Ran<Value> {
    let truth = |holds: bool| Value::Number(f64::from(u8::from(holds)));
    let numeric = left.looks_numeric() && right.looks_numeric();
    let order = || match numeric {
        true => left.number().partial_cmp(&right.number()),
        false => Some(left.text().cmp(&right.text())),
    };
    Ok(match operator {
        Binary::Add => Value::Number(left.number() + right.number()),
        Binary::Subtract => Value::Number(left.number() - right.number()),
        Binary::Multiply => Value::Number(left.number() * right.number()),
        Binary::Divide | Binary::Modulo if right.number() == 0.0 => {
            return Err(Stop::Mistake("division by zero".to_owned()));
        }
        Binary::Divide => Value::Number(left.number() / right.number()),
        Binary::Modulo => Value::Number(left.number() % right.number()),
        Binary::Power => Value::Number(left.number().powf(right.number())),
        Binary::Concatenate => {
            let text = left.text() + &right.text();
            if text.len() > MEMORY / 4 {
                return Err(Stop::Mistake("out of memory".to_owned()));
            }
            Value::Text(text)
        }
        Binary::Less => truth(order().is_some_and(|order| order.is_lt())),
        Binary::LessOrEqual => truth(order().is_some_and(|order| order.is_le())),
        Binary::Equal => truth(order().is_some_and(|order| order.is_eq())),
        Binary::NotEqual => truth(!order().is_some_and(|order| order.is_eq())),
        Binary::Greater => truth(order().is_some_and(|order| order.is_gt())),
        Binary::GreaterOrEqual => truth(order().is_some_and(|order| order.is_ge())),
    })
}
