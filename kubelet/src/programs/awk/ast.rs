//! awk's programs, parsed.

use regex::Regex;

/// Rules in order.
pub(super) struct Program {
    pub(super) begin: Vec<Vec<Statement>>,
    pub(super) rules: Vec<Rule>,
    pub(super) end: Vec<Vec<Statement>>,
}

impl Program {
    /// Whether input is read at all: not by a program of `BEGIN` alone.
    pub(super) fn reads(&self) -> bool {
        !self.rules.is_empty() || !self.end.is_empty()
    }
}

pub(super) struct Rule {
    pub(super) pattern: Pattern,
    /// `None`: print the record.
    pub(super) action: Option<Vec<Statement>>,
}

pub(super) enum Pattern {
    Always,
    When(Expression),
    Range(Expression, Expression),
}

pub(super) enum Statement {
    Print(Vec<Expression>),
    Printf(Vec<Expression>),
    Expression(Expression),
    If(Expression, Vec<Statement>, Vec<Statement>),
    While(Expression, Vec<Statement>),
    DoWhile(Vec<Statement>, Expression),
    For(Option<Box<Statement>>, Option<Expression>, Option<Box<Statement>>, Vec<Statement>),
    ForIn(String, String, Vec<Statement>),
    Block(Vec<Statement>),
    Delete(String, Option<Vec<Expression>>),
    Next,
    Break,
    Continue,
    Exit(Option<Expression>),
}

pub(super) enum Expression {
    Number(f64),
    Text(String),
    Matches(Regex),
    Variable(String),
    Field(Box<Expression>),
    Element(String, Vec<Expression>),
    In(Vec<Expression>, String),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Binary(Binary, Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    /// Whether the match is negated.
    Match(bool, Box<Expression>, Box<Expression>),
    Conditional(Box<Expression>, Box<Expression>, Box<Expression>),
    Assign(Option<Binary>, Box<Expression>, Box<Expression>),
    /// Increment, and whether the old value is the result.
    Step(f64, bool, Box<Expression>),
    Call(String, Vec<Expression>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Concatenate,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
}
