/// What an engine could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The sandbox has ended.
    #[error("the sandbox has ended: {0}")]
    Ended(String),
    /// This engine or this machine cannot.
    #[error("{0}")]
    Unsupported(String),
    /// A layer is not there.
    #[error("there is no layer {0}")]
    UnknownLayer(crate::LayerId),
    /// A limit was asked for that the engine does not give.
    #[error("{0}")]
    InvalidSpec(String),
    /// The machine is full: ids, memory, descriptors or the configured number of sandboxes.
    #[error("{0}")]
    Exhausted(String),
    /// A step failed.
    #[error("{what}")]
    Failed {
        /// The step and the object it failed on.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RuntimeError {
    /// A step that failed, with its cause.
    pub fn failed(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed {
            what: what.into(),
            source: source.into(),
        }
    }
}
