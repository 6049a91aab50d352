//! Autopath: the server walks the asking pod's search list itself.
//!
//! A pod's stub resolver asks for `example.com.default.svc.cluster.local` first, and for `example.com` only three denials later. When
//! the first question is one that the pod's list makes up, and there is no such name, the list's other names are tried here
//! and at last the name as it is. The first that exists is the answer, behind a CNAME from what was asked. If none does, the answer
//! is the first one's, and the pod walks on in vain.
//!
//! Follows CoreDNS' plug-in of that name. Unlike it, the list is that of the pod itself (its dnsConfig included), and a pod is known
//! from its first packet on, so that an address that has changed hands is never taken for its former owner's.

use crate::client::Client;
use crate::resolver::{Forwarded, Resolved, Resolver};
use crate::wire::Reply;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::collections::VecDeque;

/// A walk that is going on.
#[derive(Debug)]
pub(crate) struct Walk {
    asked: Name,
    kind: RecordType,
    /// The reply as it was before anything was found.
    blank: Reply,
    /// What is said if nothing is found.
    denial: Reply,
    names: VecDeque<Name>,
    /// The one that is being asked elsewhere.
    trying: Name,
}

/// How far a walk came.
#[derive(Debug)]
pub(crate) enum Walked {
    /// Say this.
    Done(Reply),
    /// Ask elsewhere, and go on with the answer.
    Asking(Forwarded, Box<Walk>),
}

impl Walk {
    /// The walk that a denial begins; `None` if the name is not one that the pod's search list makes up first.
    pub(crate) fn of(client: &Client, asked: &Name, kind: RecordType, blank: &Reply, denial: &Reply) -> Option<Walk> {
        let base = client.search.base(asked)?;
        let all = client.search.searched(&base).skip(1).chain([base.clone()]);
        // What may meet a fault is left for the pod to ask: it is to meet it.
        let free = |name: &Name| !client.faults.as_ref().is_some_and(|faults| faults.may_end(name, kind));
        let names = all.take_while(free).collect();
        let (blank, denial) = (blank.clone(), denial.clone());
        Some(Walk { asked: asked.clone(), kind, blank, denial, names, trying: base })
    }

    /// Tries the names in turn.
    pub(crate) fn go(mut self, resolver: &Resolver) -> Walked {
        while let Some(name) = self.names.pop_front() {
            match resolver.resolve(&name, self.kind, self.blank.clone()) {
                Resolved::Done(reply) => {
                    self.trying = name;
                    if let Some(end) = self.end(reply) {
                        return Walked::Done(end);
                    }
                }
                Resolved::Elsewhere(forwarded) => {
                    self.trying = name;
                    return Walked::Asking(forwarded, Box::new(self));
                }
            }
        }
        Walked::Done(self.denial)
    }

    /// Goes on with the answer from elsewhere.
    pub(crate) fn go_on(self, answer: Reply, resolver: &Resolver) -> Walked {
        match self.end(answer) {
            Some(end) => Walked::Done(end),
            None => self.go(resolver),
        }
    }

    /// What ends the walk: a name that exists, or a failure, of which the pod is to learn by itself.
    fn end(&self, mut reply: Reply) -> Option<Reply> {
        match reply.message.metadata.response_code {
            ResponseCode::NXDomain => None,
            ResponseCode::NoError => {
                if let Some(first) = reply.message.answers.first() {
                    let alias = RData::CNAME(CNAME(first.name.clone()));
                    let alias = Record::from_rdata(self.asked.clone(), first.ttl, alias);
                    reply.message.answers.insert(0, alias);
                }
                reply.autopath = Some(self.trying.clone());
                Some(reply)
            }
            _ => Some(self.denial.clone()),
        }
    }
}
