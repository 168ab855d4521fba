//! The product: command line, API, queue and worker around the engines.

mod allocator;
pub mod api;
pub mod artifacts;
pub mod capability;
pub mod cli;
pub mod clock;
pub mod connections;
mod faults;
pub mod fetch;
pub mod intake;
pub mod jobs;
pub mod keys;
pub mod library;
pub mod machine;
pub mod models;
pub mod observe;
pub mod produce;
pub mod retention;
pub mod server;
pub mod settings;
pub mod submission;
pub mod sweep;
pub mod telemetry;
pub mod traces;
pub mod worker;
