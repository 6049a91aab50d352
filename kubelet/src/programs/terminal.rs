//! The line discipline of a terminal: echo, editing of a line, Ctrl-D; what `icanon` and `echo` are to a kernel.
//!
//! Turning line feeds into CR LF and Ctrl-C into SIGINT is the work of whoever brings the streams ([`crate::streams`]): a signal may
//! have to reach a program that reads nothing. Here SIGINT empties the line. The first program on a terminal brings the discipline;
//! those it starts find it there.

use super::stdio::{SharedInput, SharedOutput};
use crate::program::{Container, ExitStatus, Program, Programs};
use async_trait::async_trait;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

/// Longest line, as in Linux.
const LINE: usize = 4096;
/// Lines that can be called back with the arrow keys.
const HISTORY: usize = 200;
/// Input waiting for a program to read it.
const TYPE_AHEAD: usize = 64 << 10;

/// A program that brings the line discipline along when its streams are a terminal.
pub(super) struct OnTerminal(pub(super) Arc<dyn Program>);

#[async_trait]
impl Program for OnTerminal {
    async fn run(&self, mut container: Container) -> ExitStatus {
        if !container.tty {
            return self.0.run(container).await;
        }
        let output = SharedOutput::new(std::mem::replace(&mut container.stdout, Box::new(tokio::io::sink())));
        let raw = container.take_stdin();
        let (writer, reader) = tokio::io::duplex(TYPE_AHEAD);
        container.stdout = Box::new(output.clone());
        container.stdin = Box::new(reader);
        container.programs = Arc::new(Within(container.programs));
        let signals = container.signals.clone();
        let (forward, forwarded) = watch::channel(*signals.borrow());
        container.signals = forwarded;
        let discipline =
            Discipline { line: Vec::new(), at: 0, history: Vec::new(), recalled: None, escape: Vec::new() };
        tokio::select! {
            status = self.0.run(container) => status,
            never = discipline.run(SharedInput::new(raw), writer, output, signals, forward) => match never {},
        }
    }

    fn handles_signals(&self) -> bool {
        self.0.handles_signals()
    }

    fn within_terminal(&self) -> Option<Arc<dyn Program>> {
        Some(self.0.clone())
    }
}

/// Programs as those already on a terminal find them.
struct Within(Arc<dyn Programs>);

impl Programs for Within {
    fn program(&self, name: &str) -> Option<Arc<dyn Program>> {
        let program = self.0.program(name)?;
        Some(program.within_terminal().unwrap_or(program))
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn kill(&self, pid: u32, signal: i32) -> io::Result<()> {
        self.0.kill(pid, signal)
    }
}

struct Discipline {
    line: Vec<char>,
    /// The cursor.
    at: usize,
    history: Vec<String>,
    recalled: Option<usize>,
    /// The escape sequence or multi-byte character being received.
    escape: Vec<u8>,
}

impl Discipline {
    /// Reads keys until the terminal is gone, then leaves the program to its end.
    ///
    /// Signals pass through here, so that what Ctrl-C shows is there before the program answers to it.
    async fn run(
        mut self,
        mut raw: SharedInput,
        writer: DuplexStream,
        mut output: SharedOutput,
        mut signals: watch::Receiver<i32>,
        forward: watch::Sender<i32>,
    ) -> Infallible {
        let mut writer = Some(writer);
        let mut keys = [0; 1024];
        let mut connected = true;
        let mut typed = false;
        loop {
            let length = tokio::select! {
                Ok(()) = signals.changed() => {
                    let signal = *signals.borrow_and_update();
                    if signal == 2 {
                        self.line.clear();
                        self.at = 0;
                        let _ = output.write_all(b"^C\n").await;
                    }
                    forward.send_replace(signal);
                    continue;
                }
                read = raw.read(&mut keys), if connected => read.unwrap_or(0),
                else => std::future::pending().await,
            };
            if length == 0 {
                connected = false;
                // A terminal that nobody ever typed on (`tty: true` without `stdin`) is just silent.
                if typed {
                    writer = None;
                }
            }
            typed = true;
            let Some(to) = &mut writer else { continue };
            let mut echo = Vec::new();
            let mut ended = false;
            for key in &keys[..length] {
                let Some(done) = self.key(*key, &mut echo) else { continue };
                // Echoed before the program can answer.
                let _ = output.write_all(&std::mem::take(&mut echo)).await;
                match done {
                    Done::Line(line) => {
                        let _ = to.write_all(line.as_bytes()).await;
                    }
                    Done::End => ended = true,
                }
            }
            let _ = output.write_all(&echo).await;
            let _ = output.flush().await;
            if ended {
                writer = None;
            }
        }
    }

