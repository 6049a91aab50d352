//! Fields of an expanded word: splitting by `IFS`, pathname expansion, quote removal.

use super::pattern;
use crate::files::{Files, Kind, resolve};

/// Most paths that one pattern expands to.
const MATCHES: usize = 10_000;

/// A piece of a field.
#[derive(Debug)]
struct Segment {
    text: String,
    quoted: bool,
}

/// Fields being built from left to right.
#[derive(Debug)]
pub(super) struct Fields {
    done: Vec<Vec<Segment>>,
    current: Option<Vec<Segment>>,
    /// `None`: nothing is split, as in assignments.
    separators: Option<String>,
    /// The last thing was a separator of white space, which a separator behind it belongs to.
    after_space: bool,
}

impl Fields {
    /// One field that nothing splits.
    pub(super) fn whole() -> Self {
        Fields { done: Vec::new(), current: None, separators: None, after_space: false }
    }

    pub(super) fn split_by(separators: String) -> Self {
        Fields { done: Vec::new(), current: None, separators: Some(separators), after_space: false }
    }

    pub(super) fn splits(&self) -> bool {
        self.separators.is_some()
    }

    /// Adds text that is not split.
    pub(super) fn literal(&mut self, text: &str, quoted: bool) {
        self.after_space = false;
        self.current.get_or_insert_default().push(Segment { text: text.to_owned(), quoted });
    }

    /// Adds the result of an expansion: split if it is not quoted.
    pub(super) fn expansion(&mut self, text: &str, quoted: bool) {
        let separators = match &self.separators {
            Some(separators) if !quoted => separators.clone(),
            _ => {
                if quoted || !text.is_empty() {
                    self.literal(text, quoted);
                }
                return;
            }
        };
        let mut start = 0;
        for (at, c) in text.char_indices() {
            if !separators.contains(c) {
                continue;
            }
            if start < at {
                self.literal(&text[start..at], false);
            }
            start = at + c.len_utf8();
            let space = c.is_ascii_whitespace();
            match self.current.take() {
                Some(field) => self.done.push(field),
                None if space || self.after_space => {}
                None => self.done.push(Vec::new()),
            }
            self.after_space = space;
        }
        if start < text.len() {
            self.literal(&text[start..], false);
        }
    }

    /// Ends the field, as between the parameters of `"$@"`.
    pub(super) fn end_field(&mut self) {
        if self.separators.is_none() {
            self.literal(" ", true);
            return;
        }
        if let Some(field) = self.current.take() {
            self.done.push(field);
        }
        self.after_space = false;
    }

    /// The text of all fields together.
    pub(super) fn into_text(self) -> String {
        let all = self.done.into_iter().chain(self.current);
        let fields: Vec<String> = all.map(|field| field.into_iter().map(|segment| segment.text).collect()).collect();
        fields.join(" ")
    }

    /// The pattern that unquoted `*`, `?` and `[` of the text make; what is quoted stands for itself.
    pub(super) fn into_pattern(self) -> String {
        self.done.into_iter().chain(self.current).flatten().map(|segment| pattern_of(&segment)).collect()
    }

    /// The finished arguments.
    pub(super) fn into_arguments(self, files: &Files, cwd: &str, globbing: bool) -> Vec<String> {
        let mut arguments = Vec::new();
        for field in self.done.into_iter().chain(self.current) {
            let wild =
                globbing && field.iter().any(|segment| !segment.quoted && segment.text.contains(['*', '?', '[']));
            if wild {
                let wanted: String = field.iter().map(pattern_of).collect();
                let found = paths(files, cwd, &wanted);
                if !found.is_empty() {
                    arguments.extend(found);
                    continue;
                }
            }
            arguments.push(field.into_iter().map(|segment| segment.text).collect());
        }
        arguments
    }
}

fn pattern_of(segment: &Segment) -> String {
    if segment.quoted { pattern::escape(&segment.text) } else { segment.text.clone() }
}

/// The paths that a pattern matches, in order.
fn paths(files: &Files, cwd: &str, wanted: &str) -> Vec<String> {
    let absolute = wanted.starts_with('/');
    let mut found = vec![if absolute { "/".to_owned() } else { String::new() }];
    let components: Vec<&str> = wanted.split('/').filter(|component| !component.is_empty()).collect();
    let directories_only = wanted.ends_with('/');
    for (at, component) in components.iter().enumerate() {
        let last = at + 1 == components.len();
        let mut next = Vec::new();
        for base in &found {
            let mut candidates = Vec::new();
            if pattern::is_wild(component) {
                for name in files.list(&resolve(cwd, base)).unwrap_or_default() {
                    let hidden = name.starts_with('.') && !component.starts_with('.');
                    if !hidden && pattern::matches(component, &name) {
                        candidates.push(name);
                    }
                }
            } else {
                candidates.push(pattern::unescape(component));
            }
            for name in candidates {
                let path = if base.is_empty() || base.ends_with('/') {
                    format!("{base}{name}")
                } else {
                    format!("{base}/{name}")
                };
                let fits = match files.kind(&resolve(cwd, &path)) {
                    Some(Kind::Directory) => true,
                    Some(Kind::File { .. }) => last && !directories_only,
                    None => false,
                };
                if fits && next.len() < MATCHES {
                    next.push(path);
                }
            }
        }
        found = next;
    }
    if directories_only {
        found.iter_mut().for_each(|path| path.push('/'));
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(separators: &str, text: &str) -> Vec<String> {
        let mut fields = Fields::split_by(separators.to_owned());
        fields.expansion(text, false);
        fields.into_arguments(&Files::new(), "/", false)
    }

    #[test]
    fn white_space_separators_run_together_and_others_do_not() {
        assert_eq!(split(" \t\n", "  a  b "), ["a", "b"]);
        assert_eq!(split(":", "a::b:"), ["a", "", "b"]);
        assert_eq!(split(" :", "a : b"), ["a", "b"]);
        assert!(split(" ", "   ").is_empty());
    }

    #[test]
    fn a_pattern_expands_to_the_sorted_paths_it_matches() {
        let files = Files::new();
        for path in ["/d/b.txt", "/d/a.txt", "/d/.hidden", "/e/a.txt"] {
            files.write(path, "x").expect("room");
        }
        assert_eq!(paths(&files, "/d", "*.txt"), ["a.txt", "b.txt"]);
        assert_eq!(paths(&files, "/", "/*/a.*"), ["/d/a.txt", "/e/a.txt"]);
        assert_eq!(paths(&files, "/d", "*"), ["a.txt", "b.txt"]);
        assert!(paths(&files, "/d", "*.md").is_empty());
    }
}
