//! `read` and `getopts`.

use super::super::variables::Value;
use super::super::{Descriptor, Shell, Step, fields::Fields};
use crate::program::ExitStatus;
use crate::programs::options::duration;

/// Longest line that `read` takes, in bytes.
const LINE: usize = 1 << 20;

impl Shell {
    pub(super) async fn read_builtin(&mut self, operands: &[String]) -> Step {
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
            let mut fields = Fields::split_by(separators);
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

    pub(super) async fn getopts(&mut self, operands: &[String]) -> Step {
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
}

/// The next signal.
async fn arrived(signals: &mut tokio::sync::watch::Receiver<i32>) -> i32 {
    if signals.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *signals.borrow_and_update()
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
