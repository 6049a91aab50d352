//! Commands that the shell itself carries out.

mod processes;
mod reading;
mod variables;

use super::invoke::Meaning;
use super::variables::{Value, Variable};
use super::{Descriptor, Interrupt, Shell, Step};
use crate::files::{Kind as FileKind, resolve};
use crate::program::ExitStatus;
use crate::programs::{print, stdio};
use futures::FutureExt;
use futures::future::BoxFuture;

/// A builtin, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Break,
    Cd,
    Colon,
    Command,
    Continue,
    Echo,
    Eval,
    Exec,
    Exit,
    Export,
    False,
    Getopts,
    Hash,
    Jobs,
    Kill,
    Let,
    Local,
    Printf,
    Pwd,
    Read,
    Readonly,
    Return,
    Set,
    Shift,
    Shopt,
    Source,
    Test,
    Times,
    Trap,
    Type,
    Ulimit,
    Umask,
    Unset,
    Wait,
}

/// The builtin of this name.
pub(super) fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "break" => Kind::Break,
        "cd" | "chdir" => Kind::Cd,
        ":" | "true" => Kind::Colon,
        "command" | "builtin" => Kind::Command,
        "continue" => Kind::Continue,
        "echo" => Kind::Echo,
        "eval" => Kind::Eval,
        "exec" => Kind::Exec,
        "exit" => Kind::Exit,
        "export" => Kind::Export,
        "false" => Kind::False,
        "getopts" => Kind::Getopts,
        "hash" => Kind::Hash,
        "jobs" => Kind::Jobs,
        "kill" => Kind::Kill,
        "let" => Kind::Let,
        "local" | "declare" | "typeset" => Kind::Local,
        "printf" => Kind::Printf,
        "pwd" => Kind::Pwd,
        "read" => Kind::Read,
        "readonly" => Kind::Readonly,
        "return" => Kind::Return,
        "set" => Kind::Set,
        "shift" => Kind::Shift,
        "shopt" => Kind::Shopt,
        "source" | "." => Kind::Source,
        "test" | "[" => Kind::Test,
        "times" => Kind::Times,
        "trap" => Kind::Trap,
        "type" => Kind::Type,
        "ulimit" => Kind::Ulimit,
        "umask" => Kind::Umask,
        "unset" => Kind::Unset,
        "wait" => Kind::Wait,
        _ => return None,
    })
}

/// Carries a builtin out. `arguments[0]` is its name. Boxed: `command` and `eval` run others.
pub(super) fn run(shell: &mut Shell, kind: Kind, arguments: Vec<String>) -> BoxFuture<'_, Step> {
    carry_out(shell, kind, arguments).boxed()
}

