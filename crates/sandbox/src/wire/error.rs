//! The one error that an operation can answer with; `wire` renders it in the protocol of the
//! service.

use std::borrow::Cow;

use serde_json::Value;

/// The error response that AWS would have sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AwsError {
    /// HTTP status.
    pub(crate) status: u16,
    /// The code that the SDK sees, such as `ConflictException`.
    pub(crate) code: Cow<'static, str>,
    /// The message, for human readers.
    pub(crate) message: String,
    /// One further member of the error's body, such as `resourceIds`.
    pub(crate) extra: Option<Box<(&'static str, Value)>>,
}

impl AwsError {
    /// An error with any status.
    pub(crate) fn new(status: u16, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { status, code: code.into(), message: message.into(), extra: None }
    }

    /// The caller's fault: status 400.
    pub(crate) fn client(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    /// Adds a member to the body.
    pub(crate) fn with(mut self, name: &'static str, value: Value) -> Self {
        self.extra = Some(Box::new((name, value)));
        self
    }
}

/// The result of every operation.
pub(crate) type Outcome<T> = Result<T, AwsError>;
