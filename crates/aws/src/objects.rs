//! S3: conditional writes of small objects, and artifacts.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_types::timeout::TimeoutConfig;
use bytes::Bytes;
use relay_protocol::encoding::Hasher;
use relay_protocol::{Digest, Timestamp};

use crate::error::from_sdk;
use crate::sdk::CONNECT;
use crate::{AwsError, Kind, Sdk};

/// How many pages of a thousand names [`Objects::list`] reads.
const PAGES_MAX: usize = 10;

/// How many pages [`Objects::list_all`] reads: ten million names.
const ALL_PAGES: usize = 10_000;

/// A client of S3.
#[derive(Clone, Debug)]
pub struct Objects {
    client: aws_sdk_s3::Client,
}

/// The condition under which an object is written.
#[derive(Clone, Copy, Debug)]
pub enum Condition<'a> {
    /// Write in any case.
    None,
    /// Write only if no such object exists.
    Absent,
    /// Write only if the object still has this ETag.
    Matches(&'a str),
}

/// An object with its version.
#[derive(Clone, Debug)]
pub struct Object {
    /// The content.
    pub bytes: Vec<u8>,
    /// The ETag, for [`Condition::Matches`].
    pub etag: String,
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub key: String,
    /// When it was last written, in whole seconds.
    pub written_at: Timestamp,
    /// Its size in bytes.
    pub size: u64,
}

impl Objects {
    /// Creates the client from `sdk`. A custom endpoint has no host name for each bucket, so the
    /// path names the bucket then.
    pub fn new(sdk: &Sdk) -> Self {
        let config = aws_sdk_s3::config::Builder::from(&sdk.config)
            .force_path_style(sdk.config.endpoint_url().is_some())
            .build();
        Self { client: aws_sdk_s3::Client::from_conf(config) }
    }

    /// Writes an object and returns its ETag.
    ///
    /// # Errors
    ///
    /// - [`Kind::Precondition`]: the condition did not hold. The SDK may have repeated a write
    ///   whose answer was lost, so the object may be the caller's own.
    /// - [`Kind::Conflict`]: two writes raced; try again.
    /// - Otherwise the error of the call.
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

