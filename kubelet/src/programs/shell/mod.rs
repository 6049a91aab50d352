//! `sh`: a POSIX shell with the bash extensions that scripts in manifests use.
//!
//! [`brush_parser`] parses; this folder interprets over a [`Container`]: [`run`] commands, [`expand`] words, [`redirect`] descriptors,
//! [`builtins`], [`jobs`], and [`interactive`] use. Programs are looked up in the container and run as futures with their own
//! standard streams; subshells, pipeline members and function bodies run as tasks that are aborted when the shell is dropped. Every
//! command spends from the task's budget, so a busy loop leaves room for others and can be killed.
//!
//! Not here: aliases, job control with `fg`/`bg`, coprocesses, process substitution.

mod arithmetic;
mod braces;
mod builtins;
mod conditions;
mod expand;
mod fields;
mod interactive;
mod invoke;
pub(crate) mod jobs;
mod parameter;
pub(crate) mod pattern;
mod redirect;
mod run;
mod source;
mod variables;

#[cfg(test)]
mod tests;

pub(crate) use conditions::test;

use super::stdio::{SharedInput, SharedOutput};
use crate::files::Files;
use crate::program::{Container, ExitStatus, Program, Programs};
use async_trait::async_trait;
use brush_parser::ast;
use jobs::Jobs;
use netstack::Host;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use variables::Variable;

/// Functions, subshells and `eval` within one another.
const NESTING: usize = 200;

/// The shell as a program.
pub(crate) struct Sh;

/// What a command ends with, unless something interrupts the list it is in.
type Step = Result<ExitStatus, Interrupt>;

/// Why a list of commands ends early.
#[derive(Debug)]
enum Interrupt {
    Break(usize),
    Continue(usize),
    Return(ExitStatus),
    Exit(ExitStatus),
    /// An error or Ctrl-C: a script ends, an interactive shell shows its prompt.
    Abandon(ExitStatus),
}

/// An open descriptor.
#[derive(Clone)]
enum Descriptor {
    Input(SharedInput),
    Output(SharedOutput),
}

/// What a shell shares with its subshells.
struct World {
    host: Host,
    files: Files,
    hostname: String,
    programs: Arc<dyn Programs>,
    tty: bool,
    window: watch::Receiver<crate::program::TerminalSize>,
    next_pid: AtomicU32,
    /// Never sends: programs of a script get signals from nobody.
    quiet: watch::Sender<i32>,
}

/// Commands for signals, by number; 0 is `EXIT`. An empty command ignores the signal.
type Traps = Arc<Mutex<BTreeMap<i32, String>>>;

/// `set` options.
#[derive(Clone, Copy, Default)]
struct Settings {
    exit_on_error: bool,
    trace: bool,
    unset_is_error: bool,
    no_globbing: bool,
    pipe_fail: bool,
    no_execution: bool,
}

/// A shell or subshell.
struct Shell {
    world: Arc<World>,
    /// `$0`, also the prefix of messages.
    name: String,
    pid: u32,
    variables: HashMap<String, Variable>,
    /// What `local` hid, innermost function last.
    hidden: Vec<HashMap<String, Option<Variable>>>,
    functions: HashMap<String, Arc<ast::FunctionBody>>,
    positional: Vec<String>,
    status: ExitStatus,
    /// Status of the last command substitution of the command being expanded.
    substitution: Option<ExitStatus>,
    settings: Settings,
    /// Above 0 in conditions, where `set -e` does not apply.
    unchecked: usize,
    descriptors: BTreeMap<i32, Descriptor>,
    cwd: String,
    traps: Traps,
    signals: watch::Receiver<i32>,
    interactive: bool,
    jobs: Jobs,
    nesting: usize,
    /// State of `$RANDOM`.
    random: u32,
    /// Position inside an option cluster of `getopts`.
    option_offset: usize,
}

#[async_trait]
impl Program for Sh {
    async fn run(&self, container: Container) -> ExitStatus {
        let mut signals = container.signals.clone();
        let (shell, start) = match Shell::start(container) {
            Ok(started) => started,
            Err(refused) => {
                let (mut container, message) = *refused;
                container.complain(format!("sh: {message}")).await;
                return 2;
            }
        };
        let traps = shell.traps.clone();
        let interactive = shell.interactive;
        tokio::select! {
            biased;
            status = shell.main(start) => status,
            signal = untrapped(&mut signals, &traps, interactive) => 128 + signal,
        }
    }

    fn handles_signals(&self) -> bool {
        true
    }
}

/// Waits for a signal that ends the shell.
async fn untrapped(signals: &mut watch::Receiver<i32>, traps: &Traps, interactive: bool) -> i32 {
    loop {
        if signals.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let signal = *signals.borrow_and_update();
        let harmless = matches!(signal, 0 | 17 | 18 | 23 | 28) || (interactive && signal == 2);
        if !harmless && !traps.lock().contains_key(&signal) && !traps.lock().contains_key(&REPLACED) {
            return signal;
        }
    }
}

