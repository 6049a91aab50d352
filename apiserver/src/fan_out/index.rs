//! Whom a change concerns, without asking every watcher.
//!
//! Watchers of the same selection form a group, which is asked once. A group whose selector says that a field or label must have one
//! value (`spec.nodeName=node-7`) is looked up by that value; only the others are asked one by one. A change is looked up by what the
//! object was and by what it is, since ceasing to be selected is told too.
//!
//! kube-apiserver has the same for the node of a pod and for names (`triggerFunc`).

use super::change::{Change, What};
use super::mailbox::Mailbox;
use crate::registry::ResourceKind;
use crate::selector::{Hook, Selector};
use serde_json::Value;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::task::Waker;
use store::Event;

type GroupId = u64;

/// The groups of one kind.
#[derive(Default)]
pub(super) struct Index {
    groups: BTreeMap<GroupId, Group>,
    by_selection: HashMap<(String, Selector), GroupId>,
    /// Groups by what they can be looked up by, and the value there.
    hooked: BTreeMap<Hook, HashMap<String, BTreeSet<GroupId>>>,
    /// Groups that have to be asked.
    unhooked: BTreeSet<GroupId>,
    /// What of an object has to be read for all of them.
    paths: Vec<Vec<String>>,
    next: u64,
}

struct Group {
    namespace: String,
    selector: Selector,
    mailboxes: BTreeMap<u64, Arc<Mailbox>>,
}

/// A watcher's place.
pub(super) struct Member {
    group: GroupId,
    number: u64,
}

/// What is read of an object, once.
struct Seen<'a> {
    kind: &'a ResourceKind,
    kv: Option<&'a store::KeyValue>,
    paths: &'a [Vec<String>],
    object: OnceCell<Value>,
}

impl Seen<'_> {
    fn object(&self) -> &Value {
        self.object
            .get_or_init(|| self.kv.and_then(|kv| Selector::read(self.kind, kv, self.paths).ok()).unwrap_or_default())
    }
}

impl Index {
    pub(super) fn insert(&mut self, namespace: &str, selector: &Selector, mailbox: Arc<Mailbox>) -> Member {
        let number = self.next;
        self.next += 1;
        let selection = (namespace.to_owned(), selector.clone());
        let group = *self.by_selection.entry(selection).or_insert(number);
        if group == number {
            match selector.hook() {
                Some((hook, value)) => {
                    self.hooked.entry(hook).or_default().entry(value.to_owned()).or_default().insert(group);
                }
                None => drop(self.unhooked.insert(group)),
            }
            let (namespace, selector) = (namespace.to_owned(), selector.clone());
            self.groups.insert(group, Group { namespace, selector, mailboxes: BTreeMap::new() });
            self.collect_paths();
        }
        if let Some(group) = self.groups.get_mut(&group) {
            group.mailboxes.insert(number, mailbox);
        }
        Member { group, number }
    }

    pub(super) fn remove(&mut self, member: &Member) {
        let Some(group) = self.groups.get_mut(&member.group) else { return };
        group.mailboxes.remove(&member.number);
        if !group.mailboxes.is_empty() {
            return;
        }
        let Some(Group { namespace, selector, .. }) = self.groups.remove(&member.group) else { return };
        match selector.hook() {
            Some((hook, value)) => {
                if let Some(values) = self.hooked.get_mut(&hook) {
                    if let Some(groups) = values.get_mut(value) {
                        groups.remove(&member.group);
                        if groups.is_empty() {
                            values.remove(value);
                        }
                    }
                    if values.is_empty() {
                        self.hooked.remove(&hook);
                    }
                }
            }
            None => drop(self.unhooked.remove(&member.group)),
        }
        self.by_selection.remove(&(namespace, selector));
        self.collect_paths();
    }

    fn collect_paths(&mut self) {
        let all: BTreeSet<&Vec<String>> = self.groups.values().flat_map(|group| group.selector.paths()).collect();
        self.paths = all.into_iter().cloned().collect();
    }

    /// Puts a change into the mailboxes of all it concerns.
    pub(super) fn tell(&self, kind: &ResourceKind, event: &Arc<Event>, wakers: &mut Vec<Waker>) {
        let seen = |kv| Seen { kind, kv, paths: &self.paths, object: OnceCell::new() };
        let (is, was) = (seen(Some(&event.kv)), seen(event.previous.as_ref()));
        let mut asked = self.unhooked.clone();
        for (hook, values) in &self.hooked {
            for seen in [&is, &was] {
                if seen.kv.is_some()
                    && let Some(value) = hook.value(seen.object())
                {
                    asked.extend(values.get(&*value).into_iter().flatten());
                }
            }
        }
        let namespace = namespace(kind, &event.kv.key);
        let change = OnceCell::new();
        for group in asked.iter().filter_map(|group| self.groups.get(group)) {
            if !group.namespace.is_empty() && group.namespace != namespace {
                continue;
            }
            let selected = |seen: &Seen<'_>| group.selector.is_empty() || group.selector.matches(seen.object());
            let Some(what) = What::of(event, event.previous.is_some() && selected(&was), selected(&is)) else {
                continue;
            };
            let change = change.get_or_init(|| Arc::new(Change::new(event.clone())));
            wakers.extend(group.mailboxes.values().filter_map(|mailbox| mailbox.change(change, what)));
        }
    }

