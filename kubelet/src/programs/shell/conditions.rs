//! `test`, `[` and `[[ … ]]`.

use super::expand::Quoting;
use super::{Interrupt, Shell, pattern};
use crate::files::{Files, Kind, resolve};
use crate::program::{Container, ExitStatus};
use crate::programs::stdio::Outcome;
use brush_parser::ast::{BinaryPredicate as Binary, ExtendedTestExpr, TestExpr, UnaryPredicate as Unary};
use regex::Regex;

/// Most operands of `test`: its parser descends for some of them.
const TERMS: usize = 100;

/// Where a condition is judged.
struct Scene<'a> {
    files: &'a Files,
    cwd: &'a str,
    tty: bool,
    is_set: &'a (dyn Fn(&str) -> bool + Sync),
}

/// The program `test`, for those that do not come from the shell (`xargs test`, `find -exec [`).
pub(crate) async fn test(container: &mut Container) -> Outcome {
    let env = container.env.clone();
    let is_set = move |name: &str| env.iter().any(|(key, _)| key == name);
    let scene = Scene { files: &container.files, cwd: &container.cwd, tty: container.tty, is_set: &is_set };
    match evaluate(&scene, &container.args) {
        Ok(holds) => Ok(ExitStatus::from(!holds)),
        Err(message) => {
            let name = container.args[0].clone();
            container.complain(format!("{name}: {message}")).await;
            Ok(2)
        }
    }
}

/// The builtin; `arguments[0]` is `test` or `[`.
pub(super) async fn test_builtin(shell: &mut Shell, arguments: &[String]) -> ExitStatus {
    let result = {
        let variables = &shell.variables;
        let is_set = |name: &str| variables.contains_key(name);
        let scene = Scene { files: &shell.world.files, cwd: &shell.cwd, tty: shell.world.tty, is_set: &is_set };
        evaluate(&scene, arguments)
    };
    match result {
        Ok(holds) => ExitStatus::from(!holds),
        Err(message) => {
            shell.complain(&message).await;
            2
        }
    }
}

fn evaluate(scene: &Scene<'_>, arguments: &[String]) -> Result<bool, String> {
    let mut operands = &arguments[1..];
    if arguments[0].ends_with('[') {
        match operands.split_last() {
            Some((last, rest)) if last == "]" => operands = rest,
            _ => return Err("missing ]".to_owned()),
        }
    }
    if operands.len() > TERMS {
        return Err("too many arguments".to_owned());
    }
    match brush_parser::test_command::parse(operands) {
        Ok(expression) => judge(scene, &expression),
        Err(_) => {
            let operand = operands.get(1).or(operands.first()).cloned().unwrap_or_default();
            Err(format!("{operand}: unknown operand"))
        }
    }
}

fn judge(scene: &Scene<'_>, expression: &TestExpr) -> Result<bool, String> {
    Ok(match expression {
        TestExpr::False => false,
        TestExpr::Literal(text) => !text.is_empty(),
        TestExpr::And(left, right) => judge(scene, left)? && judge(scene, right)?,
        TestExpr::Or(left, right) => judge(scene, left)? || judge(scene, right)?,
        TestExpr::Not(inner) => !judge(scene, inner)?,
        TestExpr::Parenthesized(inner) => judge(scene, inner)?,
        TestExpr::UnaryTest(predicate, operand) => unary(scene, predicate, operand),
        TestExpr::BinaryTest(predicate, left, right) => match predicate {
            Binary::ArithmeticEqualTo
            | Binary::ArithmeticNotEqualTo
            | Binary::ArithmeticLessThan
            | Binary::ArithmeticLessThanOrEqualTo
            | Binary::ArithmeticGreaterThan
            | Binary::ArithmeticGreaterThanOrEqualTo => compare(predicate, number(left)?, number(right)?),
            _ => binary(scene, predicate, left, right),
        },
    })
}

fn number(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| format!("{text}: bad number"))
}

fn compare(predicate: &Binary, left: i64, right: i64) -> bool {
    match predicate {
        Binary::ArithmeticEqualTo => left == right,
        Binary::ArithmeticNotEqualTo => left != right,
        Binary::ArithmeticLessThan => left < right,
        Binary::ArithmeticLessThanOrEqualTo => left <= right,
        Binary::ArithmeticGreaterThan => left > right,
        _ => left >= right,
    }
}

fn binary(scene: &Scene<'_>, predicate: &Binary, left: &str, right: &str) -> bool {
    match predicate {
        Binary::StringExactlyMatchesString | Binary::StringExactlyMatchesPattern => left == right,
        Binary::StringDoesNotExactlyMatchString | Binary::StringDoesNotExactlyMatchPattern => left != right,
        Binary::LeftSortsBeforeRight => left < right,
        Binary::LeftSortsAfterRight => left > right,
        Binary::StringContainsSubstring => left.contains(right),
        Binary::FilesReferToSameDeviceAndInodeNumbers => resolve(scene.cwd, left) == resolve(scene.cwd, right),
        // Files of the tree carry no times: one that exists is newer than one that does not.
        Binary::LeftFileIsNewerOrExistsWhenRightDoesNot => kind(scene, left).is_some() && kind(scene, right).is_none(),
        Binary::LeftFileIsOlderOrDoesNotExistWhenRightDoes => {
            kind(scene, left).is_none() && kind(scene, right).is_some()
        }
        _ => false,
    }
}

