//! Objects in the store: keys, the stored form of each kind, and what a failed transaction means.

use crate::registry::ResourceKind;
use crate::status::Status;
use crate::{ApiServer, encode};
use bytes::Bytes;
use serde_json::Value;
use store::{Compare, KeyValue, Operation, Revision, Txn, TxnError};

/// An object as it stands in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) kv: KeyValue,
    /// In the row's own form, with its resourceVersion.
    pub(crate) object: Value,
}

/// Why a write did nothing.
pub(crate) enum WriteError {
    /// Another write came first; what stands under that key now.
    Raced(store::Key),
    Status(Status),
}

/// Where a collection stands: a namespace's part of a kind or all of it.
pub(crate) fn prefix(kind: &ResourceKind, namespace: &str) -> String {
    if kind.namespaced && !namespace.is_empty() { format!("{}{namespace}/", kind.prefix()) } else { kind.prefix() }
}

/// The object of a key and value, in the form of `kind`'s row.
pub(crate) fn decode(kind: &ResourceKind, kv: &KeyValue) -> Result<Value, Status> {
    let mut object = encode::parse(kv)?;
    if let Some(view) = &kind.view_of {
        (view.from_stored)(&mut object);
    }
    Ok(object)
}

/// The stored form of an object of `kind`.
pub(crate) fn encode(kind: &ResourceKind, object: &Value) -> Bytes {
    match &kind.view_of {
        None => encode::stored(object),
        Some(view) => {
            let mut object = object.clone();
            (view.to_stored)(&mut object);
            encode::stored(&object)
        }
    }
}

/// Appends the object's JSON with its resourceVersion, in the form of `kind`'s row.
pub(crate) fn append(kind: &ResourceKind, out: &mut Vec<u8>, kv: &KeyValue) -> Result<(), Status> {
    if kind.view_of.is_some() {
        encode::push_json(out, &decode(kind, kv)?);
    } else {
        encode::splice(out, &kv.value, kv.mod_revision);
    }
    Ok(())
}

impl ApiServer {
    /// Reads one object.
    pub(crate) async fn read(
        &self,
        kind: &ResourceKind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Stored>, Status> {
        match self.inner.store.get(&kind.key(namespace, name)).await {
            Some(kv) => Ok(Some(Stored { object: decode(kind, &kv)?, kv })),
            None => Ok(None),
        }
    }

    /// Commits, and says which key lost a race.
    pub(crate) async fn commit(
        &self,
        compares: Vec<Compare>,
        operations: Vec<Operation>,
    ) -> Result<Revision, WriteError> {
        match self.inner.store.txn(Txn { compares, operations }).await {
            Ok(committed) => Ok(committed.revision),
            Err(TxnError::Conflict { key, .. }) => Err(WriteError::Raced(key)),
            Err(stopped @ TxnError::Stopped(_)) => Err(WriteError::Status(Status::internal(stopped))),
        }
    }
}
