//! Shared informers: one list-watch per kind, started by the wiring and read by every component.
//!
//! An [`Informer`] keeps the newest state of every object of its kind and tells each subscriber of every change, in
//! order. [`Informers`] starts one per kind on demand. [`Activity`] counts the changes that have been told and not yet
//! been dealt with; together with [`Informers::applied`] it answers when a cluster has settled.
//!
//! Not kube-runtime's reflector: that hides the bookmarks which say how far an idle kind has followed the store.

mod activity;
mod list_watch;

pub use activity::{Activity, Working};
pub use list_watch::{Change, Changes, Informer, Informers, Resource, Update};