fn kind(scene: &Scene<'_>, path: &str) -> Option<Kind> {
    scene.files.kind(&resolve(scene.cwd, path))
}

fn unary(scene: &Scene<'_>, predicate: &Unary, operand: &str) -> bool {
    let path = resolve(scene.cwd, operand);
    let device = matches!(path.as_str(), "/dev/null" | "/dev/zero" | "/dev/urandom" | "/dev/random");
    let standing = scene.files.kind(&path);
    match predicate {
        Unary::StringHasZeroLength => operand.is_empty(),
        Unary::StringHasNonZeroLength => !operand.is_empty(),
        Unary::FileExists => standing.is_some() || device,
        Unary::FileExistsAndIsRegularFile => matches!(standing, Some(Kind::File { .. })),
        Unary::FileExistsAndIsDir => matches!(standing, Some(Kind::Directory)),
        Unary::FileExistsAndIsNotZeroLength => match standing {
            Some(Kind::File { length, .. }) => length > 0,
            Some(Kind::Directory) => true,
            None => false,
        },
        Unary::FileExistsAndIsExecutable => match standing {
            Some(Kind::File { mode, .. }) => mode & 0o111 != 0,
            Some(Kind::Directory) => true,
            None => false,
        },
        Unary::FileExistsAndIsReadable | Unary::FileExistsAndIsWritable => standing.is_some() || device,
        Unary::FileExistsAndOwnedByEffectiveGroupId | Unary::FileExistsAndOwnedByEffectiveUserId => standing.is_some(),
        Unary::FileExistsAndIsCharSpecialFile => device,
        Unary::FdIsOpenTerminal => scene.tty && matches!(operand, "0" | "1" | "2"),
        Unary::ShellVariableIsSetAndAssigned => (scene.is_set)(operand),
        _ => false,
    }
}

impl Shell {
    /// `[[ … ]]`.
    pub(super) async fn extended_test(&mut self, expression: &ExtendedTestExpr) -> Result<bool, Interrupt> {
        Ok(match expression {
            ExtendedTestExpr::And(left, right) => {
                Box::pin(self.extended_test(left)).await? && Box::pin(self.extended_test(right)).await?
            }
            ExtendedTestExpr::Or(left, right) => {
                Box::pin(self.extended_test(left)).await? || Box::pin(self.extended_test(right)).await?
            }
            ExtendedTestExpr::Not(inner) => !Box::pin(self.extended_test(inner)).await?,
            ExtendedTestExpr::Parenthesized(inner) => Box::pin(self.extended_test(inner)).await?,
            ExtendedTestExpr::UnaryTest(predicate, word) => {
                let operand = self.expand_to_string(&word.value, Quoting::Unquoted).await?;
                let variables = &self.variables;
                let is_set = |name: &str| variables.contains_key(name);
                let scene = Scene { files: &self.world.files, cwd: &self.cwd, tty: self.world.tty, is_set: &is_set };
                unary(&scene, predicate, &operand)
            }
            ExtendedTestExpr::BinaryTest(predicate, left, right) => {
                let left = self.expand_to_string(&left.value, Quoting::Unquoted).await?;
                match predicate {
                    Binary::StringExactlyMatchesPattern => {
                        pattern::matches(&self.expand_to_pattern(&right.value).await?, &left)
                    }
                    Binary::StringDoesNotExactlyMatchPattern => {
                        !pattern::matches(&self.expand_to_pattern(&right.value).await?, &left)
                    }
                    Binary::StringMatchesRegex => {
                        let text = self.expand_to_string(&right.value, Quoting::Unquoted).await?;
                        match Regex::new(&text) {
                            Ok(regex) => self.remember_captures(&regex, &left),
                            Err(_) => {
                                return Err(self.mistake(&format!("invalid regular expression '{text}'")).await);
                            }
                        }
                    }
                    Binary::ArithmeticEqualTo
                    | Binary::ArithmeticNotEqualTo
                    | Binary::ArithmeticLessThan
                    | Binary::ArithmeticLessThanOrEqualTo
                    | Binary::ArithmeticGreaterThan
                    | Binary::ArithmeticGreaterThanOrEqualTo => {
                        let right = self.expand_to_string(&right.value, Quoting::Unquoted).await?;
                        let left = self.arithmetic(&left).await?;
                        let right = self.arithmetic(&right).await?;
                        compare(predicate, left, right)
                    }
                    _ => {
                        let right = self.expand_to_string(&right.value, Quoting::Unquoted).await?;
                        let scene =
                            Scene { files: &self.world.files, cwd: &self.cwd, tty: self.world.tty, is_set: &|_| false };
                        binary(&scene, predicate, &left, &right)
                    }
                }
            }
        })
    }

    fn remember_captures(&mut self, regex: &Regex, text: &str) -> bool {
        match regex.captures(text) {
            Some(captures) => {
                let groups = captures.iter().map(|group| group.map_or("", |group| group.as_str()).to_owned()).collect();
                self.set("BASH_REMATCH", super::variables::Value::Array(groups));
                true
            }
            None => false,
        }
    }
}
