//! What went wrong in a call, in one form for all services.

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// Of which kind a failure is: what a caller may decide by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// AWS says no.
    Denied,
    /// What was named is not there.
    NotFound,
    /// A condition did not hold (S3 412).
    Precondition,
    /// Two raced (S3 409), or a token is bound already (ECS).
    Conflict,
    /// Too much at a time.
    Throttled,
    /// No answer: network, time-out, a server's fault. The effect may have happened or not.
    Unreachable,
    /// There are no credentials, or they are no good.
    Credentials,
    /// The call itself was wrong.
    Invalid,
}

/// A failed call: which one, what kind, and AWS's own words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation}: {}{message}", code.as_deref().map(|code| format!("{code}: ")).unwrap_or_default())]
pub struct AwsError {
    /// Such as `sqs:SendMessageBatch`, as IAM writes it.
    pub operation: &'static str,
    /// What kind.
    pub kind: Kind,
    /// AWS's error code, if it answered.
    pub code: Option<String>,
    /// AWS's words, or the network's.
    pub message: String,
    /// ARNs that came with it (ECS `ConflictException`).
    pub resources: Vec<String>,
}

impl AwsError {
    /// One that AWS did not make: its answer cannot be used, or it was never asked.
    pub fn new(operation: &'static str, kind: Kind, message: impl Into<String>) -> Self {
        Self { operation, kind, code: None, message: message.into(), resources: Vec::new() }
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Unreachable | Kind::Conflict)
    }
}

/// Makes an [`AwsError`] of any operation's error.
pub(crate) fn from_sdk<E, R>(operation: &'static str) -> impl FnOnce(SdkError<E, R>) -> AwsError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    move |error| {
        let code = error.code().map(str::to_owned);
        let kind = match (&error, code.as_deref()) {
            (SdkError::ServiceError(_), Some(code)) => kind_of(code),
            (SdkError::ServiceError(_), None) => Kind::Unreachable,
            (SdkError::ConstructionFailure(_), _) => Kind::Invalid,
            (SdkError::DispatchFailure(failure), _) if is_credentials(failure) => Kind::Credentials,
            _ => Kind::Unreachable,
        };
        let message = match (&error, error.message()) {
            (SdkError::ServiceError(_), Some(message)) => message.to_owned(),
            _ => chain(&error),
        };
        AwsError { operation, kind, code, message, resources: Vec::new() }
    }
}

fn is_credentials(failure: &aws_smithy_runtime_api::client::result::DispatchFailure) -> bool {
    failure.as_connector_error().is_some_and(|error| chain(error).to_lowercase().contains("credential"))
}

fn kind_of(code: &str) -> Kind {
    // Some services write the namespace before it, some say `Exception`, some do not.
    let code = code.rsplit('#').next().unwrap_or(code);
    match code {
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthorizationError"
        | "AuthorizationErrorException"
        | "Forbidden"
        | "UnauthorizedOperation" => Kind::Denied,
        "AWS.SimpleQueueService.NonExistentQueue"
        | "QueueDoesNotExist"
        | "NotFound"
        | "NotFoundException"
        | "NoSuchKey"
        | "NoSuchBucket"
        | "ResourceNotFoundException"
        | "ParameterNotFound"
        | "ClusterNotFoundException" => Kind::NotFound,
        "PreconditionFailed" => Kind::Precondition,
        "ConditionalRequestConflict" | "ConflictException" => Kind::Conflict,
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "SignatureDoesNotMatch"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken"
        | "InvalidSignatureException" => Kind::Credentials,
        "ServerException"
        | "InternalError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout"
        | "KMSInternalException" => Kind::Unreachable,
        code if code.contains("Throttl")
            || code.contains("TooManyRequests")
            || code == "SlowDown"
            || code == "OverLimit"
            || code == "RequestThrottled" =>
        {
            Kind::Throttled
        }
        _ => Kind::Invalid,
    }
}

/// The whole chain of causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
