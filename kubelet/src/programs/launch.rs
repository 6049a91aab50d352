//! Tools that run other commands: `env`, `timeout`, `xargs`, `nohup`, `time`, images' entry points.

use super::Tool;
use super::options::{Options, Order, duration};
use super::stdio::{Outcome, SharedOutput, pipe, read_all};
use crate::files::{Files, Kind};
use crate::program::{Container, ExitStatus, Input, Program, Programs};
use netstack::Host;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

pub(super) const TOOLS: &[Tool] = &[
    Tool::watching("env", |c| Box::pin(env(c))),
    Tool::watching("nohup", |c| Box::pin(plain(c))),
    Tool::watching("setsid", |c| Box::pin(plain(c))),
    Tool::watching("nice", |c| Box::pin(plain(c))),
    Tool::watching("stdbuf", |c| Box::pin(plain(c))),
    Tool::watching("busybox", |c| Box::pin(busybox(c))),
    Tool::watching("tini", |c| Box::pin(plain(c))),
    Tool::watching("dumb-init", |c| Box::pin(plain(c))),
    Tool::watching("entrypoint.sh", |c| Box::pin(curl_entry_point(c))),
    Tool::new("time", |c| Box::pin(time(c))),
    Tool::new("timeout", |c| Box::pin(timeout(c))),
    Tool::new("xargs", |c| Box::pin(xargs(c))),
];

/// Most arguments that `xargs` gives to one command.
const ARGUMENTS: usize = 1000;

/// The program that a command line names: built in, or a script of the file tree.
pub(crate) fn find(container: &Container, args: &mut Vec<String>) -> Option<Arc<dyn Program>> {
    let name = args.first()?.clone();
    let path = container.path(&name);
    if name.contains('/') && matches!(container.files.kind(&path), Some(Kind::File { mode, .. }) if mode & 0o111 != 0) {
        args[0] = path;
        args.insert(0, "sh".to_owned());
        return container.programs.program("sh");
    }
    container.programs.program(if name.contains('/') { &path } else { &name })
}

/// A container like this one for a command that takes over its streams.
fn successor(container: &mut Container, args: Vec<String>) -> Container {
    Container {
        args,
        env: container.env.clone(),
        cwd: container.cwd.clone(),
        stdin: container.take_stdin(),
        stdout: std::mem::replace(&mut container.stdout, Box::new(tokio::io::sink())),
        stderr: std::mem::replace(&mut container.stderr, Box::new(tokio::io::sink())),
        tty: container.tty,
        window: container.window.clone(),
        host: container.host.clone(),
        files: container.files.clone(),
        hostname: container.hostname.clone(),
        programs: container.programs.clone(),
        signals: container.signals.clone(),
    }
}

/// What a server keeps of its container to start commands in it.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) host: Host,
    pub(super) files: Files,
    pub(super) hostname: String,
    env: Vec<(String, String)>,
    cwd: String,
    programs: Arc<dyn Programs>,
    signals: tokio::sync::watch::Receiver<i32>,
}

impl Surroundings {
    pub(super) fn of(container: &Container) -> Self {
        Surroundings {
            host: container.host.clone(),
            files: container.files.clone(),
            hostname: container.hostname.clone(),
            env: container.env.clone(),
            cwd: container.cwd.clone(),
            programs: container.programs.clone(),
            signals: container.signals.clone(),
        }
    }

    /// A container without input whose output and errors go to one stream.
    pub(super) fn container(&self, args: Vec<String>, input: Input, output: &SharedOutput) -> Container {
        Container {
            args,
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            stdin: input,
            stdout: Box::new(output.clone()),
            stderr: Box::new(output.clone()),
            tty: false,
            window: tokio::sync::watch::channel(Default::default()).1,
            host: self.host.clone(),
            files: self.files.clone(),
            hostname: self.hostname.clone(),
            programs: self.programs.clone(),
            signals: self.signals.clone(),
        }
    }
}

/// Runs a command and collects what it says on both streams.
pub(super) async fn capture(surroundings: &Surroundings, args: Vec<String>) -> (ExitStatus, Vec<u8>) {
    let Some(program) = surroundings.programs.program(&args[0]) else {
        return (127, format!("{}: not found\n", args[0]).into_bytes());
    };
    let (output, reader) = pipe();
    let container = surroundings.container(args, Box::new(tokio::io::empty()), &output);
    drop(output);
    let (status, text) = tokio::join!(run(program, container), read_all(reader));
    (status, text.unwrap_or_default())
}

/// Runs a program; signals that it does not watch end it.
pub(super) async fn run(program: Arc<dyn Program>, container: Container) -> ExitStatus {
    let mut signals = container.signals.clone();
    let watches = program.handles_signals();
    tokio::select! {
        status = program.run(container) => status,
        signal = async {
            match signals.wait_for(|signal| matches!(signal, 1 | 2 | 15)).await.map(|signal| *signal) {
                Ok(signal) => signal,
                Err(_) => std::future::pending().await,
            }
        }, if !watches => 128 + signal,
    }
}

