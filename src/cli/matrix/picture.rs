//! A matrix as a picture: SVG, or a page of its own (HTML without scripts or anything from elsewhere).
//!
//! Blue may pass, vermilion may not: the colours differ for colour-blind eyes too (Okabe and Ito), and a sign says the same.
//! Every cell has a title, which browsers show on hover and screen readers read.

use super::{columns, rows};
use anyhow::{Result, bail};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write;

/// More cells make no picture that anybody can look at.
const MOST_CELLS: usize = 40_000;
/// Side of a cell, and the gap between two namespaces, in pixels.
const CELL: usize = 22;
const GAP: usize = 6;
/// Width of a letter of the labels, about.
const LETTER: f64 = 6.7;
const MARGIN: usize = 16;
const LEGEND: usize = 34;

/// What a cell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Allowed,
    Denied,
    /// Only in the second of two matrices.
    Gained,
    /// Only in the first.
    Lost,
}

impl Cell {
    const ALL: [Cell; 4] = [Cell::Allowed, Cell::Denied, Cell::Gained, Cell::Lost];

    fn colour(self) -> &'static str {
        match self {
            Cell::Allowed => "#0072b2",
            Cell::Denied => "#d55e00",
            Cell::Gained => "#009e73",
            Cell::Lost => "#a3195b",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Cell::Allowed => "✓",
            Cell::Denied => "✗",
            Cell::Gained => "+",
            Cell::Lost => "−",
        }
    }

    /// As in "3 ...".
    fn word(self) -> &'static str {
        match self {
            Cell::Allowed => "may pass",
            Cell::Denied => "denied",
            Cell::Gained => "gained",
            Cell::Lost => "lost",
        }
    }
}

