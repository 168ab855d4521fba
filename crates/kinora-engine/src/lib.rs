//! Numbers in, frames out.
//!
//! An [`Engine`] turns a [`Picture`] and a [`GenerateSpec`] into frames that leave one by one.
//! No network, no database, no wall clock, no async: the frames are a function of
//! (engine, picture, specification, seed), whatever the number of threads.
//!
//! Letters in shape comments: F frames, H W pixels, C channels.

mod engine;
pub mod motion;
mod pattern;
mod picture;
mod rng;
mod spec;

pub use engine::{
    Cause, ClipFormat, Engine, EngineError, FrameSink, Generated, Monitor, Progress, SinkError, StageTime,
    Unwatched,
};
pub use motion::MotionEngine;
pub use pattern::PatternEngine;
pub use picture::{Picture, PictureError};
pub use rng::Noise;
pub use spec::{ClipDuration, GenerateSpec};