    /// One byte from the terminal.
    fn key(&mut self, key: u8, echo: &mut Vec<u8>) -> Option<Done> {
        if !self.escape.is_empty() {
            self.escape.push(key);
            self.sequence(echo);
            return None;
        }
        match key {
            b'\r' | b'\n' => {
                echo.push(b'\n');
                let line: String = std::mem::take(&mut self.line).into_iter().collect();
                self.at = 0;
                self.recalled = None;
                if !line.trim().is_empty() && self.history.last() != Some(&line) {
                    if self.history.len() >= HISTORY {
                        self.history.remove(0);
                    }
                    self.history.push(line.clone());
                }
                return Some(Done::Line(line + "\n"));
            }
            // Ctrl-C comes as a signal, too.
            3 => {}
            4 if self.line.is_empty() => return Some(Done::End),
            4 => {}
            0x7f | 8 if self.at > 0 => {
                self.at -= 1;
                self.line.remove(self.at);
                echo.push(8);
                self.redraw(echo, 1);
            }
            1 => self.move_to(0, echo),
            5 => self.move_to(self.line.len(), echo),
            21 => self.replace_line(Vec::new(), echo),
            12 => {
                echo.extend_from_slice(b"\x1b[H\x1b[J");
            }
            0x1b | 0x80.. => {
                self.escape.push(key);
            }
            b'\t' => {}
            b' '.. => self.insert(char::from(key), echo),
            _ => {}
        }
        None
    }

    fn insert(&mut self, c: char, echo: &mut Vec<u8>) {
        if self.line.len() < LINE {
            self.line.insert(self.at, c);
            self.at += 1;
            echo.extend_from_slice(c.to_string().as_bytes());
            if self.at < self.line.len() {
                self.redraw(echo, 0);
            }
        }
    }

    /// Writes what is behind the cursor again, over `stale` characters more, and comes back.
    fn redraw(&self, echo: &mut Vec<u8>, stale: usize) {
        let rest: String = self.line[self.at..].iter().collect();
        echo.extend_from_slice(rest.as_bytes());
        echo.extend(std::iter::repeat_n(b' ', stale));
        echo.extend(std::iter::repeat_n(8, self.line.len() - self.at + stale));
    }

    fn move_to(&mut self, to: usize, echo: &mut Vec<u8>) {
        if to < self.at {
            echo.extend(std::iter::repeat_n(8, self.at - to));
        } else {
            let passed: String = self.line[self.at..to].iter().collect();
            echo.extend_from_slice(passed.as_bytes());
        }
        self.at = to;
    }

    fn replace_line(&mut self, line: Vec<char>, echo: &mut Vec<u8>) {
        self.move_to(0, echo);
        let stale = self.line.len().saturating_sub(line.len());
        self.line = line;
        self.redraw(echo, stale);
        self.move_to(self.line.len(), echo);
    }

