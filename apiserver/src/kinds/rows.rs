//! The table: one row per resource that a v1.36 server serves in its stable groups, in the order of discovery.

mod core_group;
mod named_groups;

use super::allocation::Allocator;
use super::event;
use crate::registry::{Column, ResourceKind};
use std::sync::Arc;

const PROXY: [&str; 5] = ["create", "delete", "get", "patch", "update"];
const EDIT: [&str; 3] = ["get", "patch", "update"];

fn text(name: &'static str) -> Column {
    Column::new(name, "string")
}

fn integer(name: &'static str) -> Column {
    Column::new(name, "integer")
}

fn boolean(name: &'static str) -> Column {
    Column::new(name, "boolean")
}

fn replica_columns() -> [Column; 7] {
    [
        integer("Desired"),
        integer("Current"),
        integer("Ready"),
        text("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ]
}

fn wide(name: &'static str) -> Column {
    Column::wide(name)
}

fn core(kind: &'static str, plural: &'static str) -> ResourceKind {
    ResourceKind::new("", "v1", kind, plural)
}

fn v1(group: &'static str, kind: &'static str, plural: &'static str) -> ResourceKind {
    ResourceKind::new(group, "v1", kind, plural)
}

// A kind that is asked, not kept.
fn virtual_kind(group: &'static str, kind: &'static str, plural: &'static str) -> ResourceKind {
    ResourceKind::new(group, "v1", kind, plural).with_verbs(&["create"])
}

/// Every row.
pub(super) fn rows(allocator: &Arc<Allocator>) -> Vec<ResourceKind> {
    let mut rows = core_group::rows(allocator);
    rows.extend(named_groups::rows());
    rows
}

fn event_row(row: ResourceKind) -> ResourceKind {
    let mut row = row.with_short_names(&["ev"]).with_defaults(event::default).with_validation(event::errors);
    (row.columns, row.row) = (event::columns(), event::row);
    row
}
