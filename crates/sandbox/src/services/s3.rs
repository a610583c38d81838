//! S3: buckets of objects with conditional writes, by path-style addresses.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest, Md5};

use super::call::Call;
use super::contract::{Effect, Reaction, Table};
use super::resource_policy::{Policy, authorise};
use crate::wire::answer::{Answer, xml_escape};
use crate::wire::error::{AwsError, Outcome};
use crate::wire::times::{http_date, iso_millis};

pub(crate) const OPERATIONS: Table<S3> = &[
    ("PutObject", S3::put),
    ("GetObject", S3::get),
    ("HeadObject", S3::get),
    ("DeleteObject", S3::delete),
    ("ListObjectsV2", S3::list),
];

/// Maximum length of a key, in bytes.
const KEY_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct S3 {
    buckets: BTreeMap<String, Bucket>,
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
    content_type: Option<String>,
}

impl Object {
    /// Whether `tag` is the object's entity tag, with or without quotes.
    fn has_tag(&self, tag: &str) -> bool {
        self.etag.trim_matches('"') == tag.trim_matches('"')
    }
}

impl S3 {
    /// Makes an empty bucket.
    pub(crate) fn make(&mut self, name: &str, account: &str, policy: Option<&str>) -> Result<(), String> {
        let policy = policy.map(Policy::parse).transpose()?;
        self.buckets.insert(name.to_owned(), Bucket { account: account.to_owned(), policy, ..Bucket::default() });
        Ok(())
    }

    /// Finds the bucket that a call names, and checks that the caller may perform `action` in it.
    fn bucket(&mut self, call: &Call, action: &str) -> Outcome<&mut Bucket> {
        let (name, key) = (&call.rest.bucket, &call.rest.key);
        let bucket = self.buckets.get_mut(name);
        let bucket = bucket.ok_or_else(|| AwsError::new(404, "NoSuchBucket", "The specified bucket does not exist"))?;
        let slash = if key.is_empty() { "" } else { "/" };
        let arn = format!("arn:aws:s3:::{name}{slash}{key}");
        authorise(&bucket.account, bucket.policy.as_ref(), &call.principal, action, &arn)?;
        Ok(bucket)
    }

    fn put(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        if call.rest.header("x-amz-copy-source").is_some() {
            return Err(AwsError::new(501, "NotImplemented", "The sandbox does not support copying objects."));
        }
        if call.rest.key.len() > KEY_MAX {
            return Err(AwsError::client("KeyTooLongError", "Your key is too long"));
        }
        if call.rest.header("content-md5").is_some_and(|md5| md5 != BASE64.encode(&Md5::digest(&call.body))) {
            let message = "The Content-MD5 you specified did not match what we received.";
            return Err(AwsError::client("BadDigest", message));
        }
        call.note("bytes", call.body.len());
        if let Some(tag) = call.rest.header("if-none-match").map(str::to_owned) {
            call.note("if_none_match", tag);
        }
        let body = call.body.clone();
        let etag = format!("\"{}\"", HEXLOWER.encode(&Md5::digest(&body)));
        let content_type = call.rest.header("content-type").map(str::to_owned);
        let object = Object { body, etag: etag.clone(), modified_ms: call.now.ms, content_type };
        let bucket = self.bucket(call, "s3:PutObject")?;
        let current = bucket.objects.get(&call.rest.key);
        match call.rest.header("if-none-match") {
            Some("*") if current.is_some() => return Err(precondition()),
            Some("*") | None => {}
            Some(_) => {
                return Err(AwsError::new(501, "NotImplemented", "The sandbox supports only * for If-None-Match."));
            }
        }
        if let Some(expected) = call.rest.header("if-match")
            // For a missing key, AWS returns 404, not 412.
            && !current.ok_or_else(no_key)?.has_tag(expected)
        {
            return Err(precondition());
        }
        bucket.objects.insert(call.rest.key.clone(), object);
        Ok(Answer::Rest { status: 200, headers: vec![("etag", etag)], body: Bytes::new() }.into())
    }