async fn carry_out(shell: &mut Shell, kind: Kind, arguments: Vec<String>) -> Step {
    let operands = &arguments[1..];
    match kind {
        Kind::Colon | Kind::Hash | Kind::Shopt | Kind::Times => Ok(0),
        Kind::False => Ok(1),
        Kind::Echo => shell.echo(operands).await,
        Kind::Printf => shell.printf(operands).await,
        Kind::Test => {
            let holds = super::conditions::test_builtin(shell, &arguments).await;
            Ok(holds)
        }
        Kind::Cd => shell.cd(operands).await,
        Kind::Pwd => {
            let line = format!("{}\n", shell.cwd);
            shell.print(&line).await
        }
        Kind::Exit => Err(Interrupt::Exit(shell.status_operand(operands))),
        Kind::Return => Err(Interrupt::Return(shell.status_operand(operands))),
        Kind::Break => Err(Interrupt::Break(levels(operands))),
        Kind::Continue => Err(Interrupt::Continue(levels(operands))),
        Kind::Export => shell.export(operands).await,
        Kind::Readonly => shell.readonly(operands).await,
        Kind::Local => shell.local(operands).await,
        Kind::Unset => Ok(shell.unset(operands)),
        Kind::Set => shell.set_builtin(operands).await,
        Kind::Shift => {
            let count = operands.first().map_or(Ok(1), |count| count.parse::<usize>());
            match count {
                Ok(count) if count <= shell.positional.len() => {
                    shell.positional.drain(..count);
                    Ok(0)
                }
                _ => Ok(1),
            }
        }
        Kind::Let => {
            let mut value = 0;
            for expression in operands {
                value = shell.arithmetic(expression).await?;
            }
            Ok(ExitStatus::from(value == 0))
        }
        Kind::Eval => {
            let text = operands.join(" ");
            shell.aside(|shell| async move { shell.run_text(&text).await }.boxed()).await
        }
        Kind::Source => shell.source(operands).await,
        Kind::Exec => shell.exec(operands).await,
        Kind::Command => shell.command_builtin(operands).await,
        Kind::Type => shell.type_builtin(operands).await,
        Kind::Read => shell.read_builtin(operands).await,
        Kind::Getopts => shell.getopts(operands).await,
        Kind::Wait => shell.wait_builtin(operands).await,
        Kind::Jobs => {
            let lines: String = shell.jobs.listing().into_iter().map(|line| line + "\n").collect();
            shell.print(&lines).await
        }
        Kind::Kill => shell.kill(operands).await,
        Kind::Trap => shell.trap_builtin(operands).await,
        Kind::Ulimit => shell.print("unlimited\n").await,
        Kind::Umask => match operands {
            [] => shell.print("0022\n").await,
            _ => Ok(0),
        },
    }
}

fn levels(operands: &[String]) -> usize {
    operands.first().and_then(|count| count.parse().ok()).unwrap_or(1).max(1)
}

impl Shell {
    fn status_operand(&self, operands: &[String]) -> ExitStatus {
        match operands.first().map(|status| status.parse::<i64>()) {
            None => self.status,
            Some(Ok(status)) => (status & 0xff) as ExitStatus,
            Some(Err(_)) => 2,
        }
    }

