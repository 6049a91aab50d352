//! The whole house, from outside: a cluster in this process or from the binary, and the clients people use, unmodified.

mod fixture;
mod floors;
mod pods;
mod support;
mod walk;
