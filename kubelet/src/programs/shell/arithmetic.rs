//! Arithmetic expansion: signed 64-bit integers that wrap, as in C with `long`.

use super::expand::Quoting;
use super::source::{depth, guarded};
use super::variables::Value;
use super::{Interrupt, Shell};
use brush_parser::ast::{
    ArithmeticExpr as Expr, ArithmeticTarget as Target, BinaryOperator as Binary, UnaryAssignmentOperator,
    UnaryOperator,
};

/// Longest expression in bytes, and most operator characters in it: the parser descends for some of them.
const LENGTH: usize = 600;
const OPERATORS: usize = 80;
/// Brackets within one another in an expression.
const DEPTH: usize = 20;
/// Variables whose values are expressions that name variables.
const REFERENCES: usize = 8;

impl Shell {
    /// Expands and evaluates an expression.
    pub(super) async fn arithmetic(&mut self, expression: &str) -> Result<i64, Interrupt> {
        let plain = expression.trim();
        let text = if plain.contains(['$', '`', '\\', '"', '\'']) {
            let unquoted = plain.replace('"', "");
            self.expand_to_string(&unquoted, Quoting::Quoted).await?
        } else {
            plain.to_owned()
        };
        match self.evaluate(&text, 0) {
            Ok(value) => Ok(value),
            Err(message) => Err(self.mistake(&format!("arithmetic syntax error: {message}")).await),
        }
    }

    fn evaluate(&mut self, text: &str, references: usize) -> Result<i64, String> {
        if let Ok(number) = text.trim().parse::<i64>()
            && !text.trim_start_matches([' ', '-', '+']).starts_with('0')
        {
            return Ok(number);
        }
        let operators = text.chars().filter(|c| "=!~?*+-".contains(*c)).count();
        if text.len() > LENGTH || operators > OPERATORS || depth(text) > DEPTH {
            return Err(format!("more than {LENGTH} bytes or {OPERATORS} operators, or nested deeper than {DEPTH}"));
        }
        match guarded(|| brush_parser::arithmetic::parse(text)) {
            Some(Ok(expression)) => self.value_of(&expression, references),
            _ => Err(text.to_owned()),
        }
    }

    fn read(&mut self, target: &Target, references: usize) -> Result<i64, String> {
        let text = match target {
            Target::Variable(name) => self.lookup(name),
            Target::ArrayElement(name, index) => {
                let index = self.value_of(index, references)?;
                let items = self.elements(name);
                usize::try_from(index).ok().and_then(|index| items.get(index).cloned())
            }
        };
        match text {
            None => match target {
                Target::Variable(name) if self.settings.unset_is_error => Err(format!("{name}: parameter not set")),
                _ => Ok(0),
            },
            Some(text) if text.trim().is_empty() => Ok(0),
            Some(_) if references >= REFERENCES => Err("expression refers to itself".to_owned()),
            Some(text) => self.evaluate(&text, references + 1),
        }
    }

    fn write(&mut self, target: &Target, value: i64, references: usize) -> Result<i64, String> {
        match target {
            Target::Variable(name) => {
                if self.variables.get(name).is_some_and(|variable| variable.read_only) {
                    return Err(format!("{name}: is read only"));
                }
                self.set(name, Value::Scalar(value.to_string()));
            }
            Target::ArrayElement(name, index) => {
                let index = self.value_of(index, references)?;
                let mut items = self.elements(name);
                let index = usize::try_from(index).ok().filter(|index| *index <= 100_000).ok_or("bad subscript")?;
                if items.len() <= index {
                    items.resize(index + 1, String::new());
                }
                items[index] = value.to_string();
                self.set(name, Value::Array(items));
            }
        }
        Ok(value)
    }

    fn value_of(&mut self, expression: &Expr, references: usize) -> Result<i64, String> {
        match expression {
            Expr::Literal(value) => Ok(*value),
            Expr::Reference(target) => self.read(target, references),
            Expr::UnaryOp(operator, operand) => {
                let value = self.value_of(operand, references)?;
                Ok(match operator {
                    UnaryOperator::UnaryPlus => value,
                    UnaryOperator::UnaryMinus => value.wrapping_neg(),
                    UnaryOperator::BitwiseNot => !value,
                    UnaryOperator::LogicalNot => i64::from(value == 0),
                })
            }
            Expr::BinaryOp(Binary::LogicalAnd, left, right) => {
                Ok(i64::from(self.value_of(left, references)? != 0 && self.value_of(right, references)? != 0))
            }
            Expr::BinaryOp(Binary::LogicalOr, left, right) => {
                Ok(i64::from(self.value_of(left, references)? != 0 || self.value_of(right, references)? != 0))
            }
            Expr::BinaryOp(operator, left, right) => {
                let left = self.value_of(left, references)?;
                let right = self.value_of(right, references)?;
                apply(*operator, left, right)
            }
            Expr::Conditional(condition, yes, no) => {
                if self.value_of(condition, references)? != 0 {
                    self.value_of(yes, references)
                } else {
                    self.value_of(no, references)
                }
            }
            Expr::Assignment(target, value) => {
                let value = self.value_of(value, references)?;
                self.write(target, value, references)
            }
            Expr::BinaryAssignment(operator, target, value) => {
                let old = self.read(target, references)?;
                let value = self.value_of(value, references)?;
                let new = apply(*operator, old, value)?;
                self.write(target, new, references)
            }
            Expr::UnaryAssignment(operator, target) => {
                let old = self.read(target, references)?;
                let (new, result) = match operator {
                    UnaryAssignmentOperator::PrefixIncrement => (old.wrapping_add(1), old.wrapping_add(1)),
                    UnaryAssignmentOperator::PrefixDecrement => (old.wrapping_sub(1), old.wrapping_sub(1)),
                    UnaryAssignmentOperator::PostfixIncrement => (old.wrapping_add(1), old),
                    UnaryAssignmentOperator::PostfixDecrement => (old.wrapping_sub(1), old),
                };
                self.write(target, new, references)?;
                Ok(result)
            }
        }
    }
}

fn apply(operator: Binary, left: i64, right: i64) -> Result<i64, String> {
    Ok(match operator {
        Binary::Power => {
            let exponent = u32::try_from(right).map_err(|_| "exponent less than 0".to_owned())?;
            left.wrapping_pow(exponent)
        }
        Binary::Multiply => left.wrapping_mul(right),
        Binary::Divide | Binary::Modulo if right == 0 => return Err("divide by zero".to_owned()),
        Binary::Divide => left.wrapping_div(right),
        Binary::Modulo => left.wrapping_rem(right),
        Binary::Comma => right,
        Binary::Add => left.wrapping_add(right),
        Binary::Subtract => left.wrapping_sub(right),
        Binary::ShiftLeft => left.wrapping_shl(right as u32),
        Binary::ShiftRight => left.wrapping_shr(right as u32),
        Binary::LessThan => i64::from(left < right),
        Binary::LessThanOrEqualTo => i64::from(left <= right),
        Binary::GreaterThan => i64::from(left > right),
        Binary::GreaterThanOrEqualTo => i64::from(left >= right),
        Binary::Equals => i64::from(left == right),
        Binary::NotEquals => i64::from(left != right),
        Binary::BitwiseAnd => left & right,
        Binary::BitwiseXor => left ^ right,
        Binary::BitwiseOr => left | right,
        Binary::LogicalAnd => i64::from(left != 0 && right != 0),
        Binary::LogicalOr => i64::from(left != 0 || right != 0),
    })
}
