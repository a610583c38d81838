//! The SDK's set-up, in one place: HTTP client, timeouts, retries, endpoint rules, user agent.

use std::time::Duration;

use aws_config::{AppName, BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use relay_protocol::Region;

/// The timeout of one attempt. A long poll lasts 20 s, so a longer attempt hangs on a dead peer.
/// The SDK has no such timeout of its own.
const ATTEMPT: Duration = Duration::from_secs(25);
pub(crate) const CONNECT: Duration = Duration::from_secs(3);

/// The set-up from which each adapter creates its client.
#[derive(Clone, Debug)]
pub struct Sdk {
    pub(crate) config: SdkConfig,
}

impl Sdk {
    /// Loads the set-up from the environment, as every AWS tool does. This serves the command lines
    /// and the launcher, whose environment belongs to their operator. `region` takes precedence.
    pub async fn from_environment(region: Option<&Region>) -> Self {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client(None))
            .timeout_config(timeouts())
            .retry_config(retries());
        if let Some(region) = region {
            loader = loader.region(aws_config::Region::new(region.to_string()));
        }
        if let Some(name) = app_name() {
            loader = loader.app_name(name);
        }
        Self { config: loader.load().await }
    }

    /// Makes the set-up of the runner from pinned data and the container's credentials alone.
    /// RunTask overrides can set any variable, so this reads no region, proxy or endpoint from the
    /// environment (clause RUN-3). `authorities` are the PEM certificates that servers are verified
    /// against; without them, the image's own apply.
    pub fn pinned(region: &Region, endpoint: Option<&str>, authorities: Option<Vec<u8>>) -> Self {
        let http = http_client(authorities);
        let provider_config =
            aws_config::provider_config::ProviderConfig::without_region().with_http_client(http.clone());
        let credentials = aws_config::ecs::EcsCredentialsProvider::builder().configure(&provider_config).build();
        Self::with(region, endpoint, SharedCredentialsProvider::new(credentials), http)
    }

    /// Returns this set-up with other credentials.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        let config = self
            .config
            .clone()
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        Self { config }
    }

    fn with(
        region: &Region,
        endpoint: Option<&str>,
        credentials: SharedCredentialsProvider,
        http: SharedHttpClient,
    ) -> Self {
        let mut builder = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(aws_config::Region::new(region.to_string()))
            .credentials_provider(credentials)
            .http_client(http)
            .timeout_config(timeouts())
            .retry_config(retries())
            .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(
                aws_smithy_async::rt::sleep::TokioSleep::new(),
            ))
            .time_source(
                aws_smithy_async::time::SharedTimeSource::new(aws_smithy_async::time::SystemTimeSource::new()),
            );
        builder.set_app_name(app_name());
        if let Some(endpoint) = endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        Self { config: builder.build() }
    }

    /// Returns the region in force, if there is one.
    pub fn region(&self) -> Option<String> {
        self.config.region().map(ToString::to_string)
    }

    /// Returns the endpoint that replaces AWS's own, if one is set. The sandbox sets one, and a
    /// hostile environment could.
    pub fn endpoint(&self) -> Option<&str> {
        self.config.endpoint_url()
    }
}

fn http_client(authorities: Option<Vec<u8>>) -> SharedHttpClient {
    let builder = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let context = authorities.and_then(|pem| {
        TlsContext::builder().with_trust_store(TrustStore::empty().with_pem_certificate(pem)).build().ok()
    });
    match context {
        Some(context) => builder.tls_context(context).build_https(),
        None => builder.build_https(),
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build()
}

fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(4)
        .with_initial_backoff(Duration::from_millis(200))
        .with_max_backoff(Duration::from_secs(5))
}

fn app_name() -> Option<AppName> {
    AppName::new(concat!("relay-", env!("CARGO_PKG_VERSION"))).ok()
}
