//! What is attached to the switch: hosts with a stack, and raw ports without one.

use crate::arena::Id;
use crate::flow::PortTag;
use crate::flow_key::Address;
use crate::host::HostState;
use crate::raw::RawState;

/// The key of a port.
pub(crate) type PortId = Id<Port>;

/// One port.
pub(crate) struct Port {
    pub(crate) tag: PortTag,
    pub(crate) addresses: Vec<Address>,
    pub(crate) kind: Kind,
}

/// What is behind a port.
pub(crate) enum Kind {
    Host(Box<HostState>),
    Raw(Box<RawState>),
}

impl Port {
    pub(crate) fn host(&self) -> Option<&HostState> {
        match &self.kind {
            Kind::Host(host) => Some(host),
            Kind::Raw(_) => None,
        }
    }

    pub(crate) fn host_mut(&mut self) -> Option<&mut HostState> {
        match &mut self.kind {
            Kind::Host(host) => Some(host),
            Kind::Raw(_) => None,
        }
    }

    pub(crate) fn raw_mut(&mut self) -> Option<&mut RawState> {
        match &mut self.kind {
            Kind::Raw(raw) => Some(raw),
            Kind::Host(_) => None,
        }
    }
}