struct Picture<'a> {
    rows: Vec<(&'a str, Vec<Cell>)>,
    columns: Vec<String>,
    /// Texts, and per row the index of each cell's.
    why: (Vec<&'a str>, Vec<Vec<usize>>),
}

impl<'a> Picture<'a> {
    fn of(matrix: &'a Value, before: Option<&'a Value>) -> Result<Picture<'a>> {
        let columns = columns(matrix);
        let cells = rows(matrix).count() * columns.len();
        if cells == 0 {
            bail!("there is nothing to draw: no pod declares a port; choose one with --port");
        }
        if cells > MOST_CELLS {
            bail!(
                "{cells} pairs are too many for a picture, at most {MOST_CELLS} are drawn; choose namespaces or ports"
            );
        }
        let earlier = before.map(|before| {
            let columns_before = super::columns(before);
            let places: HashMap<String, usize> = columns_before.into_iter().zip(0..).collect();
            let rows: HashMap<&str, &[u8]> = rows(before).map(|(from, cells)| (from, cells.as_bytes())).collect();
            (places, rows)
        });
        let rows = rows(matrix).map(|(from, line)| {
            let cell = |(to, cell): (&String, u8)| {
                let was = earlier.as_ref().and_then(|(places, rows)| rows.get(from)?.get(*places.get(to)?).copied());
                match (was, cell) {
                    (Some(b'0'), b'1') => Cell::Gained,
                    (Some(b'1'), b'0') => Cell::Lost,
                    (_, b'1') => Cell::Allowed,
                    _ => Cell::Denied,
                }
            };
            (from, columns.iter().zip(line.bytes()).map(cell).collect())
        });
        let rows = rows.collect();
        let texts = matrix["why"]["texts"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let indices = matrix["why"]["cells"].as_array().into_iter().flatten().map(|row| {
            row.as_array().into_iter().flatten().map(|index| index.as_u64().unwrap_or(u64::MAX) as usize).collect()
        });
        let why = (texts, indices.collect());
        Ok(Picture { rows, columns, why })
    }

    fn title(&self, row: usize, column: usize) -> String {
        let (from, cells) = &self.rows[row];
        let mut title = format!("{from} → {}: {}", self.columns[column], cells[column].word());
        let index = self.why.1.get(row).and_then(|row| row.get(column));
        if let Some(why) = index.and_then(|index| self.why.0.get(*index)) {
            let _ = write!(title, "\n{why}");
        }
        title
    }

    fn count(&self, cell: Cell) -> usize {
        self.rows.iter().flat_map(|(_, cells)| cells).filter(|found| **found == cell).count()
    }

    /// What stands in the legend: what there is, and always the first two.
    fn legend(&self) -> Vec<(Cell, usize)> {
        let counted = Cell::ALL.map(|cell| (cell, self.count(cell)));
        counted.into_iter().filter(|(cell, count)| *count > 0 || matches!(cell, Cell::Allowed | Cell::Denied)).collect()
    }

    fn summary(&self) -> String {
        let parts: Vec<String> = self.legend().iter().map(|(cell, count)| format!("{count} {}", cell.word())).collect();
        format!("{} pods to {} ports: {}", self.rows.len(), self.columns.len(), parts.join(", "))
    }
}

fn namespace(name: &str) -> &str {
    name.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// Where each label's cells begin: namespaces stand apart.
fn places<'a>(names: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let (mut places, mut at, mut last) = (Vec::new(), 0, None);
    for name in names {
        if last.is_some_and(|last| last != namespace(name)) {
            at += GAP;
        }
        last = Some(namespace(name));
        places.push(at);
        at += CELL;
    }
    places
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn longest<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    (names.map(|name| name.chars().count()).max().unwrap_or(0) as f64 * LETTER) as usize + 10
}

/// The picture; with `before`, what has changed since stands out.
pub(super) fn svg(matrix: &Value, before: Option<&Value>) -> Result<String> {
    let picture = Picture::of(matrix, before)?;
    let left = MARGIN + longest(picture.rows.iter().map(|(from, _)| *from));
    let top = MARGIN + LEGEND + longest(picture.columns.iter().map(String::as_str));
    let across = places(picture.columns.iter().map(String::as_str));
    let down = places(picture.rows.iter().map(|(from, _)| *from));
    let legend_width: usize = MARGIN + picture.legend().len() * 150;
    let width = (left + across.last().unwrap_or(&0) + CELL + MARGIN).max(legend_width);
    let height = top + down.last().unwrap_or(&0) + CELL + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" aria-label=\"{}\" font-family=\"ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace\" font-size=\"11\">\n\
         <title>{0}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        escaped(&picture.summary())
    );
    for (index, (cell, count)) in picture.legend().into_iter().enumerate() {
        let x = MARGIN + index * 150;
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{MARGIN}\" width=\"16\" height=\"16\" rx=\"2\" fill=\"{}\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"#ffffff\" text-anchor=\"middle\">{}</text>\
             <text x=\"{}\" y=\"{}\" fill=\"#222222\">{count} {}</text>",
            cell.colour(),
            x + 8,
            MARGIN + 12,
            cell.sign(),
            x + 22,
            MARGIN + 12,
            cell.word()
        );
    }
    for (column, at) in picture.columns.iter().zip(&across) {
        let (x, y) = (left + at + CELL / 2 + 4, top - 6);
        let _ = writeln!(
            out,
            "<text transform=\"translate({x} {y}) rotate(-90)\" fill=\"#222222\">{}</text>",
            escaped(column)
        );
    }
    for (row, ((from, cells), at)) in picture.rows.iter().zip(&down).enumerate() {
        let y = top + at;
        let (text_x, text_y) = (left - 8, y + CELL / 2 + 4);
        let _ = writeln!(
            out,
            "<text x=\"{text_x}\" y=\"{text_y}\" text-anchor=\"end\" fill=\"#222222\">{}</text>",
            escaped(from)
        );
        for (column, (cell, at)) in cells.iter().zip(&across).enumerate() {
            let x = left + at;
            let (side, colour, sign) = (CELL - 2, cell.colour(), cell.sign());
            let _ = writeln!(
                out,
                "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{side}\" height=\"{side}\" rx=\"2\" fill=\"{colour}\"/>\
                 <text x=\"{}\" y=\"{}\" fill=\"#ffffff\" text-anchor=\"middle\">{sign}</text></g>",
                escaped(&picture.title(row, column)),
                x + side / 2,
                y + side / 2 + 4,
            );
        }
    }
    out.push_str("</svg>\n");
    Ok(out)
}

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; }
table { border-collapse: separate; border-spacing: 2px; font: 11px ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace; }
thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; font-weight: normal; padding: 4px 2px; }
tbody th { text-align: right; font-weight: normal; padding-right: 8px; white-space: nowrap; position: sticky; left: 0; background: Canvas; }
td, .key { width: 20px; height: 20px; text-align: center; color: #fff; border-radius: 3px; }
td:hover { outline: 2px solid CanvasText; }
.key { display: inline-block; line-height: 20px; margin-right: .4em; }
.legend span.item { margin-right: 1.5em; }
.next { border-top: 6px solid transparent; }
@media print { td, .key { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
";

/// The page; with `before`, what has changed since stands out.
pub(super) fn html(matrix: &Value, before: Option<&Value>) -> Result<String> {
    let picture = Picture::of(matrix, before)?;
    let heading = if before.is_some() { "What changes" } else { "Who can talk to whom" };
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{heading}</title>\n<style>{STYLE}"
    );
    for cell in Cell::ALL {
        let _ = writeln!(out, ".{cell:?} {{ background: {}; }}", cell.colour());
    }
    let _ = write!(
        out,
        "</style>\n</head>\n<body>\n<h1>{heading}</h1>\n<p>{}. Rows send, columns receive; point at a cell to see why.</p>\n<p class=\"legend\">",
        escaped(&picture.summary())
    );
    for (cell, count) in picture.legend() {
        let (sign, word) = (cell.sign(), cell.word());
        let _ = write!(out, "<span class=\"item\"><span class=\"key {cell:?}\">{sign}</span>{count} {word}</span>");
    }
    for warning in matrix["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let _ = write!(out, "</p>\n<p><strong>{}</strong>", escaped(warning));
    }
    out.push_str("</p>\n<table>\n<thead><tr><td></td>");
    for column in &picture.columns {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escaped(column));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let mut last = None;
    for (row, (from, cells)) in picture.rows.iter().enumerate() {
        let class = if last.is_some_and(|last| last != namespace(from)) { " class=\"next\"" } else { "" };
        last = Some(namespace(from));
        let _ = write!(out, "<tr><th scope=\"row\"{class}>{}</th>", escaped(from));
        for (column, cell) in cells.iter().enumerate() {
            let title = escaped(&picture.title(row, column));
            let _ = write!(out, "<td class=\"{cell:?}\" title=\"{title}\">{}</td>", cell.sign());
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</body>\n</html>\n");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matrix(rows: [&str; 2]) -> Value {
        let to =
            json!([{"pod": "d/a", "port": 80, "protocol": "TCP"}, {"pod": "e/<b>", "port": 80, "protocol": "TCP"}]);
        json!({"from": ["d/a", "e/<b>"], "to": to, "allowed": rows,
            "why": {"texts": ["no policy", "isolated by \"x\" & y"], "cells": [[0, 1], [0, 0]]}})
    }

    #[test]
    fn a_cell_has_a_colour_a_sign_and_a_title_that_says_why() {
        let page = html(&matrix(["10", "11"]), None).expect("a page");
        let cell =
            "<td class=\"Denied\" title=\"d/a → e/&lt;b&gt;:80/TCP: denied\nisolated by &quot;x&quot; &amp; y\">✗</td>";
        assert!(page.contains(cell), "{page}");
        assert!(page.contains("2 pods to 2 ports: 3 may pass, 1 denied"), "{page}");
        assert!(!page.contains("<b>"), "nothing of a name is markup: {page}");
        let drawing = svg(&matrix(["10", "11"]), None).expect("a picture");
        assert_eq!(drawing.matches("<g><title>").count(), 4);
        assert!(drawing.contains("role=\"img\" aria-label=\"2 pods"), "{drawing}");
        assert!(!drawing.contains("<b>"));
    }

    #[test]
    fn what_has_changed_stands_out() {
        let page = html(&matrix(["10", "11"]), Some(&matrix(["11", "01"]))).expect("a page");
        assert!(page.contains("2 may pass, 0 denied, 1 gained, 1 lost"), "{page}");
        for class in ["Gained", "Lost"] {
            assert_eq!(page.matches(&format!("<td class=\"{class}\"")).count(), 1, "{class}");
        }
    }

    #[test]
    fn what_is_too_large_to_look_at_is_not_drawn() {
        let pods: Vec<String> = (0..300).map(|number| format!("d/{number}")).collect();
        let to: Vec<Value> = pods.iter().map(|pod| json!({"pod": pod, "port": 80, "protocol": "TCP"})).collect();
        let large = json!({"from": pods, "to": to, "allowed": vec!["1".repeat(300); 300]});
        let why = svg(&large, None).expect_err("too large").to_string();
        assert!(why.contains("90000 pairs are too many"), "{why}");
        assert!(html(&json!({"from": [], "to": [], "allowed": []}), None).is_err());
    }
}
