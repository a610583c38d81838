//! S3: buckets of objects with conditional writes, by path-style addresses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use md5::{Digest, Md5};
use serde_json::Value;

use crate::clock::{http_date, iso_millis, now_ms};
use crate::dispatch::{Answer, Call, Handler};
use crate::error::{AwsError, Outcome};
use crate::resource_policy::{Policy, authorise};
use crate::wire::xml_escape;
use crate::world::World;

pub(crate) const OPERATIONS: &[(&str, Handler)] = &[
    ("PutObject", Handler::Now(put)),
    ("GetObject", Handler::Now(get)),
    ("HeadObject", Handler::Now(get)),
    ("DeleteObject", Handler::Now(delete)),
    ("ListObjectsV2", Handler::Now(list)),
    ("CreateBucket", Handler::Now(create_bucket)),
    ("HeadBucket", Handler::Now(head_bucket)),
];

#[derive(Debug, Default)]
pub(crate) struct S3 {
    buckets: Mutex<BTreeMap<String, Bucket>>,
}

#[derive(Debug, Default)]
struct Bucket {
    account: String,
    policy: Option<Policy>,
    objects: BTreeMap<String, Object>,
}

#[derive(Debug, Clone)]
struct Object {
    body: Bytes,
    etag: String,
    modified_ms: u64,
    /// Content-Type and `x-amz-meta-*`.
    headers: Vec<(String, String)>,
}

impl S3 {
    pub(crate) fn make(&self, name: &str, account: &str, policy: Option<&str>) -> Result<(), String> {
        let bucket = Bucket {
            account: account.to_owned(),
            policy: policy.map(Policy::parse).transpose()?,
            objects: BTreeMap::new(),
        };
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), bucket);
        Ok(())
    }
}

/// The operation that a path-style request means.
pub(crate) fn operation(method: &hyper::Method, bucket: &str, key: &str) -> &'static str {
    match (method.as_str(), bucket.is_empty(), key.is_empty()) {
        ("PUT", false, false) => "PutObject",
        ("GET", false, false) => "GetObject",
        ("HEAD", false, false) => "HeadObject",
        ("DELETE", false, false) => "DeleteObject",
        ("GET", false, true) => "ListObjectsV2",
        ("PUT", false, true) => "CreateBucket",
        ("HEAD", false, true) => "HeadBucket",
        _ => "Unknown",
    }
}

fn with_bucket<T>(world: &World, call: &Call, action: &str, f: impl FnOnce(&mut Bucket) -> Outcome<T>) -> Outcome<T> {
    let mut buckets = world.s3.buckets.lock().unwrap_or_else(PoisonError::into_inner);
    let bucket = buckets
        .get_mut(&call.rest.bucket)
        .ok_or_else(|| AwsError::new(404, "NoSuchBucket", "The specified bucket does not exist"))?;
    let arn = match call.rest.key.as_str() {
        "" => format!("arn:aws:s3:::{}", call.rest.bucket),
        key => format!("arn:aws:s3:::{}/{key}", call.rest.bucket),
    };
    authorise(&bucket.account, bucket.policy.as_ref(), &call.principal, action, &arn)?;
    f(bucket)
}

fn header<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.rest.headers.get(name).and_then(|v| v.to_str().ok())
}

fn no_key() -> AwsError {
    AwsError::new(404, "NoSuchKey", "The specified key does not exist.")
}