    fn get(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let object = self.bucket(call, "s3:GetObject")?.objects.get(&call.rest.key).ok_or_else(no_key)?;
        if call.rest.header("if-match").is_some_and(|tag| !object.has_tag(tag)) {
            return Err(precondition());
        }
        let mut headers = vec![
            ("etag", object.etag.clone()),
            ("last-modified", http_date(object.modified_ms)),
            ("accept-ranges", "bytes".to_owned()),
        ];
        headers.extend(object.content_type.clone().map(|value| ("content-type", value)));
        if call.operation == "HeadObject" {
            // Rendering removes the body, but the response must still state its length.
            headers.push(("content-length", object.body.len().to_string()));
        }
        Ok(Answer::Rest { status: 200, headers, body: object.body.clone() }.into())
    }

    fn delete(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let bucket = self.bucket(call, "s3:DeleteObject")?;
        if let (Some(expected), Some(object)) = (call.rest.header("if-match"), bucket.objects.get(&call.rest.key))
            && expected != "*"
            && !object.has_tag(expected)
        {
            return Err(precondition());
        }
        bucket.objects.remove(&call.rest.key);
        Ok(Answer::Rest { status: 204, headers: Vec::new(), body: Bytes::new() }.into())
    }

    fn list(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let query = |name: &str| call.params.text_or_empty(name).to_owned();
        let (prefix, delimiter) = (query("prefix"), query("delimiter"));
        let after = query("continuation-token").max(query("start-after"));
        let most = query("max-keys").parse().unwrap_or(1000_usize).min(1000);
        call.note("prefix", prefix.as_str());
        let bucket = self.bucket(call, "s3:ListBucket")?;
        let page = page(&bucket.objects, &prefix, &delimiter, &after, most);
        let (name, prefix, Page { inner, count, more }) = (xml_escape(&call.rest.bucket), xml_escape(&prefix), page);
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <Name>{name}</Name><Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys>\
             <IsTruncated>{more}</IsTruncated>{inner}</ListBucketResult>"
        );
        let headers = vec![("content-type", "application/xml".to_owned())];
        Ok(Answer::Rest { status: 200, headers, body: Bytes::from(text) }.into())
    }
}

/// One page of a listing.
struct Page {
    inner: String,
    count: usize,
    more: bool,
}

/// Lists the keys that start with `prefix` and come after `after`. Keys that share a part up to
/// `delimiter` are listed as one common prefix.
fn page(objects: &BTreeMap<String, Object>, prefix: &str, delimiter: &str, after: &str, most: usize) -> Page {
    let mut page = Page { inner: String::new(), count: 0, more: false };
    let mut folders: Vec<String> = Vec::new();
    let mut last = String::new();
    for (key, object) in objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix)) {
        if !after.is_empty() && key.as_str() <= after {
            continue;
        }
        let rest = key.get(prefix.len()..).unwrap_or_default();
        let folder = (!delimiter.is_empty()).then(|| rest.split_once(delimiter)).flatten();
        let folder = folder.map(|(folder, _)| format!("{prefix}{folder}{delimiter}"));
        if folder.as_ref().is_some_and(|folder| folders.contains(folder)) {
            last.clone_from(key);
            continue;
        }
        if page.count == most {
            page.more = true;
            break;
        }
        page.count += 1;
        last.clone_from(key);
        match folder {
            Some(folder) => folders.push(folder),
            None => page.inner.push_str(&format!(
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
                 <StorageClass>STANDARD</StorageClass></Contents>",
                xml_escape(key),
                iso_millis(object.modified_ms),
                xml_escape(&object.etag),
                object.body.len()
            )),
        }
    }
    for folder in folders {
        page.inner.push_str(&format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", xml_escape(&folder)));
    }
    if page.more {
        page.inner.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", xml_escape(&last)));
    }
    page
}

fn no_key() -> AwsError {
    AwsError::new(404, "NoSuchKey", "The specified key does not exist.")
}

fn precondition() -> AwsError {
    AwsError::new(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
}
