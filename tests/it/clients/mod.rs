//! Clients that are no kubectl, unmodified: the official Python and JavaScript clients.

mod scripts;
