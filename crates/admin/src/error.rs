//! Why a command could not do what it was asked to.

use std::io;

use relay_console::Failure;
use relay_policy::ConfigurationError;

/// Says whose hands it is in, and has the exit code.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A file could not be read.
    #[error("{file}: {error}")]
    Read {
        /// Which.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// A configuration that is none.
    #[error("{file}: {error}")]
    Configuration {
        /// Which.
        file: String,
        /// Why, with the place.
        error: ConfigurationError,
    },
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// A file could not be made.
    #[error("{file}: {error}; what was written before it is still there")]
    Create {
        /// Which.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// What was asked for is not there to be done.
    #[error("{0}")]
    Nothing(String),
    /// AWS said no, or nothing.
    #[error("{}", .0.error)]
    Aws(Failure),
    /// The answer could not be written.
    #[error("the answer cannot be written: {0}")]
    Write(#[from] io::Error),
}

impl AdminError {
    /// As it is printed.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Aws(failure) => failure.clone(),
            error => Failure::usage(error.to_string()),
        }
    }

    /// 1: the configuration is at fault, or there is nothing to stop. 2: the call is, or there was no way to answer.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration { .. } | Self::Nothing(_) => 1,
            Self::Read { .. } | Self::Create { .. } | Self::Usage(_) | Self::Aws(_) | Self::Write(_) => 2,
        }
    }
}

impl From<Failure> for AdminError {
    fn from(failure: Failure) -> Self {
        Self::Aws(failure)
    }
}
