//! Many addresses at once: whom of them the peers of a rule select.
//!
//! Each rule and each scope is asked once and remembered for as long as the crowd is: for the matrix and for policies
//! that may be at odds, never for live packets.

use crate::answered_names::{AnsweredNames, NamesView};
use crate::endpoint::Endpoint;
use crate::peer::{Block, Peer};
use crate::rule::{CompiledPolicy, Rule};
use crate::selector::Scope;
use crate::table::{NodeInfo, PolicyTable};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Party<'t> {
    pub(crate) pod: Option<&'t Endpoint>,
    pub(crate) node: Option<&'t NodeInfo>,
}

/// A policy's namespace, if that matters, and selectors.
type ScopeKey = (Option<String>, Scope);

/// Many parties, and whom of them rules have been found to select.
pub(crate) struct Crowd<'t> {
    names: &'t AnsweredNames,
    pub(crate) parties: Vec<Party<'t>>,
    by_namespace: HashMap<&'t str, Vec<usize>>,
    by_address: Vec<(IpAddr, usize)>,
    /// By where the rule stands in memory: the table keeps it there.
    by_rule: RefCell<HashMap<*const Rule, Rc<Bits>>>,
    /// By the policy's namespace, if that matters, and the selectors: many rules have the same.
    by_scope: RefCell<HashMap<ScopeKey, Rc<Bits>>>,
}

impl<'t> Crowd<'t> {
    pub(crate) fn new(table: &'t PolicyTable, addresses: impl Iterator<Item = IpAddr>) -> Crowd<'t> {
        let mut crowd = Crowd {
            names: &table.names,
            parties: Vec::new(),
            by_namespace: HashMap::new(),
            by_address: Vec::new(),
            by_rule: Default::default(),
            by_scope: Default::default(),
        };
        for (number, address) in addresses.enumerate() {
            let pod = table.endpoints.get(&address).map(|pod| &**pod);
            let node = if pod.is_none() { table.nodes.get(&address) } else { None };
            if let Some(pod) = pod {
                crowd.by_namespace.entry(&pod.identity.namespace).or_default().push(number);
            }
            crowd.by_address.push((address, number));
            crowd.parties.push(Party { pod, node });
        }
        crowd.by_address.sort_unstable();
        crowd
    }

    /// Whom the peers of a rule select.
    pub(crate) fn selected(&self, policy: &CompiledPolicy, rule: &Rule) -> Rc<Bits> {
        let Some(peers) = &rule.peers else { return Rc::new(Bits::full(self.parties.len())) };
        if let Some(known) = self.by_rule.borrow().get(&std::ptr::from_ref(rule)) {
            return known.clone();
        }
        let mut selected = Bits::empty(self.parties.len());
        for peer in peers {
            match peer {
                Peer::Pods(scope) => selected = selected.or(&self.pods(scope, &policy.namespace)),
                Peer::Block(block) => self.block(block, &mut selected),
                Peer::Nodes(selector) => {
                    let node = |party: &Party<'_>| party.node.is_some_and(|node| selector.matches(&node.labels));
                    let parties = self.parties.iter().enumerate().filter(|(_, party)| node(party));
                    parties.for_each(|(number, _)| selected.set(number));
                }
                Peer::Name(name) => {
                    let names = NamesView { names: self.names, since: None };
                    let named = self.by_address.iter().filter(|(address, _)| names.has(name, *address));
                    named.for_each(|(_, number)| selected.set(*number));
                }
                Peer::Nothing => {}
            }
        }
        let selected = Rc::new(selected);
        self.by_rule.borrow_mut().insert(rule, selected.clone());
        selected
    }

    /// Whom a scope selects, in a policy of namespace `own`.
    pub(crate) fn pods(&self, scope: &Scope, own: &str) -> Rc<Bits> {
        let key = (scope.namespaces.is_none().then(|| own.to_owned()), scope.clone());
        if let Some(known) = self.by_scope.borrow().get(&key) {
            return known.clone();
        }
        let mut selected = Bits::empty(self.parties.len());
        let mut take = |numbers: &[usize]| {
            for number in numbers {
                let pod = self.parties[*number].pod;
                if pod.is_some_and(|pod| scope.selects(&pod.identity, own)) {
                    selected.set(*number);
                }
            }
        };
        match &scope.namespaces {
            None => self.by_namespace.get(own).into_iter().for_each(|numbers| take(numbers)),
            Some(_) => self.by_namespace.values().for_each(|numbers| take(numbers)),
        }
        let selected = Rc::new(selected);
        self.by_scope.borrow_mut().insert(key, selected.clone());
        selected
    }

    fn block(&self, block: &Block, selected: &mut Bits) {
        let first = self.by_address.partition_point(|(address, _)| *address < block.cidr.network());
        for (address, number) in &self.by_address[first..] {
            if !block.cidr.contains(address) {
                return;
            }
            if block.contains(*address) {
                selected.set(*number);
            }
        }
    }
}

/// A set of small numbers.
#[derive(Clone, Debug)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn empty(count: usize) -> Bits {
        Bits(vec![0; count.div_ceil(64)])
    }

    /// All below `count`; what is above may be set too, and is never asked for.
    pub(crate) fn full(count: usize) -> Bits {
        Bits(vec![u64::MAX; count.div_ceil(64)])
    }

    pub(crate) fn has(&self, number: usize) -> bool {
        self.0[number / 64] >> (number % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    pub(crate) fn clear(&mut self, number: usize) {
        self.0[number / 64] &= !(1 << (number % 64));
    }

    /// Adds what is in both.
    pub(crate) fn add(&mut self, one: &Bits, other: &Bits) {
        for (word, (one, other)) in self.0.iter_mut().zip(one.0.iter().zip(&other.0)) {
            *word |= one & other;
        }
    }

    pub(crate) fn remove(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
    }

    pub(crate) fn or(&self, other: &Bits) -> Bits {
        Bits(self.0.iter().zip(&other.0).map(|(one, other)| one | other).collect())
    }

    /// One that is in all of the sets.
    pub(crate) fn common(sets: &[&Bits], count: usize) -> Option<usize> {
        let word = |index: usize| sets.iter().fold(u64::MAX, |word, set| word & set.0[index]);
        let found = (0..count.div_ceil(64)).find(|index| word(*index) != 0)?;
        let number = found * 64 + word(found).trailing_zeros() as usize;
        (number < count).then_some(number)
    }
}
