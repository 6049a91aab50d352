//! Simple commands: assignments, expansion, redirections, then a builtin, a function or a program.

use super::builtins::{self, Kind};
use super::expand::{Quoting, quoted};
use super::run::interrupted;
use super::variables::{Value, Variable};
use super::{Descriptor, Interrupt, REPLACED, Shell, Step};
use crate::files::{Kind as FileKind, resolve};
use crate::program::{Container, Program};
use crate::programs::stdio::{SharedInput, SharedOutput};
use brush_parser::ast::{
    Assignment, AssignmentName, AssignmentValue, CommandPrefixOrSuffixItem as Item, IoRedirect, SimpleCommand,
};
use std::sync::Arc;

/// What a command's name means.
pub(super) enum Meaning {
    Function,
    Builtin(Kind),
    Program(Arc<dyn Program>),
    /// A script in the file tree, by its path.
    Script(String),
    /// 126: it is there but cannot be run.
    NotExecutable(&'static str),
    NotFound,
}

impl Shell {
    /// Runs a simple command; `last`: nothing follows, so that a program may take the shell's place.
    pub(super) async fn simple(&mut self, command: &SimpleCommand, last: bool) -> Step {
        let mut assignments: Vec<&Assignment> = Vec::new();
        let mut redirects: Vec<&IoRedirect> = Vec::new();
        let mut arguments = Vec::new();
        self.substitution = None;
        for item in command.prefix.iter().flat_map(|prefix| &prefix.0) {
            match item {
                Item::AssignmentWord(assignment, _) => assignments.push(assignment),
                Item::IoRedirect(redirect) => redirects.push(redirect),
                Item::Word(word) => self.expand_word(&word.value, &mut arguments).await?,
                Item::ProcessSubstitution(..) => {
                    return Err(self.mistake("process substitution is not supported").await);
                }
            }
        }
        if let Some(name) = &command.word_or_name {
            self.expand_word(&name.value, &mut arguments).await?;
        }
        let declares = matches!(
            arguments.first().map(String::as_str),
            Some("export" | "readonly" | "local" | "declare" | "typeset")
        );
        for item in command.suffix.iter().flat_map(|suffix| &suffix.0) {
            match item {
                Item::IoRedirect(redirect) => redirects.push(redirect),
                Item::Word(word) => self.expand_word(&word.value, &mut arguments).await?,
                Item::AssignmentWord(assignment, _) if declares => {
                    arguments.push(self.declaration(assignment).await?);
                }
                Item::AssignmentWord(_, word) => self.expand_word(&word.value, &mut arguments).await?,
                Item::ProcessSubstitution(..) => {
                    return Err(self.mistake("process substitution is not supported").await);
                }
            }
        }
        // Redirections of `exec` without a command stay.
        let keeps = arguments.len() == 1 && arguments[0] == "exec";
        let saved = if redirects.is_empty() || keeps { None } else { Some(self.descriptors.clone()) };
        let step = match self.redirect(redirects.into_iter()).await {
            Ok(()) => self.assign_and_invoke(&assignments, arguments, last).await,
            Err(step) => step,
        };
        if let Some(saved) = saved {
            self.descriptors = saved;
        }
        step
    }

    async fn assign_and_invoke(&mut self, assignments: &[&Assignment], arguments: Vec<String>, last: bool) -> Step {
        if arguments.is_empty() {
            for assignment in assignments {
                self.perform(assignment, false).await?;
            }
            return Ok(self.substitution.take().unwrap_or(0));
        }
        let mut before: Vec<(String, Option<Variable>)> = Vec::new();
        for assignment in assignments {
            let (AssignmentName::VariableName(name) | AssignmentName::ArrayElementName(name, _)) = &assignment.name;
            before.push((name.clone(), self.variables.get(name).cloned()));
            self.perform(assignment, true).await?;
        }
        let step = self.invoke(arguments, last).await;
        for (name, variable) in before.into_iter().rev() {
            match variable {
                Some(variable) => self.variables.insert(name, variable),
                None => self.variables.remove(&name),
            };
        }
        step
    }