    /// Arrow keys and characters of several bytes, once they are complete.
    fn sequence(&mut self, echo: &mut Vec<u8>) {
        if self.escape[0] != 0x1b {
            match std::str::from_utf8(&self.escape) {
                Ok(text) => {
                    let typed: Vec<char> = text.chars().collect();
                    self.escape.clear();
                    typed.into_iter().for_each(|c| self.insert(c, echo));
                }
                Err(error) if error.error_len().is_none() => {}
                Err(_) => self.escape.clear(),
            }
            return;
        }
        let complete = match self.escape.len() {
            2 => !matches!(self.escape[1], b'[' | b'O'),
            _ => self.escape.last().is_some_and(|last| (0x40..=0x7e).contains(last)) || self.escape.len() > 8,
        };
        if !complete {
            return;
        }
        let sequence = std::mem::take(&mut self.escape);
        match sequence[1..] {
            [b'[' | b'O', b'A'] => {
                let earlier = self.recalled.unwrap_or(self.history.len()).checked_sub(1);
                if let Some(earlier) = earlier {
                    self.recalled = Some(earlier);
                    self.replace_line(self.history[earlier].chars().collect(), echo);
                }
            }
            [b'[' | b'O', b'B'] => {
                if let Some(recalled) = self.recalled {
                    let later = recalled + 1;
                    let line = self.history.get(later).map(|line| line.chars().collect()).unwrap_or_default();
                    self.recalled = (later < self.history.len()).then_some(later);
                    self.replace_line(line, echo);
                }
            }
            [b'[' | b'O', b'C'] if self.at < self.line.len() => self.move_to(self.at + 1, echo),
            [b'[' | b'O', b'D'] if self.at > 0 => self.move_to(self.at - 1, echo),
            [b'[' | b'O', b'H'] | [b'[', b'1', b'~'] => self.move_to(0, echo),
            [b'[' | b'O', b'F'] | [b'[', b'4', b'~'] => self.move_to(self.line.len(), echo),
            [b'[', b'3', b'~'] if self.at < self.line.len() => {
                self.line.remove(self.at);
                self.redraw(echo, 1);
            }
            _ => {}
        }
    }
}

/// What a key completed.
enum Done {
    Line(String),
    /// Ctrl-D on an empty line.
    End,
}

#[cfg(test)]
mod tests {
    use crate::programs::harness::Machine;

    #[tokio::test(start_paused = true)]
    async fn an_interactive_shell_prompts_echoes_and_ends_with_ctrl_d() {
        let machine = Machine::new();
        let ran = machine.at_terminal(&["sh"], &["echo hi\r", "x=1\r", "echo $x; false\r", "\x04"]).await;
        assert_eq!(ran.stdout, "/ # echo hi\nhi\n/ # x=1\n/ # echo $x; false\n1\n/ # exit\n");
        assert_eq!(ran.status, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn ctrl_c_ends_the_foreground_program_or_empties_the_line() {
        let machine = Machine::new();
        let ran =
            machine.at_terminal(&["sh"], &["sleep 1000\r", "\x03", "echo $?\r", "half a li", "\x03", "exit 3\r"]).await;
        assert_eq!(ran.stdout, "/ # sleep 1000\n^C\n/ # echo $?\n130\n/ # half a li^C\n/ # exit 3\n");
        assert_eq!(ran.status, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_goes_on_over_lines_until_it_is_whole() {
        let machine = Machine::new();
        let ran = machine.at_terminal(&["sh"], &["for i in 1 2\r", "do echo $i; done\r", "\x04"]).await;
        assert_eq!(ran.stdout, "/ # for i in 1 2\n> do echo $i; done\n1\n2\n/ # exit\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_can_be_edited_and_called_back() {
        let machine = Machine::new();
        let ran = machine
            .at_terminal(&["cat"], &["helpo\x7f\x7flo\r", "\x1b[A\r", "b\x1b[Da\r", "caf\u{e9}\r", "\x04"])
            .await;
        let lines: Vec<&str> = ran.stdout.split('\n').collect();
        // Each line is echoed as it was typed, then printed as it was edited.
        assert_eq!((lines[1], lines[3], lines[5], lines[7]), ("hello", "hello", "ab", "caf\u{e9}"));
        assert_eq!(ran.status, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shell_within_a_shell_shares_the_terminal() {
        let machine = Machine::new();
        let ran = machine
            .at_terminal(&["sh"], &["sh\r", "echo inner\r", "exit\r", "read a; echo got $a\r", "typed\r", "\x04"])
            .await;
        assert_eq!(
            ran.stdout,
            "/ # sh\n/ # echo inner\ninner\n/ # exit\n/ # read a; echo got $a\ntyped\ngot typed\n/ # exit\n"
        );
    }
}
