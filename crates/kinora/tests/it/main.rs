//! The product from the outside: API in process, program as a process.
#![expect(clippy::unwrap_used, reason = "what helps a test fails like a test")]

mod api;
mod backup;
mod bad_input;
mod cli;
mod crash_points;
mod documents;
mod fleet;
mod metrics;
mod models;
mod process;
mod s3;
mod server;
mod traces;
mod upgrade;
mod wan;