    /// Performs one assignment.
    async fn perform(&mut self, assignment: &Assignment, export: bool) -> Result<(), Interrupt> {
        let mut shown = String::new();
        match (&assignment.name, &assignment.value) {
            (AssignmentName::VariableName(name), AssignmentValue::Scalar(word)) => {
                let mut value = self.expand_to_string(&word.value, Quoting::Unquoted).await?;
                if assignment.append {
                    value.insert_str(0, &self.lookup(name).unwrap_or_default());
                }
                if self.settings.trace {
                    shown = format!("{name}={value}");
                }
                self.assign(name, Value::Scalar(value)).await?;
                if export && let Some(variable) = self.variables.get_mut(name) {
                    variable.exported = true;
                }
            }
            (AssignmentName::VariableName(name), AssignmentValue::Array(words)) => {
                let mut items = if assignment.append { self.elements(name) } else { Vec::new() };
                for (key, word) in words {
                    match key {
                        None => self.expand_word(&word.value, &mut items).await?,
                        Some(key) => {
                            let value = self.expand_to_string(&word.value, Quoting::Unquoted).await?;
                            let index = self.arithmetic(&key.value).await?;
                            self.assign(name, Value::Array(std::mem::take(&mut items))).await?;
                            self.assign_element(name, index, value, false).await?;
                            items = self.elements(name);
                        }
                    }
                }
                self.assign(name, Value::Array(items)).await?;
            }
            (AssignmentName::ArrayElementName(name, index), AssignmentValue::Scalar(word)) => {
                let value = self.expand_to_string(&word.value, Quoting::Unquoted).await?;
                let index = self.arithmetic(index).await?;
                self.assign_element(name, index, value, assignment.append).await?;
            }
            (AssignmentName::ArrayElementName(name, _), AssignmentValue::Array(_)) => {
                return Err(self.mistake(&format!("{name}: cannot assign a list to an element")).await);
            }
        }
        if !shown.is_empty() {
            self.trace_line(&shown).await;
        }
        Ok(())
    }

    /// `NAME=value` as an argument of `export` and its like: expanded, not split.
    async fn declaration(&mut self, assignment: &Assignment) -> Result<String, Interrupt> {
        match (&assignment.name, &assignment.value) {
            (AssignmentName::VariableName(name), AssignmentValue::Scalar(word)) => {
                let value = self.expand_to_string(&word.value, Quoting::Unquoted).await?;
                Ok(format!("{name}={value}"))
            }
            (AssignmentName::VariableName(name), AssignmentValue::Array(_)) => {
                self.hide(name);
                self.perform(assignment, false).await?;
                Ok(name.clone())
            }
            (AssignmentName::ArrayElementName(name, _), _) => {
                self.perform(assignment, false).await?;
                Ok(name.clone())
            }
        }
    }

    async fn trace_line(&mut self, text: &str) {
        let prefix = self.lookup("PS4").unwrap_or_default();
        self.print_error(&format!("{prefix}{text}\n")).await;
    }

    /// Runs a command by its expanded arguments.
    pub(super) async fn invoke(&mut self, arguments: Vec<String>, last: bool) -> Step {
        if self.settings.trace {
            let words: Vec<String> = arguments.iter().map(|word| traced(word)).collect();
            self.trace_line(&words.join(" ")).await;
        }
        match self.meaning(&arguments[0]) {
            Meaning::Builtin(kind) => builtins::run(self, kind, arguments).await,
            Meaning::Function => match self.functions.get(&arguments[0]).cloned() {
                Some(body) => self.call(body, arguments[1..].to_vec()).await,
                None => Ok(127),
            },
            meaning => self.start_program(meaning, arguments, last && !self.interactive).await,
        }
    }

    /// What a name means as a command.
    pub(super) fn meaning(&self, name: &str) -> Meaning {
        if self.functions.contains_key(name) {
            return Meaning::Function;
        }
        match builtins::kind(name) {
            Some(kind) => Meaning::Builtin(kind),
            None => self.external(name),
        }
    }

