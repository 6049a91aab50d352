//! The schema engine: one table of types, and everything that walks it.
//!
//! The generic handler gives each request body to [`decode()`], asks for the type of its kind ([`Schemas::lookup`]), and then
//! [`check()`]s it (unknown fields, types, canonical forms), applies a patch ([`patch`], [`strategic`]) or a server-side apply
//! ([`apply()`]), and notes who owns which field ([`managed_fields`]). [`openapi`] publishes the same types. Built-in types come
//! from a generated table ([`table`]); a CustomResourceDefinition's type is made at run time by [`structural`]. No walker
//! can tell them apart.
//!
//! Not here: defaults, validation of values, storage.

pub mod apply;
pub mod check;
pub mod decode;
#[cfg(feature = "descriptions")]
pub mod descriptions;
pub mod field_set;
pub mod managed_fields;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod strategic;
pub mod structural;
pub mod table;
pub mod time;
pub mod types;

#[cfg(test)]
pub(crate) mod testing;

pub use apply::{ApplyError, apply};
pub use check::{Checked, FieldValidation, check, complete};
pub use decode::{Decoded, MAX_BODY, decode};
pub use managed_fields::{Manager, track_update};
pub use types::{Field, ListKind, Object, ObjectRef, Schemas, Type};
