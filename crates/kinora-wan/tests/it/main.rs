//! Tests of the neural engine as a whole; one binary, since each one links everything again.
#![expect(clippy::unwrap_used, reason = "what helps a test fails like a test")]
#![expect(clippy::print_stdout, reason = "how far from the reference each stage is, shown by --nocapture")]

mod bf16;
mod chain;
mod dit;
mod gguf;
mod golden;
mod lora;
mod ops;
mod pipeline;
mod solver;
mod text;
mod vae;
