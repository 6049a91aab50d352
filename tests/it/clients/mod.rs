//! Clients that are no kubectl, unmodified: the official Python and JavaScript clients, kube-rs, helm and curl.

mod curl;
mod helm;
mod kube_rs;
mod scripts;
