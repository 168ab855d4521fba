//! The product from the outside: API in process, program as a process.

mod api;
mod cli;
mod documents;
mod process;
mod server;
