//! awk's grammar.

use super::ast::{Binary, Expression, Pattern, Program, Rule, Statement};
use super::lexer::{Token, tokens};
use regex::Regex;

/// Expressions and statements within one another.
const DEPTH: usize = 50;

pub(super) type Parsed<T> = Result<T, String>;

/// Parses a whole program.
pub(super) fn program(source: &str) -> Parsed<Program> {
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens, at: 0, depth: 0, no_in: false };
    let mut program = Program { begin: Vec::new(), rules: Vec::new(), end: Vec::new() };
    loop {
        parser.skip_separators();
        match parser.peek() {
            None => return Ok(program),
            Some(Token::Name(name)) if name == "BEGIN" => {
                parser.at += 1;
                program.begin.push(parser.block()?);
            }
            Some(Token::Name(name)) if name == "END" => {
                parser.at += 1;
                program.end.push(parser.block()?);
            }
            Some(Token::Name(name)) if name == "function" || name == "func" => {
                return Err("functions are not supported".to_owned());
            }
            Some(Token::Mark("{")) => {
                let action = Some(parser.block()?);
                program.rules.push(Rule { pattern: Pattern::Always, action });
            }
            Some(_) => {
                let first = parser.expression()?;
                let pattern = if parser.take(",") {
                    parser.skip_newlines();
                    Pattern::Range(first, parser.expression()?)
                } else {
                    Pattern::When(first)
                };
                let action = if parser.is("{") { Some(parser.block()?) } else { None };
                program.rules.push(Rule { pattern, action });
            }
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    /// In the head of a `for`, where `in` may mean something else.
    no_in: bool,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn is(&self, mark: &str) -> bool {
        matches!(self.peek(), Some(Token::Mark(found)) if *found == mark)
    }

    fn take(&mut self, mark: &str) -> bool {
        let found = self.is(mark);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, mark: &str) -> Parsed<()> {
        if self.take(mark) { Ok(()) } else { Err(format!("syntax error: expected '{mark}'")) }
    }

    fn take_name(&mut self, name: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Name(found)) if found == name);
        self.at += usize::from(found);
        found
    }

    fn skip_newlines(&mut self) {
        while self.peek() == Some(&Token::Newline) {
            self.at += 1;
        }
    }

    fn skip_separators(&mut self) {
        while self.peek() == Some(&Token::Newline) || self.is(";") {
            self.at += 1;
        }
    }

    fn descend<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH {
            return Err("nested too deep".to_owned());
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn block(&mut self) -> Parsed<Vec<Statement>> {
        self.skip_newlines();
        self.expect("{")?;
        let mut statements = Vec::new();
        loop {
            self.skip_separators();
            if self.take("}") {
                return Ok(statements);
            }
            if self.peek().is_none() {
                return Err("syntax error: unexpected end".to_owned());
            }
            statements.push(self.descend(Self::statement)?);
        }
    }

    /// The body of `if` and loops.
    fn body(&mut self) -> Parsed<Vec<Statement>> {
        self.skip_newlines();
        if self.is("{") {
            return self.block();
        }
        if self.take(";") {
            return Ok(Vec::new());
        }
        Ok(vec![self.descend(Self::statement)?])
    }

    fn statement(&mut self) -> Parsed<Statement> {
        if self.is("{") {
            return Ok(Statement::Block(self.block()?));
        }
        if self.take_name("if") {
            self.expect("(")?;
            let condition = self.expression()?;
            self.expect(")")?;
            let then = self.body()?;
            let before = self.at;
            self.skip_separators();
            if self.take_name("else") {
                return Ok(Statement::If(condition, then, self.body()?));
            }
            self.at = before;
            return Ok(Statement::If(condition, then, Vec::new()));
        }
        if self.take_name("while") {
            self.expect("(")?;
            let condition = self.expression()?;
            self.expect(")")?;
            return Ok(Statement::While(condition, self.body()?));
        }
        if self.take_name("do") {
            let body = self.body()?;
            self.skip_separators();
            if !self.take_name("while") {
                return Err("syntax error: expected 'while'".to_owned());
            }
            self.expect("(")?;
            let condition = self.expression()?;
            self.expect(")")?;
            return Ok(Statement::DoWhile(body, condition));
        }
        if self.take_name("for") {
            return self.for_statement();
        }
        self.simple()
    }

    fn for_statement(&mut self) -> Parsed<Statement> {
        self.expect("(")?;
        if let [Token::Name(key), Token::Name(word), Token::Name(array), Token::Mark(")"), ..] = &self.tokens[self.at..]
            && word == "in"
        {
            let (key, array) = (key.clone(), array.clone());
            self.at += 4;
            return Ok(Statement::ForIn(key, array, self.body()?));
        }
        let first = if self.is(";") { None } else { Some(Box::new(self.simple()?)) };
        self.expect(";")?;
        let condition = if self.is(";") { None } else { Some(self.expression()?) };
        self.expect(";")?;
        let step = if self.is(")") { None } else { Some(Box::new(self.simple()?)) };
        self.expect(")")?;
        Ok(Statement::For(first, condition, step, self.body()?))
    }

    fn simple(&mut self) -> Parsed<Statement> {
        if self.take_name("print") {
            return Ok(Statement::Print(self.printed()?));
        }
        if self.take_name("printf") {
            return Ok(Statement::Printf(self.printed()?));
        }
        if self.take_name("next") {
            return Ok(Statement::Next);
        }
        if self.take_name("break") {
            return Ok(Statement::Break);
        }
        if self.take_name("continue") {
            return Ok(Statement::Continue);
        }
        if self.take_name("exit") {
            let status = if self.ends() { None } else { Some(self.expression()?) };
            return Ok(Statement::Exit(status));
        }
        if self.take_name("delete") {
            let Some(Token::Name(name)) = self.peek().cloned() else {
                return Err("syntax error: expected an array".to_owned());
            };
            self.at += 1;
            let index = if self.take("[") { Some(self.list("]")?) } else { None };
            return Ok(Statement::Delete(name, index));
        }
        Ok(Statement::Expression(self.expression()?))
    }

    fn ends(&self) -> bool {
        matches!(self.peek(), None | Some(Token::Newline | Token::Mark(";" | "}")))
    }

    fn printed(&mut self) -> Parsed<Vec<Expression>> {
        let mut values = Vec::new();
        if self.ends() {
            return Ok(values);
        }
        // `print (a, b)`: the parentheses hold the list.
        if self.is("(") {
            let before = self.at;
            self.at += 1;
            if let Ok(list) = self.list(")")
                && self.ends()
            {
                return Ok(list);
            }
            self.at = before;
        }
        loop {
            values.push(self.without_comparison()?);
            if !self.take(",") {
                break;
            }
            self.skip_newlines();
        }
        if self.is(">") || self.is("|") {
            return Err("output to files and commands is not supported".to_owned());
        }
        Ok(values)
    }

    /// An expression in which `>` would be a redirection.
    fn without_comparison(&mut self) -> Parsed<Expression> {
        self.descend(|parser| parser.conditional(false))
    }

    fn list(&mut self, end: &str) -> Parsed<Vec<Expression>> {
        let mut list = Vec::new();
        self.skip_newlines();
        if self.take(end) {
            return Ok(list);
        }
        loop {
            list.push(self.expression()?);
            self.skip_newlines();
            if self.take(end) {
                return Ok(list);
            }
            self.expect(",")?;
            self.skip_newlines();
        }
    }

    fn expression(&mut self) -> Parsed<Expression> {
        self.descend(|parser| parser.conditional(true))
    }

    fn conditional(&mut self, comparisons: bool) -> Parsed<Expression> {
        let condition = self.or(comparisons)?;
        if self.take("?") {
            self.skip_newlines();
            let yes = self.descend(|parser| parser.conditional(comparisons))?;
            self.skip_newlines();
            self.expect(":")?;
            self.skip_newlines();
            let no = self.descend(|parser| parser.conditional(comparisons))?;
            return Ok(Expression::Conditional(Box::new(condition), Box::new(yes), Box::new(no)));
        }
        if !matches!(condition, Expression::Variable(_) | Expression::Field(_) | Expression::Element(..)) {
            return Ok(condition);
        }
        let operators = [
            ("=", None),
            ("+=", Some(Binary::Add)),
            ("-=", Some(Binary::Subtract)),
            ("*=", Some(Binary::Multiply)),
            ("/=", Some(Binary::Divide)),
            ("%=", Some(Binary::Modulo)),
            ("^=", Some(Binary::Power)),
        ];
        for (mark, operator) in operators {
            if self.take(mark) {
                self.skip_newlines();
                let value = self.descend(|parser| parser.conditional(comparisons))?;
                return Ok(Expression::Assign(operator, Box::new(condition), Box::new(value)));
            }
        }
        Ok(condition)
    }

    fn or(&mut self, comparisons: bool) -> Parsed<Expression> {
        let mut left = self.and(comparisons)?;
        while self.take("||") {
            self.skip_newlines();
            left = Expression::Or(Box::new(left), Box::new(self.and(comparisons)?));
        }
        Ok(left)
    }

    fn and(&mut self, comparisons: bool) -> Parsed<Expression> {
        let mut left = self.membership(comparisons)?;
        while self.take("&&") {
            self.skip_newlines();
            left = Expression::And(Box::new(left), Box::new(self.membership(comparisons)?));
        }
        Ok(left)
    }

    fn membership(&mut self, comparisons: bool) -> Parsed<Expression> {
        let mut left = self.matching(comparisons)?;
        while !self.no_in && self.take_name("in") {
            let Some(Token::Name(array)) = self.peek().cloned() else {
                return Err("syntax error: expected an array".to_owned());
            };
            self.at += 1;
            left = Expression::In(vec![left], array);
        }
        Ok(left)
    }

    fn matching(&mut self, comparisons: bool) -> Parsed<Expression> {
        let mut left = self.comparison(comparisons)?;
        loop {
            let negated = match () {
                () if self.take("~") => false,
                () if self.take("!~") => true,
                () => return Ok(left),
            };
            let right = self.comparison(comparisons)?;
            left = Expression::Match(negated, Box::new(left), Box::new(right));
        }
    }

    fn comparison(&mut self, comparisons: bool) -> Parsed<Expression> {
        let left = self.concatenation()?;
        let operators = [
            ("<", Binary::Less),
            ("<=", Binary::LessOrEqual),
            ("==", Binary::Equal),
            ("!=", Binary::NotEqual),
            (">", Binary::Greater),
            (">=", Binary::GreaterOrEqual),
        ];
        for (mark, operator) in operators {
            if (comparisons || mark != ">") && self.take(mark) {
                let right = self.concatenation()?;
                return Ok(Expression::Binary(operator, Box::new(left), Box::new(right)));
            }
        }
        Ok(left)
    }

    fn concatenation(&mut self) -> Parsed<Expression> {
        let mut left = self.sum()?;
        loop {
            let continues = match self.peek() {
                Some(Token::Number(_) | Token::Text(_) | Token::Function(_) | Token::Expression(_)) => true,
                Some(Token::Name(name)) => name != "in",
                Some(Token::Mark(mark)) => matches!(*mark, "$" | "!" | "(" | "-" | "+" | "++" | "--"),
                _ => false,
            };
            if !continues {
                return Ok(left);
            }
            left = Expression::Binary(Binary::Concatenate, Box::new(left), Box::new(self.sum()?));
        }
    }

    fn sum(&mut self) -> Parsed<Expression> {
        let mut left = self.product()?;
        loop {
            let operator = match () {
                () if self.take("+") => Binary::Add,
                () if self.take("-") => Binary::Subtract,
                () => return Ok(left),
            };
            left = Expression::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Parsed<Expression> {
        let mut left = self.unary()?;
        loop {
            let operator = match () {
                () if self.take("*") => Binary::Multiply,
                () if self.take("/") => Binary::Divide,
                () if self.take("%") => Binary::Modulo,
                () => return Ok(left),
            };
            left = Expression::Binary(operator, Box::new(left), Box::new(self.unary()?));
        }
    }

    fn unary(&mut self) -> Parsed<Expression> {
        if self.take("!") {
            return Ok(Expression::Not(Box::new(self.descend(Self::unary)?)));
        }
        if self.take("-") {
            return Ok(Expression::Negative(Box::new(self.descend(Self::unary)?)));
        }
        if self.take("+") {
            return self.descend(Self::unary);
        }
        let base = self.postfix()?;
        if self.take("^") || self.take("**") {
            let exponent = self.descend(Self::unary)?;
            return Ok(Expression::Binary(Binary::Power, Box::new(base), Box::new(exponent)));
        }
        Ok(base)
    }

    fn postfix(&mut self) -> Parsed<Expression> {
        for (mark, step) in [("++", 1.0), ("--", -1.0)] {
            if self.take(mark) {
                let target = self.descend(Self::postfix)?;
                return Ok(Expression::Step(step, false, Box::new(target)));
            }
        }
        let value = self.primary()?;
        if matches!(value, Expression::Variable(_) | Expression::Field(_) | Expression::Element(..)) {
            for (mark, step) in [("++", 1.0), ("--", -1.0)] {
                if self.take(mark) {
                    return Ok(Expression::Step(step, true, Box::new(value)));
                }
            }
        }
        Ok(value)
    }

    fn primary(&mut self) -> Parsed<Expression> {
        let Some(token) = self.peek().cloned() else {
            return Err("syntax error: unexpected end".to_owned());
        };
        self.at += 1;
        Ok(match token {
            Token::Number(number) => Expression::Number(number),
            Token::Text(text) => Expression::Text(text),
            Token::Expression(text) => Expression::Matches(compiled(&text)?),
            Token::Mark("$") => Expression::Field(Box::new(self.descend(Self::field_number)?)),
            Token::Mark("(") => {
                let mut list = self.list(")")?;
                if self.take_name("in") {
                    let Some(Token::Name(array)) = self.peek().cloned() else {
                        return Err("syntax error: expected an array".to_owned());
                    };
                    self.at += 1;
                    return Ok(Expression::In(list, array));
                }
                match (list.len(), list.pop()) {
                    // Grouped: neither an assignment's target nor a field.
                    (1, Some(inner)) => match inner {
                        Expression::Variable(_) | Expression::Element(..) => inner,
                        inner => Expression::Conditional(
                            Box::new(Expression::Number(1.0)),
                            Box::new(inner),
                            Box::new(Expression::Number(0.0)),
                        ),
                    },
                    _ => return Err("syntax error: unexpected list".to_owned()),
                }
            }
            Token::Name(name) if name == "length" => Expression::Call(name, Vec::new()),
            Token::Name(name) => match self.take("[") {
                true => Expression::Element(name, self.list("]")?),
                false => Expression::Variable(name),
            },
            Token::Function(name) => {
                self.expect("(")?;
                Expression::Call(name, self.list(")")?)
            }
            Token::Mark(mark) => return Err(format!("syntax error near '{mark}'")),
            Token::Newline => return Err("syntax error: unexpected newline".to_owned()),
        })
    }

    /// `$NF`, `$1`, `$(i + 1)`, `$i++`: binds tighter than anything.
    fn field_number(&mut self) -> Parsed<Expression> {
        if self.take("-") {
            return Ok(Expression::Negative(Box::new(self.primary()?)));
        }
        for (mark, step) in [("++", 1.0), ("--", -1.0)] {
            if self.take(mark) {
                return Ok(Expression::Step(step, false, Box::new(self.primary()?)));
            }
        }
        self.primary()
    }
}

/// A dynamic or literal regular expression.
pub(super) fn compiled(text: &str) -> Parsed<Regex> {
    Regex::new(text).map_err(|_| format!("bad regular expression '{text}'"))
}