/// A trap number that no signal has: `exec` replaced the shell by a program that watches signals itself.
const REPLACED: i32 = -1;

/// What a shell is to run.
enum Start {
    Command(String),
    Script(String),
    Stdin,
    Interactive,
}

impl Shell {
    /// Reads the command line. An error gives the container back to complain on.
    fn start(container: Container) -> Result<(Shell, Start), Box<(Container, String)>> {
        let mut settings = Settings::default();
        let mut command = false;
        let mut from_stdin = false;
        let mut interactive = false;
        let mut args = container.args.iter().skip(1).cloned().peekable();
        while let Some(option) = args.next_if(|arg| arg.len() > 1 && arg.starts_with(['-', '+'])) {
            if option == "--" {
                break;
            }
            if option.starts_with("--") {
                continue; // --login, --norc, --posix: nothing to do
            }
            for letter in option[1..].chars() {
                match letter {
                    'c' => command = true,
                    's' => from_stdin = true,
                    'i' => interactive = true,
                    'l' => {}
                    'o' => {
                        let name = args.next().unwrap_or_default();
                        if !settings.set_named(&name, option.starts_with('-')) {
                            return Err(Box::new((container, format!("{option}: illegal option {name}"))));
                        }
                    }
                    letter if settings.set(letter, option.starts_with('-')) => {}
                    letter => return Err(Box::new((container, format!("illegal option -{letter}")))),
                }
            }
        }
        let mut operands: Vec<String> = args.collect();
        let mut name = container.args.first().cloned().unwrap_or_else(|| "sh".to_owned());
        name = name.rsplit('/').next().unwrap_or("sh").to_owned();
        let start = if command {
            if operands.is_empty() {
                return Err(Box::new((container, "-c requires an argument".to_owned())));
            }
            let text = operands.remove(0);
            if !operands.is_empty() {
                name = operands.remove(0);
            }
            Start::Command(text)
        } else if !operands.is_empty() && !from_stdin {
            name = operands.remove(0);
            Start::Script(name.clone())
        } else if container.tty || interactive {
            Start::Interactive
        } else {
            Start::Stdin
        };
        let mut shell = Shell::new(container, name, operands);
        shell.settings = settings;
        shell.interactive = matches!(start, Start::Interactive);
        Ok((shell, start))
    }

    fn new(container: Container, name: String, positional: Vec<String>) -> Shell {
        let random = super::stdio::seed((&container.hostname, &container.args)) as u32;
        let world = World {
            host: container.host,
            files: container.files,
            hostname: container.hostname,
            programs: container.programs,
            tty: container.tty,
            window: container.window.clone(),
            next_pid: AtomicU32::new(7),
            quiet: watch::channel(0).0,
        };
        let descriptors = BTreeMap::from([
            (0, Descriptor::Input(SharedInput::new(container.stdin))),
            (1, Descriptor::Output(SharedOutput::new(container.stdout))),
            (2, Descriptor::Output(SharedOutput::new(container.stderr))),
        ]);
        let mut shell = Shell {
            world: Arc::new(world),
            name,
            pid: 1,
            variables: HashMap::new(),
            hidden: Vec::new(),
            functions: HashMap::new(),
            positional,
            status: 0,
            substitution: None,
            settings: Settings::default(),
            unchecked: 0,
            descriptors,
            cwd: container.cwd,
            traps: Traps::default(),
            signals: container.signals,
            interactive: false,
            jobs: Jobs::default(),
            nesting: 0,
            random,
            option_offset: 0,
        };
        for (name, value) in container.env {
            shell.variables.insert(name, Variable::exported(value));
        }
        let cwd = shell.cwd.clone();
        shell.variables.insert("PWD".to_owned(), Variable::exported(cwd));
        shell.set_default("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        shell.set_default("IFS", " \t\n");
        shell.set_default("PS1", "\\w # ");
        shell.set_default("PS2", "> ");
        shell.set_default("PS4", "+ ");
        shell.set_default("OPTIND", "1");
        shell
    }

    /// A subshell: a copy that can change nothing here. Its traps are the default ones.
    fn fork(&self) -> Shell {
        Shell {
            world: self.world.clone(),
            name: self.name.clone(),
            pid: self.pid,
            variables: self.variables.clone(),
            hidden: Vec::new(),
            functions: self.functions.clone(),
            positional: self.positional.clone(),
            status: self.status,
            substitution: None,
            settings: self.settings,
            unchecked: self.unchecked,
            descriptors: self.descriptors.clone(),
            cwd: self.cwd.clone(),
            traps: Traps::default(),
            signals: self.signals.clone(),
            interactive: self.interactive,
            jobs: Jobs::default(),
            nesting: self.nesting + 1,
            random: self.random.wrapping_mul(31).wrapping_add(self.pid),
            option_offset: 0,
        }
    }

    /// An empty shell that holds this one's place while it runs in a task.
    fn vacant(&self) -> Shell {
        Shell {
            world: self.world.clone(),
            name: String::new(),
            pid: self.pid,
            variables: HashMap::new(),
            hidden: Vec::new(),
            functions: HashMap::new(),
            positional: Vec::new(),
            status: 1,
            substitution: None,
            settings: Settings::default(),
            unchecked: 0,
            descriptors: BTreeMap::new(),
            cwd: String::new(),
            traps: Traps::default(),
            signals: self.signals.clone(),
            interactive: self.interactive,
            jobs: Jobs::default(),
            nesting: self.nesting,
            random: 0,
            option_offset: 0,
        }
    }

    async fn main(mut self, start: Start) -> ExitStatus {
        let step = match start {
            Start::Command(text) => self.run_command_string(&text).await,
            Start::Script(path) => match self.world.files.read(&crate::files::resolve(&self.cwd, &path)) {
                Ok(bytes) => self.run_text(&String::from_utf8_lossy(&bytes)).await,
                Err(error) => {
                    let reason = super::stdio::reason(&error);
                    self.complain(&format!("can't open '{path}': {reason}")).await;
                    Ok(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 2 })
                }
            },
            Start::Stdin => self.run_stdin().await,
            Start::Interactive => self.run_interactive().await,
        };
        self.finish(step).await
    }

