//! Commands that the shell itself carries out.

use super::expand::quoted;
use super::invoke::Meaning;
use super::jobs::{SIGNALS, signal_number};
use super::variables::{Value, Variable, is_name};
use super::{Descriptor, Interrupt, Shell, Step};
use crate::files::{Kind as FileKind, resolve};
use crate::program::ExitStatus;
use crate::programs::options::duration;
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

/// Longest line that `read` takes, in bytes.
const LINE: usize = 1 << 20;

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

    async fn assign_operand(&mut self, operand: &str) -> Result<Option<String>, Interrupt> {
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

    async fn export(&mut self, operands: &[String]) -> Step {
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

    async fn readonly(&mut self, operands: &[String]) -> Step {
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

    async fn local(&mut self, operands: &[String]) -> Step {
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

    fn unset(&mut self, operands: &[String]) -> ExitStatus {
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

    async fn set_builtin(&mut self, operands: &[String]) -> Step {
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

    async fn read_builtin(&mut self, operands: &[String]) -> Step {
        let mut raw = false;
        let mut limit = LINE;
        let mut timeout = None;
        let mut array = false;
        let mut names = Vec::new();
        let mut rest = operands.iter();
        while let Some(operand) = rest.next() {
            match operand.as_str() {
                "-r" => raw = true,
                "-s" => {}
                "-a" => array = true,
                "-p" => {
                    let prompt = rest.next().cloned().unwrap_or_default();
                    if self.world.tty {
                        self.print_error(&prompt).await;
                    }
                }
                "-n" => limit = rest.next().and_then(|count| count.parse().ok()).unwrap_or(1),
                "-t" => timeout = rest.next().and_then(|text| duration(text)),
                "-d" | "-u" => {
                    rest.next();
                }
                name => names.push(name.to_owned()),
            }
        }
        let Some(Descriptor::Input(input)) = self.descriptors.get(&0) else { return Ok(1) };
        let mut input = input.clone();
        let mut text = String::new();
        let mut ended = false;
        loop {
            let line = async {
                match timeout {
                    Some(timeout) => tokio::time::timeout(timeout, input.line(limit)).await.unwrap_or(Ok(None)),
                    None => input.line(limit).await,
                }
            };
            let line = tokio::select! {
                line = line => line,
                signal = arrived(&mut self.signals) => {
                    self.trap(signal).await?;
                    continue;
                }
            };
            let Ok(Some(line)) = line else {
                ended = true;
                break;
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            match line.strip_suffix('\n') {
                Some(line) if !raw && line.ends_with('\\') && !line.ends_with("\\\\") => {
                    text.push_str(&line[..line.len() - 1]);
                    continue;
                }
                Some(line) => text.push_str(line),
                None => {
                    text.push_str(&line);
                    ended = limit == LINE;
                }
            }
            break;
        }
        if !raw && text.contains('\\') {
            text = without_backslashes(&text);
        }
        let separators = self.lookup("IFS").unwrap_or_else(|| " \t\n".to_owned());
        if array {
            let mut fields = super::fields::Fields::split_by(separators);
            fields.expansion(&text, false);
            let items = fields.into_arguments(&self.world.files, "/", false);
            let name = names.first().cloned().unwrap_or_else(|| "REPLY".to_owned());
            self.assign(&name, Value::Array(items)).await?;
        } else if names.is_empty() {
            self.assign("REPLY", Value::Scalar(text)).await?;
        } else {
            for (name, value) in names.iter().zip(read_fields(&text, &separators, names.len())) {
                self.assign(name, Value::Scalar(value)).await?;
            }
        }
        Ok(ExitStatus::from(ended))
    }

    async fn getopts(&mut self, operands: &[String]) -> Step {
        let [specification, name, values @ ..] = operands else {
            self.complain("getopts: usage: getopts optstring var [arg]").await;
            return Ok(2);
        };
        let values = if values.is_empty() { self.positional.clone() } else { values.to_vec() };
        let index = self.lookup("OPTIND").and_then(|index| index.parse::<usize>().ok()).unwrap_or(1).max(1);
        let argument = values.get(index - 1).cloned().unwrap_or_default();
        let cluster = argument.strip_prefix('-').filter(|cluster| !cluster.is_empty() && *cluster != "-");
        let Some(cluster) = cluster else {
            if argument == "--" {
                self.set("OPTIND", Value::Scalar((index + 1).to_string()));
            }
            self.option_offset = 0;
            self.assign(name, Value::Scalar("?".to_owned())).await?;
            return Ok(1);
        };
        let letters: Vec<char> = cluster.chars().collect();
        let offset = self.option_offset.min(letters.len() - 1);
        let letter = letters[offset];
        let mut next_index = if offset + 1 < letters.len() { index } else { index + 1 };
        self.option_offset = if offset + 1 < letters.len() { offset + 1 } else { 0 };
        let silent = specification.starts_with(':');
        let known = letter != ':' && specification.contains(letter);
        let mut result = letter.to_string();
        self.set("OPTARG", Value::Unset);
        if !known {
            result = "?".to_owned();
            if silent {
                self.set("OPTARG", Value::Scalar(letter.to_string()));
            } else {
                self.complain(&format!("illegal option -- {letter}")).await;
            }
        } else if specification.contains(&format!("{letter}:")) {
            let inline: String = letters[offset + 1..].iter().collect();
            self.option_offset = 0;
            next_index = index + 1;
            if !inline.is_empty() {
                self.set("OPTARG", Value::Scalar(inline));
            } else if let Some(value) = values.get(index) {
                self.set("OPTARG", Value::Scalar(value.clone()));
                next_index = index + 2;
            } else if silent {
                self.set("OPTARG", Value::Scalar(letter.to_string()));
                result = ":".to_owned();
            } else {
                self.complain(&format!("option requires an argument -- {letter}")).await;
                result = "?".to_owned();
            }
        }
        self.set("OPTIND", Value::Scalar(next_index.to_string()));
        self.assign(name, Value::Scalar(result)).await?;
        Ok(0)
    }

    async fn wait_builtin(&mut self, operands: &[String]) -> Step {
        let all = operands.iter().all(|operand| operand.starts_with("-"));
        let pids: Vec<u32> = if all {
            self.jobs.pids()
        } else {
            operands.iter().map(|operand| self.jobs.pid(operand).unwrap_or(0)).collect()
        };
        let mut status = 0;
        for pid in pids {
            status = self.wait_for(pid).await?;
            if operands.iter().any(|operand| operand == "-n") {
                return Ok(status);
            }
        }
        Ok(if all { 0 } else { status })
    }

    async fn kill(&mut self, operands: &[String]) -> Step {
        let mut signal = 15;
        let mut rest = operands.iter().peekable();
        while let Some(option) = rest.next_if(|operand| operand.starts_with('-') && operand.len() > 1) {
            let name = match option.as_str() {
                "-l" => {
                    let names: Vec<String> =
                        SIGNALS.iter().map(|(name, number)| format!("{number:2}) {name}\n")).collect();
                    return self.print(&names.concat()).await;
                }
                "--" => break,
                "-s" => rest.next().cloned().unwrap_or_default(),
                name => name[1..].to_owned(),
            };
            match signal_number(&name) {
                Some(number) => signal = number,
                None => {
                    self.complain(&format!("kill: bad signal name '{name}'")).await;
                    return Ok(1);
                }
            }
        }
        let mut status = 0;
        for operand in rest {
            if let Some(pid) = self.jobs.pid(operand)
                && self.jobs.signal(pid, signal)
            {
                continue;
            }
            let sent = match operand.parse::<u32>() {
                Ok(pid) => self.world.programs.kill(pid, signal),
                Err(_) => {
                    self.complain(&format!("kill: invalid number '{operand}'")).await;
                    status = 1;
                    continue;
                }
            };
            if let Err(error) = sent {
                let why = match error.kind() {
                    std::io::ErrorKind::NotFound => "No such process".to_owned(),
                    _ => stdio::reason(&error),
                };
                self.complain(&format!("kill: can't kill pid {operand}: {why}")).await;
                status = 1;
            }
        }
        Ok(status)
    }

    async fn trap_builtin(&mut self, operands: &[String]) -> Step {
        let operands = match operands {
            [dashes, rest @ ..] if dashes == "--" => rest,
            rest => rest,
        };
        let name = |number: i32| match SIGNALS.iter().find(|(_, known)| *known == number) {
            _ if number == 0 => "EXIT".to_owned(),
            Some((name, _)) => (*name).to_owned(),
            None => number.to_string(),
        };
        let Some((command, signals)) = operands.split_first() else {
            let lines: String = self
                .traps
                .lock()
                .iter()
                .filter(|(number, _)| **number >= 0)
                .map(|(number, command)| format!("trap -- {} {}\n", quoted(command), name(*number)))
                .collect();
            return self.print(&lines).await;
        };
        // `trap INT` and `trap - INT` both mean the default.
        let (command, signals) = match (signals.is_empty(), command.as_str()) {
            (true, _) => (None, operands),
            (false, "-") => (None, signals),
            (false, command) => (Some(command.to_owned()), signals),
        };
        let mut status = 0;
        for operand in signals {
            let Some(number) = signal_number(operand) else {
                if matches!(operand.as_str(), "ERR" | "DEBUG" | "RETURN") {
                    continue;
                }
                self.complain(&format!("trap: {operand}: invalid signal specification")).await;
                status = 1;
                continue;
            };
            match &command {
                Some(command) => self.traps.lock().insert(number, command.clone()),
                None => self.traps.lock().remove(&number),
            };
        }
        Ok(status)
    }
}

/// The next signal.
async fn arrived(signals: &mut tokio::sync::watch::Receiver<i32>) -> i32 {
    if signals.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *signals.borrow_and_update()
}

/// Where a built-in program is said to be.
fn program_path(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/bin/{name}") }
}

/// A backslash in what `read` reads makes the next character stand for itself.
fn without_backslashes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.extend(chars.next()),
            c => plain.push(c),
        }
    }
    plain
}

/// Splits what `read` read: the last name gets all that is left.
fn read_fields(text: &str, separators: &str, count: usize) -> Vec<String> {
    let is_space = |c: char| c.is_ascii_whitespace() && separators.contains(c);
    let is_separator = |c: char| separators.contains(c);
    let mut rest = text.trim_start_matches(is_space);
    let mut values = Vec::new();
    while values.len() + 1 < count {
        match rest.find(is_separator) {
            None => {
                values.push(rest.to_owned());
                rest = "";
            }
            Some(at) => {
                values.push(rest[..at].to_owned());
                rest = rest[at..].trim_start_matches(is_space);
                if let Some(next) = rest.chars().next()
                    && is_separator(next)
                {
                    rest = rest[next.len_utf8()..].trim_start_matches(is_space);
                }
            }
        }
    }
    values.push(rest.trim_end_matches(is_space).to_owned());
    values
}