/// Becomes another command, as `execvp` does.
pub(super) async fn become_command(container: &mut Container, mut args: Vec<String>) -> Outcome {
    let name = args.first().cloned().unwrap_or_default();
    match find(container, &mut args) {
        Some(program) => {
            let next = successor(container, args);
            Ok(run(program, next).await)
        }
        None => {
            let own = container.args.first().cloned().unwrap_or_default();
            container.complain(format!("{own}: can't execute '{name}': No such file or directory")).await;
            Ok(127)
        }
    }
}

async fn env(c: &mut Container) -> Outcome {
    let options = match Options::parse(&c.args[1..], "i|ignore-environment u:|unset: 0|null", Order::OptionsFirst) {
        Ok(options) => options,
        Err(message) => {
            c.complain(format!("env: {message}")).await;
            return Ok(125);
        }
    };
    if options.has("i") || options.operands.first().is_some_and(|operand| operand == "-") {
        c.env.clear();
    }
    for name in options.values("u") {
        c.env.retain(|(key, _)| key != name);
    }
    let first = options.operands.iter().position(|operand| operand != "-").unwrap_or(options.operands.len());
    let mut command = options.operands[first..].to_vec();
    while let Some((name, value)) = command.first().and_then(|operand| operand.split_once('=')) {
        let (name, value) = (name.to_owned(), value.to_owned());
        c.env.retain(|(key, _)| *key != name);
        c.env.push((name, value));
        command.remove(0);
    }
    if !command.is_empty() {
        return become_command(c, command).await;
    }
    let end = if options.has("0") { '\0' } else { '\n' };
    let mut text = String::new();
    for (at, (name, value)) in c.env.iter().enumerate() {
        let replaced = c.env[at + 1..].iter().any(|(later, _)| later == name);
        if !replaced {
            text.push_str(&format!("{name}={value}{end}"));
        }
    }
    c.print(text).await?;
    Ok(0)
}

/// `nohup`, `nice -n 5`, `tini --`: what they change does not exist here, so the command is simply run.
async fn plain(c: &mut Container) -> Outcome {
    let specification = match c.args[0].rsplit('/').next() {
        Some("nice") => "n:",
        Some("stdbuf") => "i: o: e:",
        Some("tini") => "g s v w p:",
        _ => "c w f",
    };
    match Options::parse(&c.args[1..], specification, Order::OptionsFirst) {
        Ok(options) if !options.operands.is_empty() => become_command(c, options.operands).await,
        _ => {
            let name = c.args[0].clone();
            c.complain(format!("Usage: {name} PROG ARGS")).await;
            Ok(1)
        }
    }
}

async fn busybox(c: &mut Container) -> Outcome {
    let args = c.args[1..].to_vec();
    if args.is_empty() || args[0] == "--list" || args[0] == "--help" {
        let mut names = c.programs.names();
        names.retain(|name| name != "busybox" && name != "agnhost");
        let text = if args.first().is_some_and(|arg| arg == "--list") {
            names.join("\n")
        } else {
            format!(
                "BusyBox (Coracle) multi-call binary.\n\nUsage: busybox [function [arguments]...]\n   or: busybox --list\n\nCurrently defined functions:\n\t{}",
                names.join(", ")
            )
        };
        c.print(text + "\n").await?;
        return Ok(0);
    }
    if c.programs.program(&args[0]).is_none() {
        c.complain(format!("{}: applet not found", args[0])).await;
        return Ok(127);
    }
    become_command(c, args).await
}

/// The entry point of `curlimages/curl`: a command if the first argument is one, else arguments of curl.
async fn curl_entry_point(c: &mut Container) -> Outcome {
    let mut args = c.args[1..].to_vec();
    let is_command = args.first().is_some_and(|first| !first.starts_with('-') && c.programs.program(first).is_some());
    if !is_command {
        args.insert(0, "curl".to_owned());
    }
    become_command(c, args).await
}

async fn time(c: &mut Container) -> Outcome {
    let mut args: Vec<String> = c.args[1..].iter().skip_while(|arg| *arg == "-p").cloned().collect();
    let begun = Instant::now();
    let errors = SharedOutput::new(std::mem::replace(&mut c.stderr, Box::new(tokio::io::sink())));
    c.stderr = Box::new(errors.clone());
    let status = match find(c, &mut args) {
        Some(program) => {
            let next = successor(c, args);
            run(program, next).await
        }
        None => 127,
    };
    c.stderr = Box::new(errors);
    let seconds = begun.elapsed().as_secs_f64();
    let minutes = (seconds / 60.0).floor();
    let text = format!("real\t{minutes}m {:.2}s\nuser\t0m 0.00s\nsys\t0m 0.00s", seconds - minutes * 60.0);
    c.complain(text).await;
    Ok(status)
}

