//! What can go wrong between a folder of weights and a frame. Every message names the file, tensor or size at fault.

use std::path::PathBuf;

/// Why the neural engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WanError {
    #[error("cancelled")]
    Cancelled,
    #[error("cannot read {}: {cause}", path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    /// A configuration file that cannot be understood or asks for something that is not there.
    #[error("{}: {problem}", path.display())]
    Config { path: PathBuf, problem: String },
    /// A file of weights that is not what it should be.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("{} has no tensor `{name}`", path.display())]
    MissingTensor { path: PathBuf, name: String },
    #[error("the tensor `{name}` in {} has the shape {got:?}, not {wanted:?}", path.display())]
    WrongShape { path: PathBuf, name: String, got: Vec<usize>, wanted: Vec<usize> },
    #[error("the tensor `{name}` in {} has the type {dtype}, which is not read here", path.display())]
    WrongType { path: PathBuf, name: String, dtype: String },
    /// A request that this model cannot serve.
    #[error("{0}")]
    Request(String),
    /// A device that is not there, or has too little memory.
    #[error("{0}")]
    Device(String),
    #[error("the frames could not be taken: {0}")]
    Sink(#[from] kinora_engine::SinkError),
    /// An operation on tensors failed; with checked weights and sizes this is a defect.
    #[error("tensor arithmetic: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Asked between pieces of work; `true` ends it with [`WanError::Cancelled`].
pub type Cancel<'a> = &'a dyn Fn() -> bool;

/// Goes on unless cancelled.
pub fn go_on(cancel: Cancel<'_>) -> Result<(), WanError> {
    if cancel() { Err(WanError::Cancelled) } else { Ok(()) }
}

impl WanError {
    /// A [`WanError::Config`] about `path`.
    pub fn config(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Config { path: path.into(), problem: problem.into() }
    }
}
