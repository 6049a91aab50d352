//! Builtins over variables and settings: `export`, `readonly`, `local`, `unset`, `set`.

use super::super::expand::quoted;
use super::super::variables::{Value, Variable, is_name};
use super::super::{Interrupt, Shell, Step};
use crate::program::ExitStatus;

impl Shell {
    pub(super) async fn assign_operand(&mut self, operand: &str) -> Result<Option<String>, Interrupt> {
        let (name, value) = match operand.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (operand, None),
        };
        if !is_name(name) {
            self.complain(&format!("{operand}: bad variable name")).await;
            return Ok(None);
        }
        if let Some(value) = value {
            self.assign(name, Value::Scalar(value.to_owned())).await?;
        }
        Ok(Some(name.to_owned()))
    }

    pub(super) async fn export(&mut self, operands: &[String]) -> Step {
        let removing = operands.first().is_some_and(|operand| operand == "-n");
        let names: Vec<&String> = operands.iter().filter(|operand| !operand.starts_with('-')).collect();
        if names.is_empty() {
            let lines: String =
                self.environment().iter().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
            return self.print(&lines).await;
        }
        let mut status = 0;
        for operand in names {
            match self.assign_operand(operand).await? {
                Some(name) => {
                    let variable = self.variables.entry(name).or_insert_with(|| Variable {
                        value: Value::Unset,
                        exported: true,
                        read_only: false,
                    });
                    variable.exported = !removing;
                }
                None => status = 1,
            }
        }
        Ok(status)
    }

    pub(super) async fn readonly(&mut self, operands: &[String]) -> Step {
        for operand in operands.iter().filter(|operand| !operand.starts_with('-')) {
            if let Some(name) = self.assign_operand(operand).await? {
                let variable = self.variables.entry(name).or_insert_with(|| Variable {
                    value: Value::Unset,
                    exported: false,
                    read_only: true,
                });
                variable.read_only = true;
            }
        }
        Ok(0)
    }

    pub(super) async fn local(&mut self, operands: &[String]) -> Step {
        let global = operands.iter().any(|operand| operand.starts_with('-') && operand.contains('g'));
        let exported = operands.iter().any(|operand| operand.starts_with('-') && operand.contains('x'));
        for operand in operands.iter().filter(|operand| !operand.starts_with('-')) {
            let name = operand.split('=').next().unwrap_or_default().to_owned();
            if !global {
                self.hide(&name);
            }
            if !operand.contains('=') && !self.hidden.is_empty() && !global {
                let kept = self.variables.get(&name).is_some_and(|variable| matches!(variable.value, Value::Array(_)));
                if !kept {
                    self.set(&name, Value::Unset);
                }
            }
            self.assign_operand(operand).await?;
            if exported && let Some(variable) = self.variables.get_mut(&name) {
                variable.exported = true;
            }
        }
        Ok(0)
    }

    pub(super) fn unset(&mut self, operands: &[String]) -> ExitStatus {
        let mut functions = false;
        for operand in operands {
            match operand.as_str() {
                "-f" => functions = true,
                "-v" => functions = false,
                name if functions => {
                    self.functions.remove(name);
                }
                name => {
                    if self.variables.get(name).is_some_and(|variable| variable.read_only) {
                        return 1;
                    }
                    if self.variables.remove(name).is_none() {
                        self.functions.remove(name);
                    }
                }
            }
        }
        0
    }

    pub(super) async fn set_builtin(&mut self, operands: &[String]) -> Step {
        if operands.is_empty() {
            let mut lines: Vec<String> = self
                .variables
                .iter()
                .filter_map(|(name, variable)| Some(format!("{name}={}\n", quoted(variable.scalar()?))))
                .collect();
            lines.sort();
            return self.print(&lines.concat()).await;
        }
        let mut rest = operands.iter();
        while let Some(operand) = rest.next() {
            let on = operand.starts_with('-');
            match operand.as_str() {
                "--" => {
                    self.positional = rest.cloned().collect();
                    return Ok(0);
                }
                "-" => {}
                "-o" | "+o" => match rest.next() {
                    Some(name) if self.settings.set_named(name, on) => {}
                    Some(name) => {
                        return Err(self.mistake(&format!("set: illegal option {operand} {name}")).await);
                    }
                    None => {}
                },
                cluster if cluster.len() > 1 && cluster.starts_with(['-', '+']) => {
                    for letter in cluster[1..].chars() {
                        if letter == 'o' {
                            let name = rest.next().cloned().unwrap_or_default();
                            if !self.settings.set_named(&name, on) {
                                return Err(self.mistake(&format!("set: illegal option -o {name}")).await);
                            }
                        } else if !self.settings.set(letter, on) {
                            return Err(self.mistake(&format!("set: illegal option -{letter}")).await);
                        }
                    }
                }
                _ => {
                    self.positional = std::iter::once(operand).chain(rest).cloned().collect();
                    return Ok(0);
                }
            }
        }
        Ok(0)
    }
}