fn precondition() -> AwsError {
    AwsError::new(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
}

fn put(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    if call.rest.headers.contains_key("x-amz-copy-source") {
        return Err(AwsError::new(501, "NotImplemented", "Copies are not here."));
    }
    if call.rest.key.len() > 1024 {
        return Err(AwsError::client("KeyTooLongError", "Your key is too long"));
    }
    if let Some(md5) = header(call, "content-md5")
        && md5 != data_encoding::BASE64.encode(&Md5::digest(&call.body))
    {
        return Err(AwsError::client("BadDigest", "The Content-MD5 you specified did not match what we received."));
    }
    let body = call.body.clone();
    let kept = |name: &str| name == "content-type" || name.starts_with("x-amz-meta-");
    let headers = call.rest.headers.iter().filter(|(name, _)| kept(name.as_str()));
    let headers = headers.filter_map(|(n, v)| Some((n.as_str().to_owned(), v.to_str().ok()?.to_owned()))).collect();
    let etag = format!("\"{}\"", HEXLOWER.encode(&Md5::digest(&body)));
    let object = Object { body, etag: etag.clone(), modified_ms: now_ms(), headers };
    call.note("bytes", object.body.len());
    let (none_match, matching) = (header(call, "if-none-match"), header(call, "if-match"));
    with_bucket(world, call, "s3:PutObject", |bucket| {
        let current = bucket.objects.get(&call.rest.key);
        match none_match {
            Some("*") if current.is_some() => return Err(precondition()),
            Some("*") | None => {}
            Some(_) => return Err(AwsError::new(501, "NotImplemented", "If-None-Match takes only * here.")),
        }
        if let Some(expected) = matching {
            // On a key that is not there, AWS says 404, not 412.
            let current = current.ok_or_else(no_key)?;
            if current.etag.trim_matches('"') != expected.trim_matches('"') {
                return Err(precondition());
            }
        }
        bucket.objects.insert(call.rest.key.clone(), object);
        Ok(Answer::Rest { status: 200, headers: vec![("etag", etag)], body: Bytes::new() })
    })
}

fn get(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let object = with_bucket(world, call, "s3:GetObject", |bucket| {
        bucket.objects.get(&call.rest.key).cloned().ok_or_else(no_key)
    })?;
    if header(call, "if-match").is_some_and(|e| e.trim_matches('"') != object.etag.trim_matches('"')) {
        return Err(precondition());
    }
    let mut headers = vec![
        ("etag", object.etag),
        ("last-modified", http_date(object.modified_ms)),
        ("accept-ranges", "bytes".to_owned()),
    ];
    for (name, value) in object.headers {
        if name == "content-type" {
            headers.push(("content-type", value));
        }
    }
    if call.operation == "HeadObject" {
        // The body itself is taken off when the answer is rendered; its length must stay.
        headers.push(("content-length", object.body.len().to_string()));
    }
    Ok(Answer::Rest { status: 200, headers, body: object.body })
}

fn delete(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let matching = header(call, "if-match").map(str::to_owned);
    with_bucket(world, call, "s3:DeleteObject", |bucket| {
        if let (Some(expected), Some(object)) = (&matching, bucket.objects.get(&call.rest.key))
            && expected != "*"
            && object.etag.trim_matches('"') != expected.trim_matches('"')
        {
            return Err(precondition());
        }
        bucket.objects.remove(&call.rest.key);
        Ok(Answer::Rest { status: 204, headers: Vec::new(), body: Bytes::new() })
    })
}

fn list(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let query = |name: &str| call.rest.query.get(name).and_then(Value::as_str).unwrap_or_default();
    let (prefix, delimiter) = (query("prefix").to_owned(), query("delimiter").to_owned());
    let after = query("continuation-token").max(query("start-after")).to_owned();
    let most = query("max-keys").parse().unwrap_or(1000_usize).min(1000);
    call.note("prefix", prefix.as_str());
    with_bucket(world, call, "s3:ListBucket", |bucket| {
        let mut inner = String::new();
        let mut common: Vec<String> = Vec::new();
        let (mut count, mut last, mut more) = (0, String::new(), false);
        for (key, object) in bucket.objects.range(prefix.clone()..).take_while(|(k, _)| k.starts_with(&prefix)) {
            if *key <= after && !after.is_empty() {
                continue;
            }
            let rest = key.get(prefix.len()..).unwrap_or_default();
            let folder = (!delimiter.is_empty()).then(|| rest.find(&delimiter)).flatten();
            let folder = folder.map(|at| format!("{prefix}{}{delimiter}", rest.get(..at).unwrap_or_default()));
            if folder.as_ref().is_some_and(|f| common.contains(f)) {
                last.clone_from(key);
                continue;
            }
            if count == most {
                more = true;
                break;
            }
            count += 1;
            last.clone_from(key);
            match folder {
                Some(folder) => common.push(folder),
                None => inner.push_str(&format!(
                    "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
                     <StorageClass>STANDARD</StorageClass></Contents>",
                    xml_escape(key),
                    iso_millis(object.modified_ms),
                    xml_escape(&object.etag),
                    object.body.len()
                )),
            }
        }
        for folder in common {
            inner.push_str(&format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", xml_escape(&folder)));
        }
        if more {
            inner.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", xml_escape(&last)));
        }
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>{}</Name><Prefix>{}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys>\
             <IsTruncated>{more}</IsTruncated>{inner}</ListBucketResult>",
            xml_escape(&call.rest.bucket),
            xml_escape(&prefix)
        );
        let headers = vec![("content-type", "application/xml".to_owned())];
        Ok(Answer::Rest { status: 200, headers, body: Bytes::from(text) })
    })
}

fn create_bucket(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let mut buckets = world.s3.buckets.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(existing) = buckets.get(&call.rest.bucket) {
        let own = existing.account == call.principal.account;
        let code = if own { "BucketAlreadyOwnedByYou" } else { "BucketAlreadyExists" };
        return Err(AwsError::new(409, code, "The requested bucket name is not available."));
    }
    let bucket = Bucket { account: call.principal.account.clone(), ..Bucket::default() };
    buckets.insert(call.rest.bucket.clone(), bucket);
    let headers = vec![("location", format!("/{}", call.rest.bucket))];
    Ok(Answer::Rest { status: 200, headers, body: Bytes::new() })
}

fn head_bucket(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    with_bucket(world, call, "s3:ListBucket", |_| {
        let headers = vec![("x-amz-bucket-region", crate::REGION.to_owned())];
        Ok(Answer::Rest { status: 200, headers, body: Bytes::new() })
    })
}
