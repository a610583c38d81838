//! The error of a failed call, in one form for all AWS services.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// The kind of a failure, from which a caller decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// AWS denied the call, for want of a permission.
    Denied,
    /// The named resource does not exist.
    NotFound,
    /// A condition did not hold (S3's HTTP status 412).
    Precondition,
    /// Two calls raced (S3's HTTP status 409), or a client token is already bound (ECS).
    Conflict,
    /// Too many calls in too short a time.
    Throttled,
    /// No usable answer: a network failure, a timeout or a server error. The call may have had its
    /// effect or not.
    Unreachable,
    /// Credentials are missing or not valid.
    Credentials,
    /// The call was wrong, its result is not acceptable, or AWS's error code is not a known one.
    Invalid,
}

/// A failed call: the operation, the kind of failure and AWS's message.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation}: {}{message}", code.as_deref().map(|code| format!("{code}: ")).unwrap_or_default())]
pub struct AwsError {
    /// The operation in IAM's notation, such as `sqs:SendMessageBatch`.
    pub operation: &'static str,
    /// The kind of failure.
    pub kind: Kind,
    /// AWS's error code, if it answered with one.
    pub code: Option<String>,
    /// The message, from AWS or from the network.
    pub message: String,
    /// ARNs that the error names (ECS `ConflictException`).
    pub resources: Vec<String>,
}

impl AwsError {
    /// An error that does not come from AWS: its answer cannot be used, or it was never asked.
    pub fn new(operation: &'static str, kind: Kind, message: impl Into<String>) -> Self {
        Self { operation, kind, code: None, message: message.into(), resources: Vec::new() }
    }

    /// Returns whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Throttled | Kind::Unreachable | Kind::Conflict)
    }
}

/// Converts the error of any operation into an [`AwsError`].
pub(crate) fn from_sdk<E>(operation: &'static str) -> impl FnOnce(SdkError<E, HttpResponse>) -> AwsError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    move |error| {
        let code = error.code().map(str::to_owned);
        if let (None, Some(answer)) = (&code, error.raw_response()) {
            return not_aws(operation, answer.status().as_u16());
        }
        let kind = match (&error, code.as_deref()) {
            (SdkError::ServiceError(_), Some(code)) => kind_of(code),
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

/// The error of an answer that has no code of AWS's: a proxy or a gateway has answered.
fn not_aws(operation: &'static str, status: u16) -> AwsError {
    let kind = if status == 429 { Kind::Throttled } else { Kind::Unreachable };
    let who = if status == 407 { "the proxy wants other credentials" } else { "perhaps a proxy" };
    AwsError::new(operation, kind, format!("HTTP status {status}, and the answer is not AWS's: {who}"))
}

fn is_credentials(failure: &aws_smithy_runtime_api::client::result::DispatchFailure) -> bool {
    failure.as_connector_error().is_some_and(|error| chain(error).to_lowercase().contains("credential"))
}

fn kind_of(code: &str) -> Kind {
    // Some services prefix the code with a namespace. Some codes end in `Exception`, others do not.
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

/// Joins the whole chain of causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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
