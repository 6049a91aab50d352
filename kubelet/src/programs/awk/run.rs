//! What awk's rules, statements and expressions do.

use super::ast::{Expression, Pattern, Program, Statement};
use super::parse::compiled;
use super::value::{Value, apply};
use regex::Regex;
use std::collections::{BTreeMap, HashMap};

/// Steps that one record, `BEGIN` or `END` may take: awk runs without letting others run in between.
const STEPS: u64 = 10_000_000;
/// Bytes of output that wait to be written.
const OUTPUT: usize = 64 << 10;
/// Bytes that variables and output may hold.
pub(super) const MEMORY: usize = 64 << 20;
/// Most fields of a record.
const FIELDS: usize = 100_000;

/// Why a list of statements ends early.
pub(super) enum Stop {
    Next,
    Break,
    Continue,
    Exit,
    Mistake(String),
}

pub(super) type Ran<T> = Result<T, Stop>;

/// awk while it runs.
pub(super) struct Machine {
    pub(super) variables: HashMap<String, Value>,
    pub(super) arrays: HashMap<String, BTreeMap<String, Value>>,
    /// `$0`, then the fields.
    pub(super) record: String,
    fields: Vec<String>,
    inside: Vec<bool>,
    output: Vec<u8>,
    exit: Option<i32>,
    steps: u64,
    pub(super) held: usize,
    expressions: HashMap<String, Regex>,
}

impl Machine {
    pub(super) fn new(env: &[(String, String)]) -> Self {
        let mut machine = Machine {
            variables: HashMap::new(),
            arrays: HashMap::new(),
            record: String::new(),
            fields: Vec::new(),
            inside: Vec::new(),
            output: Vec::new(),
            exit: None,
            steps: 0,
            held: 0,
            expressions: HashMap::new(),
        };
        for (name, value) in [("FS", " "), ("OFS", " "), ("ORS", "\n"), ("RS", "\n"), ("SUBSEP", "\u{1c}")] {
            machine.variables.insert(name.to_owned(), Value::Text(value.to_owned()));
        }
        let environment = env.iter().map(|(name, value)| (name.clone(), Value::Input(value.clone())));
        machine.arrays.insert("ENVIRON".to_owned(), environment.collect());
        machine
    }