    /// Writes an object that is written once. Returns `false` if it exists already.
    ///
    /// # Errors
    ///
    /// As for [`Objects::put`], without [`Kind::Precondition`].
    pub async fn put_once(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) -> Result<bool, AwsError> {
        match self.put(bucket, key, bytes, Condition::Absent).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::Precondition => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the names of the objects whose names begin with `prefix`, ten thousand at most.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<String>, AwsError> {
        let mut names = Vec::new();
        let take = |page: ListObjectsV2Output| {
            names.extend(page.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
        };
        self.pages(bucket, prefix, (None, PAGES_MAX), take).await?;
        Ok(names)
    }

    /// Returns the objects whose names begin with `prefix` and that `keep` wants, in the order of
    /// their names. Memory grows with these alone.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn list_all(
        &self,
        bucket: &str,
        prefix: &str,
        keep: impl Fn(&Listed) -> bool,
    ) -> Result<Vec<Listed>, AwsError> {
        let mut all = Vec::new();
        let listed = |object: aws_sdk_s3::types::Object| {
            let written_at = Timestamp::from_unix(object.last_modified()?.secs());
            let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default();
            Some(Listed { key: object.key?, written_at, size })
        };
        let take = |page: ListObjectsV2Output| {
            all.extend(page.contents.unwrap_or_default().into_iter().filter_map(listed).filter(|object| keep(object)));
        };
        self.pages(bucket, prefix, (None, ALL_PAGES), take).await?;
        Ok(all)
    }

    /// Returns the folders directly inside the folder `prefix`, which ends with a slash, or is
    /// empty. So do the names.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn folders(&self, bucket: &str, prefix: &str) -> Result<Vec<String>, AwsError> {
        let mut folders = Vec::new();
        let take = |page: ListObjectsV2Output| {
            folders.extend(page.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix));
        };
        self.pages(bucket, prefix, (Some("/"), ALL_PAGES), take).await?;
        Ok(folders)
    }

    /// Hands each page of a list to `take`, up to `most` pages.
    async fn pages(
        &self,
        bucket: &str,
        prefix: &str,
        (delimiter, most): (Option<&str>, usize),
        mut take: impl FnMut(ListObjectsV2Output),
    ) -> Result<(), AwsError> {
        let mut next = None;
        for _ in 0..most {
            let call = self.client.list_objects_v2().bucket(bucket).prefix(prefix).set_continuation_token(next);
            let page = call.set_delimiter(delimiter.map(str::to_owned)).send().await;
            let page = page.map_err(from_sdk("s3:ListObjectsV2"))?;
            next = page.next_continuation_token().map(str::to_owned);
            take(page);
            if next.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Reads an object of at most `max` bytes. Returns `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Kind::Invalid`] when the object is larger; otherwise the error of the call.
    pub async fn get(&self, bucket: &str, key: &str, max: u64) -> Result<Option<Object>, AwsError> {
        let output = match self.client.get_object().bucket(bucket).key(key).send().await {
            Ok(output) => output,
            Err(error) => {
                let error = from_sdk("s3:GetObject")(error);
                return if error.kind == Kind::NotFound { Ok(None) } else { Err(error) };
            }
        };
        let too_large = |size: u64| {
            AwsError::new("s3:GetObject", Kind::Invalid, format!("the object is {size} bytes; the limit is {max}"))
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

    /// Reads an object of at most `max` bytes. One that is larger counts as missing, like one that
    /// does not exist: a reader that verifies what it finds believes neither.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn get_fitting(&self, bucket: &str, key: &str, max: u64) -> Result<Option<Object>, AwsError> {
        match self.get(bucket, key, max).await {
            Err(error) if error.kind == Kind::Invalid => Ok(None),
            object => object,
        }
    }

    /// Uploads the file at `path`.
    ///
    /// # Errors
    ///
    /// [`Kind::Invalid`] when the file cannot be opened; otherwise the error of the call.
    pub async fn put_file(&self, bucket: &str, key: &str, path: &std::path::Path) -> Result<(), AwsError> {
        let body = ByteStream::from_path(path)
            .await
            .map_err(|error| AwsError::new("s3:PutObject", Kind::Invalid, error.to_string()))?;
        // The timeout of an attempt is meant for small answers: a large file may take as long as
        // its connection needs. The SDK's stalled-stream protection notices a connection that
        // stands still.
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

    /// Reads an object of at most `max` bytes in parts and hands each to `take`, so that memory
    /// does not grow with the object. Returns `false` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Kind::Invalid`] when the object is larger or `take` fails; otherwise the error of the
    /// call.
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
                    format!("the object is larger than the limit of {max} bytes"),
                ));
            }
            take(&part).map_err(|error| AwsError::new("s3:GetObject", Kind::Invalid, error.to_string()))?;
        }
        Ok(true)
    }

    /// Reads an object of at most `max` bytes and returns the SHA-256 of its bytes. Returns `None`
    /// if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Kind::Invalid`] when the object is larger; otherwise the error of the call.
    pub async fn digest(&self, bucket: &str, key: &str, max: u64) -> Result<Option<Digest>, AwsError> {
        let mut hasher = Hasher::default();
        let found = self.fetch(bucket, key, max, |part| {
            hasher.push(part);
            Ok(())
        });
        Ok(found.await?.then(|| hasher.digest()))
    }

    /// Reads an object and discards it, to see whether it can be read. It does not use HEAD, whose
    /// 404 cannot tell a missing key from a missing bucket.
    ///
    /// # Errors
    ///
    /// The error of the call, with S3's own code.
    pub async fn look(&self, bucket: &str, key: &str) -> Result<(), AwsError> {
        self.client.get_object().bucket(bucket).key(key).send().await.map(|_| ()).map_err(from_sdk("s3:GetObject"))
    }

    /// Returns whether an object exists.
    ///
    /// # Errors
    ///
    /// The error of the call.
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
