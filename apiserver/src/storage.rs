//! Objects in the store: keys, the stored form of each kind, and what a failed transaction means.

use crate::registry::ResourceKind;
use crate::status::Status;
use crate::{ApiServer, encode};
use bytes::Bytes;
use serde_json::Value;
use store::{Compare, KeyValue, Operation, Revision, Txn, TxnError};

/// The largest object, as etcd has it by default; so that no client makes here what it could not elsewhere.
const MAX_SIZE: usize = 3 << 19;

/// How deeply objects may be nested: less than a reader of JSON takes (127), since lists and events wrap them.
const MAX_DEPTH: usize = 120;

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

impl From<Status> for WriteError {
    fn from(status: Status) -> Self {
        WriteError::Status(status)
    }
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
///
/// # Errors
/// 413 if it has grown, by patches or its owners, beyond what a store takes; 400 if it is nested so deeply that it could not be read again.
pub(crate) fn encode(kind: &ResourceKind, object: &Value) -> Result<Bytes, Status> {
    if !is_shallow(object, MAX_DEPTH) {
        return Err(Status::bad_request(format!(
            "the object is nested too deeply: at most {MAX_DEPTH} levels are kept"
        )));
    }
    let bytes = match &kind.view_of {
        None => encode::stored(object),
        Some(view) => {
            let mut object = object.clone();
            (view.to_stored)(&mut object);
            encode::stored(&object)
        }
    };
    if bytes.len() > MAX_SIZE {
        let message =
            format!("Request entity too large: the object has {} bytes, the limit is {MAX_SIZE}", bytes.len());
        return Err(Status::failure(413, "RequestEntityTooLarge", message));
    }
    Ok(bytes)
}

/// Whether no value in it stands more than `depth` levels down.
fn is_shallow(value: &Value, depth: usize) -> bool {
    match value {
        Value::Object(fields) => depth > 0 && fields.values().all(|value| is_shallow(value, depth - 1)),
        Value::Array(elements) => depth > 0 && elements.iter().all(|value| is_shallow(value, depth - 1)),
        _ => true,
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
        match self.inner.store.get(&kind.key(namespace, name)).await.map_err(Status::internal)? {
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
            Err(failed) => Err(WriteError::Status(Status::internal(failed))),
        }
    }
}
