//! What differs between two matrices: pairs of pods that both have.

use super::{columns, rows};
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;

/// The differences, from the first to the second.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Changes {
    /// `FROM → TO:PORT/PROTOCOL` that can talk in the second only.
    pub(super) gained: Vec<String>,
    /// And in the first only.
    pub(super) lost: Vec<String>,
    /// Pods that only one of them has.
    pub(super) pods: Pods,
}

/// Pods that came and went between the two.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Pods {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }

    /// Compares what both have.
    pub(super) fn between(first: &Value, second: &Value) -> Changes {
        let mut changes = Changes::default();
        let columns_now = columns(first);
        let places: HashMap<&String, usize> = columns_now.iter().zip(0..).collect();
        // Each column of the second matrix, with its place in the first.
        let columns: Vec<(String, Option<usize>)> =
            columns(second).into_iter().map(|column| (column.clone(), places.get(&column).copied())).collect();
        let before: HashMap<&str, &[u8]> = rows(first).map(|(from, cells)| (from, cells.as_bytes())).collect();
        let mut left = before.clone();
        for (from, cells) in rows(second) {
            let Some(earlier) = before.get(from) else {
                changes.pods.added.push(from.to_owned());
                continue;
            };
            left.remove(from);
            for ((to, place), cell) in columns.iter().zip(cells.bytes()) {
                let earlier = place.and_then(|place| earlier.get(place)).copied();
                match (earlier, cell) {
                    (Some(b'0'), b'1') => changes.gained.push(format!("{from} → {to}")),
                    (Some(b'1'), b'0') => changes.lost.push(format!("{from} → {to}")),
                    _ => {}
                }
            }
        }
        changes.pods.removed = left.into_keys().map(str::to_owned).collect();
        changes.pods.removed.sort();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matrix(pods: &[&str], rows: &[&str]) -> Value {
        let to: Vec<Value> = pods.iter().map(|pod| json!({"pod": pod, "port": 80, "protocol": "TCP"})).collect();
        json!({"from": pods, "to": to, "allowed": rows})
    }

    #[test]
    fn what_changes_is_named_pair_by_pair() {
        let found = Changes::between(&matrix(&["d/a", "d/b"], &["11", "10"]), &matrix(&["d/a", "d/b"], &["10", "11"]));
        assert_eq!(
            json!(found),
            json!({"gained": ["d/b → d/b:80/TCP"], "lost": ["d/a → d/b:80/TCP"], "pods": {"added": [], "removed": []}})
        );
    }

    #[test]
    fn pods_that_came_or_went_are_named_and_not_compared() {
        let found =
            Changes::between(&matrix(&["d/a", "d/gone"], &["10", "11"]), &matrix(&["d/a", "d/new"], &["00", "11"]));
        assert_eq!(
            json!(found),
            json!({"gained": [], "lost": ["d/a → d/a:80/TCP"], "pods": {"added": ["d/new"], "removed": ["d/gone"]}})
        );
    }
}