async fn timeout(c: &mut Container) -> Outcome {
    let parsed =
        Options::parse(&c.args[1..], "s:|signal: k:|kill-after: t:|t: foreground|foreground", Order::OptionsFirst);
    let options = match parsed {
        Ok(options) => options,
        Err(message) => {
            c.complain(format!("timeout: {message}")).await;
            return Ok(125);
        }
    };
    let mut command = options.operands.clone();
    let limit = match options.value("t").map(str::to_owned) {
        Some(limit) => limit,
        None if command.is_empty() => String::new(),
        None => command.remove(0),
    };
    let Some(limit) = duration(&limit) else {
        c.complain(format!("timeout: invalid number '{limit}'")).await;
        return Ok(125);
    };
    let name = command.first().cloned().unwrap_or_default();
    let Some(program) = find(c, &mut command) else {
        c.complain(format!("timeout: can't execute '{name}': No such file or directory")).await;
        return Ok(127);
    };
    let mut next = successor(c, command);
    let (signal, signals) = tokio::sync::watch::channel(0);
    next.signals = signals;
    let running = run(program, next);
    tokio::pin!(running);
    tokio::select! {
        status = &mut running => Ok(status),
        () = tokio::time::sleep(limit) => {
            let wanted = options.value("s").and_then(super::shell::jobs::signal_number).unwrap_or(15);
            if wanted != 9 {
                signal.send_replace(wanted);
                let grace = options.value("k").and_then(duration).unwrap_or(std::time::Duration::from_secs(2));
                let _ = tokio::time::timeout(grace, &mut running).await;
            }
            Ok(if wanted == 9 { 137 } else { 143 })
        }
    }
}

async fn xargs(c: &mut Container) -> Outcome {
    let parsed = Options::parse(
        &c.args[1..],
        "0|null r|no-run-if-empty n:|max-args: I:|replace: L: P: t d: p s:",
        Order::OptionsFirst,
    );
    let options = match parsed {
        Ok(options) => options,
        Err(message) => {
            c.complain(format!("xargs: {message}")).await;
            return Ok(1);
        }
    };
    let command = if options.operands.is_empty() { vec!["echo".to_owned()] } else { options.operands.clone() };
    let replaced = options.value("I").map(str::to_owned);
    let most = match (&replaced, options.number::<usize>("n")) {
        (Some(_), _) => 1,
        (None, Ok(most)) => most.unwrap_or(ARGUMENTS).clamp(1, ARGUMENTS),
        (None, Err(message)) => {
            c.complain(format!("xargs: {message}")).await;
            return Ok(1);
        }
    };
    let output = SharedOutput::new(std::mem::replace(&mut c.stdout, Box::new(tokio::io::sink())));
    let errors = SharedOutput::new(std::mem::replace(&mut c.stderr, Box::new(tokio::io::sink())));
    c.stderr = Box::new(errors.clone());
    let mut input = BufReader::new(c.take_stdin());
    let mut waiting: Vec<String> = Vec::new();
    let mut ran = false;
    let mut status = 0;
    let end = if options.has("0") { b'\0' } else { b'\n' };
    loop {
        let mut line = Vec::new();
        let ended = input.read_until(end, &mut line).await? == 0;
        if line.last() == Some(&end) {
            line.pop();
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        if options.has("0") || options.has("d") {
            waiting.extend((!ended).then_some(text));
        } else if replaced.is_some() {
            let text = text.trim();
            waiting.extend((!text.is_empty()).then(|| text.to_owned()));
        } else {
            waiting.extend(words(&text));
        }
        while waiting.len() >= most || ended && (!waiting.is_empty() || !ran && !options.has("r") && replaced.is_none())
        {
            let batch: Vec<String> = waiting.drain(..waiting.len().min(most)).collect();
            let mut args: Vec<String> = match &replaced {
                Some(mark) => command.iter().map(|word| word.replace(mark.as_str(), &batch[0])).collect(),
                None => command.iter().cloned().chain(batch).collect(),
            };
            if options.has("t") {
                c.complain(args.join(" ")).await;
            }
            ran = true;
            let name = args[0].clone();
            match find(c, &mut args) {
                Some(program) => {
                    let mut next = successor(c, args);
                    next.stdout = Box::new(output.clone());
                    next.stderr = Box::new(errors.clone());
                    c.stderr = Box::new(errors.clone());
                    match run(program, next).await {
                        0 => {}
                        255 => return Ok(124),
                        _ => status = 123,
                    }
                }
                None => {
                    c.complain(format!("xargs: {name}: No such file or directory")).await;
                    return Ok(127);
                }
            }
            tokio::task::coop::consume_budget().await;
        }
        if ended {
            return Ok(status);
        }
    }
}

/// Words of a line, with quotes and backslashes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