    /// The exit status that a step means for the shell, after its `EXIT` trap.
    async fn finish(&mut self, step: Step) -> ExitStatus {
        let status = match step {
            Ok(status) | Err(Interrupt::Return(status) | Interrupt::Exit(status) | Interrupt::Abandon(status)) => {
                status
            }
            Err(Interrupt::Break(_) | Interrupt::Continue(_)) => self.status,
        };
        let command = self.traps.lock().remove(&0);
        let status = match command {
            Some(command) if !command.is_empty() => {
                self.status = status;
                match self.run_text(&command).await {
                    Err(Interrupt::Exit(status)) => status,
                    _ => status,
                }
            }
            _ => status,
        };
        for descriptor in self.descriptors.values_mut() {
            if let Descriptor::Output(output) = descriptor {
                let _ = output.flush().await;
            }
        }
        status
    }

    fn next_pid(&self) -> u32 {
        self.world.next_pid.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// Nobody reads: the shell ends as if by SIGPIPE.
    async fn print(&mut self, text: &str) -> Step {
        let Some(Descriptor::Output(output)) = self.descriptors.get(&1) else {
            return Ok(1);
        };
        let mut output = output.clone();
        let written = async {
            output.write_all(text.as_bytes()).await?;
            output.flush().await
        };
        match written.await {
            Ok(()) => Ok(0),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Interrupt::Exit(141)),
            Err(error) => {
                self.complain(&format!("write error: {}", super::stdio::reason(&error))).await;
                Ok(1)
            }
        }
    }

    /// Writes a message to standard error.
    async fn complain(&mut self, message: &str) {
        let line = format!("{}: {message}\n", self.name);
        self.print_error(&line).await;
    }

    async fn print_error(&mut self, text: &str) {
        if let Some(Descriptor::Output(output)) = self.descriptors.get(&2) {
            let mut output = output.clone();
            let _ = output.write_all(text.as_bytes()).await;
            let _ = output.flush().await;
        }
    }

    /// A mistake in the script: it ends here.
    async fn mistake(&mut self, message: &str) -> Interrupt {
        self.complain(message).await;
        Interrupt::Abandon(2)
    }
}

impl Settings {
    /// The option of this letter; `false`: there is none.
    fn set(&mut self, letter: char, on: bool) -> bool {
        match letter {
            'e' => self.exit_on_error = on,
            'x' => self.trace = on,
            'u' => self.unset_is_error = on,
            'f' => self.no_globbing = on,
            'n' => self.no_execution = on,
            'a' | 'b' | 'h' | 'm' | 'v' | 'C' | 'E' | 'B' | 'H' | 'p' => {}
            _ => return false,
        }
        true
    }

    fn set_named(&mut self, name: &str, on: bool) -> bool {
        match name {
            "errexit" => self.exit_on_error = on,
            "xtrace" => self.trace = on,
            "nounset" => self.unset_is_error = on,
            "noglob" => self.no_globbing = on,
            "pipefail" => self.pipe_fail = on,
            "noexec" => self.no_execution = on,
            "allexport" | "monitor" | "notify" | "verbose" | "vi" | "emacs" | "noclobber" | "posix" | "errtrace" => {}
            _ => return false,
        }
        true
    }

    /// `$-`.
    fn letters(self, interactive: bool) -> String {
        [
            ('e', self.exit_on_error),
            ('f', self.no_globbing),
            ('i', interactive),
            ('u', self.unset_is_error),
            ('x', self.trace),
        ]
        .iter()
        .filter(|(_, on)| *on)
        .map(|(letter, _)| letter)
        .collect()
    }
}

/// A text as a shell word that stands for it.
pub(crate) fn quoted_word(text: &str) -> String {
    expand::quoted(text)
}
