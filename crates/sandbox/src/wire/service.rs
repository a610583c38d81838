//! The services, their names, and each service's code for the same kind of error.

/// The AWS services, and three local endpoints that only a task or the function calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Service {
    /// The endpoint that gives a task its credentials.
    Credentials,
    Ecs,
    Events,
    Kms,
    Lambda,
    /// The task metadata endpoint.
    Metadata,
    /// The Lambda Runtime API, and the start of a process that will poll it.
    Runtime,
    S3,
    SecretsManager,
    Sns,
    Sqs,
    Ssm,
    Sts,
}

impl Service {
    pub(crate) const ALL: [Service; 13] = [
        Service::Credentials,
        Service::Ecs,
        Service::Events,
        Service::Kms,
        Service::Lambda,
        Service::Metadata,
        Service::Runtime,
        Service::S3,
        Service::SecretsManager,
        Service::Sns,
        Service::Sqs,
        Service::Ssm,
        Service::Sts,
    ];

    /// The name in the scope of a SigV4 credential.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::Credentials => "credentials",
            Service::Ecs => "ecs",
            Service::Events => "events",
            Service::Kms => "kms",
            Service::Lambda => "lambda",
            Service::Metadata => "metadata",
            Service::Runtime => "runtime",
            Service::S3 => "s3",
            Service::SecretsManager => "secretsmanager",
            Service::Sns => "sns",
            Service::Sqs => "sqs",
            Service::Ssm => "ssm",
            Service::Sts => "sts",
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }

    pub(crate) fn internal_error(self) -> &'static str {
        match self {
            Service::Ecs => "ServerException",
            Service::Events => "InternalException",
            Service::Kms => "KMSInternalException",
            Service::S3 | Service::Sns => "InternalError",
            Service::SecretsManager => "InternalServiceError",
            Service::Ssm => "InternalServerError",
            _ => "InternalFailure",
        }
    }

    pub(crate) fn throttle_error(self) -> &'static str {
        match self {
            Service::S3 => "SlowDown",
            Service::Sqs => "RequestThrottled",
            Service::Sns | Service::Sts => "Throttling",
            _ => "ThrottlingException",
        }
    }
}
