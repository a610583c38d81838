//! S3: small objects written under a condition, and artifacts.

use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_types::timeout::TimeoutConfig;
use bytes::Bytes;

use crate::error::from_sdk;
use crate::sdk::CONNECT;
use crate::{AwsError, Kind, Sdk};

/// S3.
#[derive(Clone, Debug)]
pub struct Objects {
    client: aws_sdk_s3::Client,
}

/// Under which condition an object is written.
#[derive(Clone, Copy, Debug)]
pub enum Condition<'a> {
    /// Always.
    None,
    /// Only when there is no such object.
    Absent,
    /// Only when the object is still this one.
    Matches(&'a str),
}

/// An object and its version.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its ETag, for [`Condition::Matches`].
    pub etag: String,
}

impl Objects {
    /// From a set-up. With an endpoint of its own there is no name for each bucket, so the path carries it.
    pub fn new(sdk: &Sdk) -> Self {
        let config = aws_sdk_s3::config::Builder::from(&sdk.config)
            .force_path_style(sdk.config.endpoint_url().is_some())
            .build();
        Self { client: aws_sdk_s3::Client::from_conf(config) }
    }

    /// Writes an object and returns its ETag. [`Kind::Precondition`]: the condition did not hold; the SDK may have repeated a write whose answer was lost, so the
    /// object may be the caller's own. [`Kind::Conflict`]: two raced; try again.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        bytes: impl Into<Bytes>,
        condition: Condition<'_>,
    ) -> Result<String, AwsError> {
        let mut call = self.client.put_object().bucket(bucket).key(key).body(ByteStream::from(bytes.into()));
        match condition {
            Condition::None => {}
            Condition::Absent => call = call.if_none_match("*"),
            Condition::Matches(etag) => call = call.if_match(etag),
        }
        let output = call.send().await.map_err(from_sdk("s3:PutObject"))?;
        Ok(output.e_tag.unwrap_or_default())
    }

    /// Reads an object of at most `max` bytes; `None` when there is none.
    pub async fn get(&self, bucket: &str, key: &str, max: u64) -> Result<Option<Object>, AwsError> {
        let output = match self.client.get_object().bucket(bucket).key(key).send().await {
            Ok(output) => output,
            Err(error) => {
                let error = from_sdk("s3:GetObject")(error);
                return if error.kind == Kind::NotFound { Ok(None) } else { Err(error) };
            }
        };
        let too_large = |size: u64| {
            AwsError::new("s3:GetObject", Kind::Invalid, format!("the object has {size} bytes, {max} are allowed"))
        };
        if let Some(size) = output.content_length().and_then(|size| u64::try_from(size).ok()).filter(|size| *size > max)
        {
            return Err(too_large(size));
        }
        let etag = output.e_tag().unwrap_or_default().to_owned();
        let mut bytes = Vec::new();
        let mut body = output.body;
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| AwsError::new("s3:GetObject", Kind::Unreachable, error.to_string()))?;
            bytes.extend_from_slice(&part);
            if bytes.len() as u64 > max {
                return Err(too_large(bytes.len() as u64));
            }
        }
        Ok(Some(Object { bytes, etag }))
    }

    /// Writes a file to a key.
    pub async fn put_file(&self, bucket: &str, key: &str, path: &std::path::Path) -> Result<(), AwsError> {
        let body = ByteStream::from_path(path)
            .await
            .map_err(|error| AwsError::new("s3:PutObject", Kind::Invalid, error.to_string()))?;
        // The bound on an attempt is for answers: a large file may take as long as its line allows. A line that stands still is noticed by
        // the SDK's stalled-stream protection.
        let patient = TimeoutConfig::builder().connect_timeout(CONNECT).disable_operation_attempt_timeout().build();
        self.client
            .put_object()
            .bucket(bucket)
            .key(key)
            .body(body)
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(patient))
            .send()
            .await
            .map(|_| ())
            .map_err(from_sdk("s3:PutObject"))
    }

    /// Reads an object of at most `max` bytes part by part, so that memory does not grow with it; `false` when there is none.
    pub async fn fetch(
        &self,
        bucket: &str,
        key: &str,
        max: u64,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<bool, AwsError> {
        let output = match self.client.get_object().bucket(bucket).key(key).send().await {
            Ok(output) => output,
            Err(error) => {
                let error = from_sdk("s3:GetObject")(error);
                return if error.kind == Kind::NotFound { Ok(false) } else { Err(error) };
            }
        };
        let mut size = 0_u64;
        let mut body = output.body;
        while let Some(part) = body.next().await {
            let part = part.map_err(|error| AwsError::new("s3:GetObject", Kind::Unreachable, error.to_string()))?;
            size += part.len() as u64;
            if size > max {
                return Err(AwsError::new(
                    "s3:GetObject",
                    Kind::Invalid,
                    format!("the object has more than the {max} bytes that are allowed"),
                ));
            }
            take(&part).map_err(|error| AwsError::new("s3:GetObject", Kind::Invalid, error.to_string()))?;
        }
        Ok(true)
    }

    /// Reads an object and forgets it; the error keeps S3's own code. Not HEAD, whose 404 cannot tell a missing key from a missing bucket.
    pub async fn look(&self, bucket: &str, key: &str) -> Result<(), AwsError> {
        self.client.get_object().bucket(bucket).key(key).send().await.map(|_| ()).map_err(from_sdk("s3:GetObject"))
    }

    /// Whether an object is there.
    pub async fn exists(&self, bucket: &str, key: &str) -> Result<bool, AwsError> {
        match self.client.head_object().bucket(bucket).key(key).send().await {
            Ok(_) => Ok(true),
            Err(error) => {
                let error = from_sdk("s3:HeadObject")(error);
                if error.kind == Kind::NotFound { Ok(false) } else { Err(error) }
            }
        }
    }
}