    /// What a name means to `exec`, `command` and `env`: not a function or a builtin.
    pub(super) fn external(&self, name: &str) -> Meaning {
        if name.is_empty() {
            return Meaning::NotFound;
        }
        let files = &self.world.files;
        if name.contains('/') {
            let path = resolve(&self.cwd, name);
            return match files.kind(&path) {
                Some(FileKind::File { mode, .. }) if mode & 0o111 != 0 => Meaning::Script(path),
                Some(FileKind::File { .. } | FileKind::Directory) => Meaning::NotExecutable("Permission denied"),
                None => match self.world.programs.program(&path) {
                    Some(program) => Meaning::Program(program),
                    None => Meaning::NotFound,
                },
            };
        }
        let search = self.variables.get("PATH").and_then(|path| path.scalar()).unwrap_or("/bin");
        for directory in search.split(':') {
            let path = resolve(&self.cwd, &format!("{directory}/{name}"));
            if matches!(files.kind(&path), Some(FileKind::File { mode, .. }) if mode & 0o111 != 0) {
                return Meaning::Script(path);
            }
        }
        match self.world.programs.program(name) {
            Some(program) => Meaning::Program(program),
            None => Meaning::NotFound,
        }
    }

    /// Runs a program or script in the foreground; `replace`: as `exec` does.
    pub(super) async fn start_program(&mut self, meaning: Meaning, arguments: Vec<String>, replace: bool) -> Step {
        let name = arguments[0].clone();
        match meaning {
            Meaning::Program(program) => self.run_program_of(program, arguments, replace).await,
            Meaning::Script(path) => {
                let first_line = match self.world.files.read(&path) {
                    Ok(bytes) => {
                        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
                        String::from_utf8_lossy(&line[..line.len().min(256)]).into_owned()
                    }
                    Err(_) => String::new(),
                };
                let interpreter = first_line.strip_prefix("#!").map(str::trim).unwrap_or("/bin/sh");
                let mut words = interpreter.split_whitespace();
                let mut command = words.next().unwrap_or("/bin/sh").to_owned();
                let mut extra: Vec<String> = words.map(str::to_owned).collect();
                if command.ends_with("/env") && !extra.is_empty() {
                    command = extra.remove(0);
                }
                match self.world.programs.program(&command) {
                    Some(program) => {
                        let mut with_script = vec![command];
                        with_script.extend(extra);
                        with_script.push(path);
                        with_script.extend(arguments.into_iter().skip(1));
                        self.run_program_of(program, with_script, replace).await
                    }
                    None => {
                        self.complain(&format!("{name}: not found")).await;
                        Ok(127)
                    }
                }
            }
            Meaning::NotExecutable(why) => {
                self.complain(&format!("{name}: {why}")).await;
                Ok(126)
            }
            Meaning::Function | Meaning::Builtin(_) | Meaning::NotFound => {
                self.complain(&format!("{name}: not found")).await;
                Ok(127)
            }
        }
    }

    fn input(&self) -> SharedInput {
        match self.descriptors.get(&0) {
            Some(Descriptor::Input(input)) => input.clone(),
            _ => SharedInput::null(),
        }
    }

    fn output(&self, number: i32) -> SharedOutput {
        match self.descriptors.get(&number) {
            Some(Descriptor::Output(output)) => output.clone(),
            _ => SharedOutput::null(),
        }
    }

    async fn run_program_of(&mut self, program: Arc<dyn Program>, args: Vec<String>, replace: bool) -> Step {
        let handles_signals = program.handles_signals();
        let signals = if replace || self.interactive { self.signals.clone() } else { self.world.quiet.subscribe() };
        if replace && handles_signals {
            self.traps.lock().insert(REPLACED, String::new());
        }
        let container = Container {
            args,
            env: self.environment(),
            cwd: self.cwd.clone(),
            stdin: Box::new(self.input()),
            stdout: Box::new(self.output(1)),
            stderr: Box::new(self.output(2)),
            tty: self.world.tty,
            window: self.world.window.clone(),
            host: self.world.host.clone(),
            files: self.world.files.clone(),
            hostname: self.world.hostname.clone(),
            programs: self.world.programs.clone(),
            signals,
        };
        if replace {
            // Nothing here holds the streams any longer: a pipe ends when the program lets go of it.
            self.descriptors.clear();
        }
        if !self.interactive || handles_signals {
            return Ok(program.run(container).await);
        }
        tokio::select! {
            status = program.run(container) => Ok(status),
            () = interrupted(&mut self.signals) => Err(Interrupt::Abandon(130)),
        }
    }
}

/// A word as `set -x` shows it.
fn traced(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || "_-+=./:,@%^".contains(c));
    if plain { word.to_owned() } else { quoted(word) }
}