    pub(super) fn assign_text(&mut self, name: &str, value: &str) {
        let bytes = crate::programs::escapes::unescape(value, crate::programs::escapes::Style::AnsiC).0;
        self.variables.insert(name.to_owned(), Value::Input(String::from_utf8_lossy(&bytes).into_owned()));
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    pub(super) fn output_waiting(&self) -> bool {
        self.output.len() >= OUTPUT
    }

    pub(super) fn exit_status(&self) -> Option<i32> {
        self.exit
    }

    fn variable(&self, name: &str) -> String {
        self.variables.get(name).map(Value::text).unwrap_or_default()
    }

    /// Begins a file.
    pub(super) fn open(&mut self, name: &str) {
        self.variables.insert("FILENAME".to_owned(), Value::Text(name.to_owned()));
        self.variables.insert("FNR".to_owned(), Value::Number(0.0));
    }

    /// The records of a text.
    pub(super) fn records(&self, text: &str) -> Vec<String> {
        let separator = self.variable("RS");
        if separator.is_empty() {
            let paragraphs = text.split("\n\n").map(|paragraph| paragraph.trim_matches('\n'));
            return paragraphs.filter(|paragraph| !paragraph.is_empty()).map(str::to_owned).collect();
        }
        let mut records: Vec<String> = text.split(&separator).map(str::to_owned).collect();
        if records.last().is_some_and(|last| last.is_empty() || last == "\n") {
            records.pop();
        }
        records
    }

    pub(super) fn begin(&mut self, program: &Program) -> Result<(), String> {
        self.inside = vec![false; program.rules.len()];
        program.begin.iter().try_for_each(|block| self.run(block))
    }

    pub(super) fn end(&mut self, program: &Program) -> Result<(), String> {
        if self.exit.is_some() {
            return Ok(());
        }
        program.end.iter().try_for_each(|block| self.run(block))
    }

    /// Runs a block of its own.
    fn run(&mut self, block: &[Statement]) -> Result<(), String> {
        self.steps = 0;
        if self.exit.is_some() {
            return Ok(());
        }
        match self.all(block) {
            Err(Stop::Mistake(message)) => Err(message),
            _ => Ok(()),
        }
    }

    /// Runs the rules on a record.
    pub(super) fn record(&mut self, program: &Program, record: String) -> Result<(), String> {
        self.steps = 0;
        for counter in ["NR", "FNR"] {
            let next = self.variables.get(counter).map_or(0.0, Value::number) + 1.0;
            self.variables.insert(counter.to_owned(), Value::Number(next));
        }
        self.set_record(record);
        for (at, rule) in program.rules.iter().enumerate() {
            let chosen = match self.chosen(&rule.pattern, at) {
                Ok(chosen) => chosen,
                Err(Stop::Mistake(message)) => return Err(message),
                Err(_) => return Ok(()),
            };
            if !chosen {
                continue;
            }
            let ran = match &rule.action {
                Some(action) => self.all(action),
                None => self.print(&[]),
            };
            match ran {
                Ok(()) => {}
                Err(Stop::Mistake(message)) => return Err(message),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn chosen(&mut self, pattern: &Pattern, at: usize) -> Ran<bool> {
        match pattern {
            Pattern::Always => Ok(true),
            Pattern::When(expression) => Ok(self.value(expression)?.holds()),
            Pattern::Range(from, to) => {
                if !self.inside[at] && !self.value(from)?.holds() {
                    return Ok(false);
                }
                self.inside[at] = !self.value(to)?.holds();
                Ok(true)
            }
        }
    }

    fn set_record(&mut self, record: String) {
        self.fields = self.split(&record, None);
        self.record = record;
        self.variables.insert("NF".to_owned(), Value::Number(self.fields.len() as f64));
    }

    /// Splits by `FS`, or by a separator of its own.
    pub(super) fn split(&mut self, text: &str, separator: Option<String>) -> Vec<String> {
        let separator = separator.unwrap_or_else(|| self.variable("FS"));
        let mut parts: Vec<String> = if separator == " " {
            text.split_whitespace().map(str::to_owned).collect()
        } else if text.is_empty() {
            Vec::new()
        } else if separator.is_empty() {
            text.chars().map(String::from).collect()
        } else if separator.chars().count() == 1 && separator != "\\" {
            text.split(&separator).map(str::to_owned).collect()
        } else {
            match self.expression(&separator) {
                Ok(expression) => expression.split(text).map(str::to_owned).collect(),
                Err(_) => vec![text.to_owned()],
            }
        };
        parts.truncate(FIELDS);
        parts
    }

    fn expression(&mut self, text: &str) -> Ran<Regex> {
        if let Some(expression) = self.expressions.get(text) {
            return Ok(expression.clone());
        }
        let expression = compiled(text).map_err(Stop::Mistake)?;
        if self.expressions.len() < 100 {
            self.expressions.insert(text.to_owned(), expression.clone());
        }
        Ok(expression)
    }

    fn step(&mut self) -> Ran<()> {
        self.steps += 1;
        if self.steps > STEPS {
            return Err(Stop::Mistake(format!("stopped after {STEPS} steps on one record")));
        }
        if self.output.len() + self.held > MEMORY {
            return Err(Stop::Mistake("out of memory".to_owned()));
        }
        Ok(())
    }

    fn all(&mut self, statements: &[Statement]) -> Ran<()> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    /// Runs a loop's body; `false`: the loop is left.
    fn body(&mut self, body: &[Statement]) -> Ran<bool> {
        self.step()?;
        match self.all(body) {
            Ok(()) | Err(Stop::Continue) => Ok(true),
            Err(Stop::Break) => Ok(false),
            Err(stop) => Err(stop),
        }
    }

    fn statement(&mut self, statement: &Statement) -> Ran<()> {
        self.step()?;
        match statement {
            Statement::Print(values) => self.print(values),
            Statement::Printf(values) => {
                let text = self.formatted(values)?;
                self.output.extend_from_slice(&text);
                Ok(())
            }
            Statement::Expression(expression) => self.value(expression).map(drop),
            Statement::If(condition, then, otherwise) => {
                if self.value(condition)?.holds() {
                    self.all(then)
                } else {
                    self.all(otherwise)
                }
            }
            Statement::While(condition, body) => {
                while self.value(condition)?.holds() && self.body(body)? {}
                Ok(())
            }
            Statement::DoWhile(body, condition) => {
                while self.body(body)? && self.value(condition)?.holds() {}
                Ok(())
            }
            Statement::For(first, condition, step, body) => {
                if let Some(first) = first {
                    self.statement(first)?;
                }
                loop {
                    if let Some(condition) = condition
                        && !self.value(condition)?.holds()
                    {
                        return Ok(());
                    }
                    if !self.body(body)? {
                        return Ok(());
                    }
                    if let Some(step) = step {
                        self.statement(step)?;
                    }
                }
            }
            Statement::ForIn(name, array, body) => {
                let keys: Vec<String> =
                    self.arrays.get(array).map(|array| array.keys().cloned().collect()).unwrap_or_default();
                for key in keys {
                    self.variables.insert(name.clone(), Value::Input(key));
                    if !self.body(body)? {
                        break;
                    }
                }
                Ok(())
            }
            Statement::Block(statements) => self.all(statements),
            Statement::Delete(name, index) => {
                match index {
                    Some(index) => {
                        let key = self.key(index)?;
                        if let Some(array) = self.arrays.get_mut(name) {
                            array.remove(&key);
                        }
                    }
                    None => {
                        self.arrays.remove(name);
                    }
                }
                Ok(())
            }
            Statement::Next => Err(Stop::Next),
            Statement::Break => Err(Stop::Break),
            Statement::Continue => Err(Stop::Continue),
            Statement::Exit(status) => {
                let status = match status {
                    Some(status) => self.value(status)?.number() as i32,
                    None => 0,
                };
                self.exit = Some(status);
                Err(Stop::Exit)
            }
        }
    }

    fn print(&mut self, values: &[Expression]) -> Ran<()> {
        let text = if values.is_empty() {
            self.record.clone()
        } else {
            let mut texts = Vec::new();
            for value in values {
                texts.push(self.value(value)?.text());
            }
            texts.join(&self.variable("OFS"))
        };
        self.output.extend_from_slice(text.as_bytes());
        let end = self.variable("ORS");
        self.output.extend_from_slice(end.as_bytes());
        Ok(())
    }

    pub(super) fn formatted(&mut self, values: &[Expression]) -> Ran<Vec<u8>> {
        let mut texts = Vec::new();
        for value in values {
            let value = self.value(value)?;
            // Numbers go to %d whole: printf reads texts.
            texts.push(match value {
                Value::Number(number) if number == number.trunc() => format!("{number:.0}"),
                value => value.text(),
            });
        }
        let Some((format, rest)) = texts.split_first() else {
            return Err(Stop::Mistake("printf: no format".to_owned()));
        };
        Ok(crate::programs::print::awk_printf(format, rest))
    }

    fn key(&mut self, index: &[Expression]) -> Ran<String> {
        let mut parts = Vec::new();
        for part in index {
            parts.push(self.value(part)?.text());
        }
        Ok(parts.join(&self.variable("SUBSEP")))
    }

    fn field(&mut self, number: f64) -> Ran<Value> {
        match number as i64 {
            0 => Ok(Value::Input(self.record.clone())),
            number if number < 0 => Err(Stop::Mistake("access to negative field".to_owned())),
            number => {
                Ok(self.fields.get(number as usize - 1).map_or(Value::Unset, |field| Value::Input(field.clone())))
            }
        }
    }

    pub(super) fn assign(&mut self, target: &Expression, value: Value) -> Ran<()> {
        match target {
            Expression::Variable(name) if name == "NF" => {
                let count = (value.number().max(0.0) as usize).min(FIELDS);
                self.fields.resize(count, String::new());
                self.variables.insert(name.clone(), Value::Number(count as f64));
                self.rebuild();
            }
            Expression::Variable(name) => {
                let length = if let Value::Text(text) | Value::Input(text) = &value { text.len() } else { 0 };
                if length > MEMORY / 4 {
                    return Err(Stop::Mistake("out of memory".to_owned()));
                }
                self.variables.insert(name.clone(), value);
            }
            Expression::Element(name, index) => {
                let key = self.key(index)?;
                self.held +=
                    key.len() + if let Value::Text(text) | Value::Input(text) = &value { text.len() } else { 16 };
                self.arrays.entry(name.clone()).or_default().insert(key, value);
            }
            Expression::Field(number) => {
                let number = self.value(number)?.number() as i64;
                match usize::try_from(number) {
                    Ok(0) => self.set_record(value.text()),
                    Ok(number) if number <= FIELDS => {
                        if self.fields.len() < number {
                            self.fields.resize(number, String::new());
                            self.variables.insert("NF".to_owned(), Value::Number(number as f64));
                        }
                        self.fields[number - 1] = value.text();
                        self.rebuild();
                    }
                    _ => return Err(Stop::Mistake(format!("bad field number {number}"))),
                }
            }
            _ => return Err(Stop::Mistake("assignment to what is no variable".to_owned())),
        }
        Ok(())
    }

    fn rebuild(&mut self) {
        self.record = self.fields.join(&self.variable("OFS"));
    }

    pub(super) fn value(&mut self, expression: &Expression) -> Ran<Value> {
        self.step()?;
        let truth = |holds: bool| Value::Number(f64::from(u8::from(holds)));
        Ok(match expression {
            Expression::Number(number) => Value::Number(*number),
            Expression::Text(text) => Value::Text(text.clone()),
            Expression::Matches(expression) => truth(expression.is_match(&self.record)),
            Expression::Variable(name) => self.variables.get(name).cloned().unwrap_or(Value::Unset),
            Expression::Field(number) => {
                let number = self.value(number)?.number();
                self.field(number)?
            }
            Expression::Element(name, index) => {
                let key = self.key(index)?;
                self.held += key.len() + 16;
                self.arrays.entry(name.clone()).or_default().entry(key).or_insert(Value::Unset).clone()
            }
            Expression::In(index, array) => {
                let key = self.key(index)?;
                truth(self.arrays.get(array).is_some_and(|array| array.contains_key(&key)))
            }
            Expression::Not(inner) => truth(!self.value(inner)?.holds()),
            Expression::Negative(inner) => Value::Number(-self.value(inner)?.number()),
            Expression::And(left, right) => truth(self.value(left)?.holds() && self.value(right)?.holds()),
            Expression::Or(left, right) => truth(self.value(left)?.holds() || self.value(right)?.holds()),
            Expression::Binary(operator, left, right) => {
                let left = self.value(left)?;
                let right = self.value(right)?;
                apply(*operator, &left, &right)?
            }
            Expression::Match(negated, text, pattern) => {
                let text = self.value(text)?.text();
                let expression = self.pattern(pattern)?;
                truth(expression.is_match(&text) != *negated)
            }
            Expression::Conditional(condition, yes, no) => {
                if self.value(condition)?.holds() {
                    self.value(yes)?
                } else {
                    self.value(no)?
                }
            }
            Expression::Assign(operator, target, value) => {
                let mut value = self.value(value)?;
                if let Some(operator) = operator {
                    let old = self.value(target)?;
                    value = apply(*operator, &old, &value)?;
                }
                self.assign(target, value.clone())?;
                value
            }
            Expression::Step(step, old_is_result, target) => {
                let old = self.value(target)?.number();
                self.assign(target, Value::Number(old + step))?;
                Value::Number(if *old_is_result { old } else { old + step })
            }
            Expression::Call(name, arguments) => self.call(name, arguments)?,
        })
    }

    /// An operand of `~` as a regular expression.
    pub(super) fn pattern(&mut self, pattern: &Expression) -> Ran<Regex> {
        match pattern {
            Expression::Matches(expression) => Ok(expression.clone()),
            other => {
                let text = self.value(other)?.text();
                self.expression(&text)
            }
        }
    }
}