    pub(super) fn each(&self, tell: impl FnMut(&Arc<Mailbox>)) {
        self.groups.values().flat_map(|group| group.mailboxes.values()).for_each(tell);
    }
}

/// The namespace in a key of this kind.
fn namespace<'a>(kind: &ResourceKind, key: &'a str) -> &'a str {
    let rest = key.strip_prefix(&kind.prefix()).filter(|_| kind.namespaced);
    rest.and_then(|rest| rest.split_once('/')).map_or("", |(namespace, _)| namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;
    use crate::fan_out::Mail;
    use serde_json::json;
    use std::task::{Context, Poll};
    use store::{EventKind, KeyValue, Revision};

    fn pods() -> ResourceKind {
        ResourceKind::new("", "v1", "Pod", "pods").with_selectable_fields(&["spec.nodeName"])
    }

    /// A pod of a namespace on a node, labelled.
    fn pod(namespace: &str, node: &str, app: &str) -> KeyValue {
        let metadata = json!({"name": "p", "namespace": namespace, "labels": {"app": app}});
        let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"nodeName": node}});
        KeyValue {
            key: format!("/registry/pods/{namespace}/p").into(),
            value: encode::stored(&object),
            create_revision: Revision(1),
            mod_revision: Revision(2),
            version: 1,
        }
    }

    /// What each of these selections is told of a change.
    fn told(selections: &[(&str, &str, &str)], was: Option<KeyValue>, is: Option<KeyValue>) -> Vec<&'static str> {
        let (mut index, kind) = (Index::default(), pods());
        let mailboxes: Vec<Arc<Mailbox>> = selections
            .iter()
            .map(|(namespace, labels, fields)| {
                let mailbox = Arc::new(Mailbox::default());
                index.insert(namespace, &Selector::new(&kind, labels, fields).expect("a selector"), mailbox.clone());
                mailbox
            })
            .collect();
        let kind_of_event = if is.is_some() { EventKind::Put } else { EventKind::Delete };
        let kv = is.or_else(|| was.clone()).expect("a state");
        index.tell(&kind, &Arc::new(Event { kv, previous: was, kind: kind_of_event }), &mut Vec::new());
        let taken = mailboxes.iter().map(|mailbox| match mailbox.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Mail::Change(_, what)) => what.name(),
            _ => "-",
        });
        taken.collect()
    }

    #[test]
    fn a_change_is_told_to_those_who_select_the_object_or_did() {
        let selections = [
            ("", "", ""),
            ("a", "", ""),
            ("b", "", ""),
            ("", "", "spec.nodeName=n1"),
            ("", "", "spec.nodeName=n2"),
            ("", "app=web", ""),
            ("", "app in (web,db)", ""),
            ("", "app!=web", ""),
            ("b", "app=web", "spec.nodeName=n1"),
            ("", "", "spec.nodeName!=n1"),
            ("", "", "spec.nodeName="),
        ];
        let (web, db) = (pod("a", "n1", "web"), pod("a", "n2", "db"));
        let free = pod("a", "", "web");
        let cases = [
            (None, Some(web.clone()), ["ADDED", "ADDED", "-", "ADDED", "-", "ADDED", "ADDED", "-", "-", "-", "-"]),
            (
                Some(web.clone()),
                Some(db.clone()),
                ["MODIFIED", "MODIFIED", "-", "DELETED", "ADDED", "DELETED", "MODIFIED", "ADDED", "-", "ADDED", "-"],
            ),
            (
                Some(free),
                Some(web),
                ["MODIFIED", "MODIFIED", "-", "ADDED", "-", "MODIFIED", "MODIFIED", "-", "-", "DELETED", "DELETED"],
            ),
            (
                Some(db),
                None,
                ["DELETED", "DELETED", "-", "-", "DELETED", "-", "DELETED", "DELETED", "-", "DELETED", "-"],
            ),
        ];
        for (was, is, expected) in cases {
            assert_eq!(told(&selections, was.clone(), is.clone()), expected, "{was:?} {is:?}");
        }
    }

    #[test]
    fn who_has_left_leaves_nothing_behind() {
        let (mut index, kind) = (Index::default(), pods());
        let selections =
            [("", ""), ("app=web", ""), ("app!=web", ""), ("", "spec.nodeName=n1"), ("", "spec.nodeName=n1")];
        let members: Vec<Member> = selections
            .iter()
            .map(|(labels, fields)| {
                let selector = Selector::new(&kind, labels, fields).expect("a selector");
                index.insert("", &selector, Arc::new(Mailbox::default()))
            })
            .collect();
        assert_eq!((index.groups.len(), index.paths.len()), (4, 2), "equal selections share a group");
        members.iter().for_each(|member| index.remove(member));
        let empty = index.groups.is_empty() && index.by_selection.is_empty() && index.hooked.is_empty();
        assert!(empty && index.unhooked.is_empty() && index.paths.is_empty());
    }
}
