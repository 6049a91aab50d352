//! The shell at a terminal: a prompt, then a command. Line editing and Ctrl-C belong to the terminal, in
//! [`crate::programs::terminal`].

use super::source::{Mistake, ends_in_continuation, parse};
use super::{Descriptor, Interrupt, Shell, Step};
use crate::programs::escapes::{Style, unescape};

/// Longest command in bytes.
const LIMIT: usize = 1 << 16;

impl Shell {
    pub(super) async fn run_interactive(&mut self) -> Step {
        let mut text = String::new();
        loop {
            for (number, command, _) in self.jobs.reap() {
                self.print_error(&format!("[{number}]+  Done                       {command}\n")).await;
            }
            let prompt = self.prompt(if text.is_empty() { "PS1" } else { "PS2" });
            self.print_error(&prompt).await;
            let Some(Descriptor::Input(input)) = self.descriptors.get(&0) else { return Ok(self.status) };
            let mut input = input.clone();
            let line = tokio::select! {
                line = input.line(LIMIT) => line,
                () = super::run::interrupted(&mut self.signals) => {
                    text.clear();
                    self.status = 130;
                    continue;
                }
            };
            let Ok(Some(line)) = line else {
                if self.world.tty {
                    self.print_error("exit\n").await;
                }
                return Err(Interrupt::Exit(self.status));
            };
            text.push_str(&String::from_utf8_lossy(&line));
            if ends_in_continuation(&text) && text.len() < LIMIT {
                continue;
            }
            let program = match parse(&text) {
                Ok(program) => program,
                Err(Mistake::Incomplete) if text.len() < LIMIT => continue,
                Err(Mistake::Incomplete) => {
                    text.clear();
                    continue;
                }
                Err(Mistake::Wrong(message)) => {
                    text.clear();
                    self.complain(&message).await;
                    self.status = 2;
                    continue;
                }
            };
            text.clear();
            let descriptors = self.descriptors.clone();
            match self.run_program(&program).await {
                Ok(status) => self.status = status,
                Err(interrupt) => match interrupt.prompt_status() {
                    Some(status) => {
                        self.descriptors = descriptors;
                        self.unchecked = 0;
                        self.status = status;
                        self.print_error("").await;
                    }
                    None => return Err(interrupt),
                },
            }
        }
    }

    /// `PS1` with the escapes that people use.
    fn prompt(&mut self, name: &str) -> String {
        let template = self.lookup(name).unwrap_or_default();
        let home = self.lookup("HOME").unwrap_or_else(|| "/root".to_owned());
        let mut prompt = String::new();
        let mut chars = template.chars();
        while let Some(c) = chars.next() {
            if c != '\\' {
                prompt.push(c);
                continue;
            }
            match chars.next() {
                Some('w') if self.cwd == home && home != "/" => prompt.push('~'),
                Some('w') => prompt.push_str(&self.cwd),
                Some('W') => prompt.push_str(self.cwd.rsplit('/').next().unwrap_or("/")),
                Some('h' | 'H') => prompt.push_str(&self.world.hostname),
                Some('u') => prompt.push_str("root"),
                Some('$') => prompt.push('#'),
                Some('[' | ']') => {}
                Some(other) => {
                    let (bytes, _) = unescape(&format!("\\{other}"), Style::AnsiC);
                    prompt.push_str(&String::from_utf8_lossy(&bytes));
                }
                None => prompt.push('\\'),
            }
        }
        prompt
    }
}