    async fn print_bytes(&mut self, bytes: &[u8]) -> Step {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.print(text).await,
            Err(_) => {
                let Some(Descriptor::Output(output)) = self.descriptors.get(&1) else { return Ok(1) };
                let mut output = output.clone();
                match tokio::io::AsyncWriteExt::write_all(&mut output, bytes).await {
                    Ok(()) => Ok(0),
                    Err(_) => Err(Interrupt::Exit(141)),
                }
            }
        }
    }

    async fn echo(&mut self, operands: &[String]) -> Step {
        let (bytes, newline) = print::echo(operands);
        let mut bytes = bytes;
        if newline {
            bytes.push(b'\n');
        }
        self.print_bytes(&bytes).await
    }

    async fn printf(&mut self, operands: &[String]) -> Step {
        let (target, operands) = match operands {
            [option, name, rest @ ..] if option == "-v" => (Some(name.clone()), rest),
            rest => (None, rest),
        };
        let Some((format, values)) = operands.split_first() else {
            self.complain("printf: usage: printf format [arguments]").await;
            return Ok(2);
        };
        let (bytes, errors) = print::printf(format, values);
        let step = match target {
            Some(name) => {
                self.assign(&name, Value::Scalar(String::from_utf8_lossy(&bytes).into_owned())).await?;
                0
            }
            None => self.print_bytes(&bytes).await?,
        };
        for error in &errors {
            self.complain(&format!("printf: {error}")).await;
        }
        Ok(if errors.is_empty() { step } else { 1 })
    }

    async fn cd(&mut self, operands: &[String]) -> Step {
        let target = match operands.iter().find(|operand| !matches!(operand.as_str(), "-P" | "-L" | "--")) {
            None => self.lookup("HOME").unwrap_or_else(|| "/root".to_owned()),
            Some(dash) if dash == "-" => self.lookup("OLDPWD").unwrap_or_else(|| self.cwd.clone()),
            Some(path) => path.clone(),
        };
        let path = resolve(&self.cwd, &target);
        let always_there = matches!(
            path.as_str(),
            "/" | "/root" | "/tmp" | "/home" | "/bin" | "/usr" | "/var" | "/etc" | "/dev" | "/run"
        );
        match self.world.files.kind(&path) {
            Some(FileKind::Directory) => {}
            None if always_there => {}
            Some(FileKind::File { .. }) => {
                self.complain(&format!("cd: can't cd to {target}: Not a directory")).await;
                return Ok(1);
            }
            None => {
                self.complain(&format!("cd: can't cd to {target}: No such file or directory")).await;
                return Ok(1);
            }
        }
        let old = std::mem::replace(&mut self.cwd, path.clone());
        self.variables.insert("OLDPWD".to_owned(), Variable::exported(old));
        self.variables.insert("PWD".to_owned(), Variable::exported(path.clone()));
        if operands.iter().any(|operand| operand == "-") {
            return self.print(&format!("{path}\n")).await;
        }
        Ok(0)
    }

    async fn source(&mut self, operands: &[String]) -> Step {
        let Some((file, values)) = operands.split_first() else {
            self.complain(".: filename argument required").await;
            return Ok(2);
        };
        let text = match self.world.files.read(&resolve(&self.cwd, file)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                return Err(self.mistake(&format!(".: can't open '{file}': {}", stdio::reason(&error))).await);
            }
        };
        let saved = (!values.is_empty()).then(|| std::mem::replace(&mut self.positional, values.to_vec()));
        let step = self.aside(|shell| async move { shell.run_text(&text).await }.boxed()).await;
        if let Some(saved) = saved {
            self.positional = saved;
        }
        match step {
            Err(Interrupt::Return(status)) => Ok(status),
            other => other,
        }
    }

    async fn exec(&mut self, operands: &[String]) -> Step {
        let operands = match operands {
            [option, _, rest @ ..] if option == "-a" => rest,
            rest => rest,
        };
        let Some(name) = operands.first() else { return Ok(0) };
        let status = self.start_program(self.external(name), operands.to_vec(), !self.interactive).await?;
        Err(Interrupt::Exit(status))
    }

    async fn command_builtin(&mut self, operands: &[String]) -> Step {
        match operands {
            [option, names @ ..] if option == "-v" || option == "-V" => {
                let mut status = 0;
                for name in names {
                    let line = match self.meaning(name) {
                        Meaning::Function | Meaning::Builtin(_) => Some(name.clone()),
                        Meaning::Program(_) => Some(program_path(name)),
                        Meaning::Script(path) => Some(path),
                        Meaning::NotExecutable(_) | Meaning::NotFound => None,
                    };
                    match line {
                        Some(line) => {
                            self.print(&format!("{line}\n")).await?;
                        }
                        None => status = 127,
                    }
                }
                Ok(status)
            }
            [option, rest @ ..] if option == "-p" => self.invoke_plain(rest).await,
            operands => self.invoke_plain(operands).await,
        }
    }

    async fn invoke_plain(&mut self, operands: &[String]) -> Step {
        let Some(name) = operands.first() else { return Ok(0) };
        match kind(name) {
            Some(kind) => run(self, kind, operands.to_vec()).await,
            None => self.start_program(self.external(name), operands.to_vec(), false).await,
        }
    }

    async fn type_builtin(&mut self, names: &[String]) -> Step {
        let mut status = 0;
        for name in names {
            let line = match self.meaning(name) {
                Meaning::Function => format!("{name} is a function\n"),
                Meaning::Builtin(_) => format!("{name} is a shell builtin\n"),
                Meaning::Program(_) => format!("{name} is {}\n", program_path(name)),
                Meaning::Script(path) => format!("{name} is {path}\n"),
                Meaning::NotExecutable(_) | Meaning::NotFound => {
                    status = 127;
                    format!("{name}: not found\n")
                }
            };
            self.print(&line).await?;
        }
        Ok(status)
    }
}

/// Where a built-in program is said to be.
fn program_path(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/bin/{name}") }
}
