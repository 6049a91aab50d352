//! Variables and special parameters of the shell.

use super::{Interrupt, Shell};
use tokio::time::Instant;

/// A variable's value: a string, or a bash array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Unset,
    Scalar(String),
    Array(Vec<String>),
}

/// A variable with its attributes.
#[derive(Clone, Debug)]
pub(super) struct Variable {
    pub(super) value: Value,
    pub(super) exported: bool,
    pub(super) read_only: bool,
}

/// Largest index of an array.
const ARRAY_LIMIT: usize = 100_000;

impl Variable {
    pub(super) fn exported(value: String) -> Self {
        Variable { value: Value::Scalar(value), exported: true, read_only: false }
    }

    fn plain(value: Value) -> Self {
        Variable { value, exported: false, read_only: false }
    }

    /// The value as one string: an array's first element.
    pub(super) fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Unset => None,
            Value::Scalar(text) => Some(text),
            Value::Array(items) => items.first().map(String::as_str),
        }
    }
}

impl Shell {
    /// A named variable's value.
    pub(super) fn lookup(&mut self, name: &str) -> Option<String> {
        match name {
            "RANDOM" => {
                self.random = self.random.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                Some(((self.random >> 16) & 0x7fff).to_string())
            }
            "SECONDS" => Some(Instant::now().duration_since(self.jobs.started).as_secs().to_string()),
            "HOSTNAME" if !self.variables.contains_key("HOSTNAME") => Some(self.world.hostname.clone()),
            "PPID" | "UID" | "EUID" => Some("0".to_owned()),
            _ => self.variables.get(name).and_then(|variable| variable.scalar().map(str::to_owned)),
        }
    }

    /// The elements of an array, or the one value of a scalar.
    pub(super) fn elements(&self, name: &str) -> Vec<String> {
        match self.variables.get(name).map(|variable| &variable.value) {
            Some(Value::Array(items)) => items.clone(),
            Some(Value::Scalar(text)) => vec![text.clone()],
            _ => Vec::new(),
        }
    }

    /// Sets a variable, keeping its attributes.
    pub(super) async fn assign(&mut self, name: &str, value: Value) -> Result<(), Interrupt> {
        if self.variables.get(name).is_some_and(|variable| variable.read_only) {
            return Err(self.mistake(&format!("{name}: is read only")).await);
        }
        self.set(name, value);
        Ok(())
    }

    /// Sets an element of an array.
    pub(super) async fn assign_element(
        &mut self,
        name: &str,
        index: i64,
        value: String,
        append: bool,
    ) -> Result<(), Interrupt> {
        let mut items = self.elements(name);
        let index = if index < 0 { index + items.len() as i64 } else { index };
        let Ok(index) = usize::try_from(index) else {
            return Err(self.mistake(&format!("{name}: bad array subscript")).await);
        };
        if index > ARRAY_LIMIT {
            return Err(self.mistake(&format!("{name}: array subscript {index} is above {ARRAY_LIMIT}")).await);
        }
        if items.len() <= index {
            items.resize(index + 1, String::new());
        }
        if append {
            items[index].push_str(&value);
        } else {
            items[index] = value;
        }
        self.assign(name, Value::Array(items)).await
    }

    /// Sets a variable of the shell's own.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        match self.variables.get_mut(name) {
            Some(variable) => variable.value = value,
            None => {
                self.variables.insert(name.to_owned(), Variable::plain(value));
            }
        }
    }

    pub(super) fn set_default(&mut self, name: &str, value: &str) {
        if !self.variables.contains_key(name) {
            self.set(name, Value::Scalar(value.to_owned()));
        }
    }

    /// Makes a variable local to the function being run.
    pub(super) fn hide(&mut self, name: &str) {
        let old = self.variables.get(name).cloned();
        if let Some(frame) = self.hidden.last_mut() {
            frame.entry(name.to_owned()).or_insert(old);
        }
    }

    /// Gives back what the innermost function hid.
    pub(super) fn unhide(&mut self) {
        for (name, old) in self.hidden.pop().unwrap_or_default() {
            match old {
                Some(variable) => self.variables.insert(name, variable),
                None => self.variables.remove(&name),
            };
        }
    }

    /// The environment of programs, in order of names.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let mut environment: Vec<(String, String)> = self
            .variables
            .iter()
            .filter(|(_, variable)| variable.exported)
            .filter_map(|(name, variable)| Some((name.clone(), variable.scalar()?.to_owned())))
            .collect();
        environment.sort();
        environment
    }
}

/// Whether a text is a variable's name.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic())
        && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}
