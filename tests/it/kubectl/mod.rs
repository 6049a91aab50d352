//! kubectl as it is used every day, command by command, with what it prints: transcripts against the real program.

mod access;
mod admission;
mod allocation;
mod certificates;
mod objects;
mod pods;
mod policies;
mod table;
mod versions;
mod workloads;
