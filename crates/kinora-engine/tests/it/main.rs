//! The engine's integration tests: one binary, one file per subject.

mod clip;
mod motion_contract;
mod motion_docs;
