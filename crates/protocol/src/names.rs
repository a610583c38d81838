//! The names that a request carries, each parsed once into a type that cannot hold anything else (clauses NAM-1 to NAM-7).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::encoding::{self, Digest};

/// A text does not have the form that its field demands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}: `{}`", encoding::printable(.found))]
pub struct NotAName {
    /// What the field holds, in words.
    pub expected: &'static str,
    /// What was found instead.
    pub found: String,
}

/// A text newtype: parse, show, serde. The check is a function of the text alone.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAName;
            fn from_str(text: &str) -> Result<Self, NotAName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NotAName { expected: $expected, found: text.to_owned() })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotAName;
            fn try_from(text: String) -> Result<Self, NotAName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn all(text: &str, max: usize, allowed: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= max && text.bytes().all(allowed)
}

fn is_slug(text: &str) -> bool {
    all(text, 63, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_region(text: &str) -> bool {
    let mut parts = 0;
    let good = text.split('-').all(|part| {
        parts += 1;
        all(part, 16, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
    });
    good && parts >= 3 && text.ends_with(|c: char| c.is_ascii_digit())
}

fn is_resource_name(text: &str) -> bool {
    all(text, 256, |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_partition(text: &str) -> bool {
    matches!(text, "aws" | "aws-cn" | "aws-us-gov")
}

fn topic_parts(text: &str) -> Option<[&str; 4]> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        ["arn", partition, "sns", region, account, name] => Some([partition, region, account, name]),
        _ => None,
    }
}

/// `https://sqs.<region>.amazonaws.com[.cn]/<account>/<name>`, in parts.
fn queue_parts(text: &str) -> Option<[&str; 3]> {
    let (host, path) = text.strip_prefix("https://sqs.")?.split_once('/')?;
    let region = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let (account, name) = path.split_once('/')?;
    Some([region, account, name])
}

name! {
    /// Twelve digits (clause NAM-1).
    AccountId, "an AWS account id of 12 digits", is_account
}

name! {
    /// An AWS region such as `eu-west-1` (clause NAM-2).
    Region, "an AWS region such as `eu-west-1`", is_region
}

name! {
    /// What is deployed to, `<service>/<environment>`: each `[a-z0-9-]+`, at most 63 characters, no hyphen at an end (clause NAM-3).
    TargetName, "a target such as `payments/production` ([a-z0-9-]+/[a-z0-9-]+)", |text| {
        text.split_once('/').is_some_and(|(service, environment)| is_slug(service) && is_slug(environment))
    }
}

impl TargetName {
    /// The task definition family of this target: `relay_<service>_<environment>`. Injective, as no part may hold an underscore.
    pub fn family(&self) -> String {
        format!("relay_{}", self.0.replace('/', "_"))
    }
}

name! {
    /// A parameter: `[a-z][a-z0-9_]{0,62}` (clause NAM-4).
    ParameterName, "a parameter name ([a-z][a-z0-9_]*, at most 63 characters)", |text| {
        text.starts_with(|c: char| c.is_ascii_lowercase()) && all(text, 63, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    }
}

impl ParameterName {
    /// The variable in which a step finds the value: `RELAY_PARAM_<NAME>`.
    pub fn variable(&self) -> String {
        format!("RELAY_PARAM_{}", self.0.to_ascii_uppercase())
    }
}

name! {
    /// The ARN of an SNS topic: the audience of a request (clause NAM-5).
    TopicArn, "the ARN of an SNS topic (arn:aws:sns:<region>:<account>:<name>)", |text| {
        topic_parts(text).is_some_and(|[partition, region, account, name]| {
            is_partition(partition) && is_region(region) && is_account(account) && is_resource_name(name)
        })
    }
}

impl TopicArn {
    /// Its account.
    pub fn account(&self) -> AccountId {
        AccountId(topic_parts(&self.0).map(|parts| parts[2]).unwrap_or_default().to_owned())
    }

    /// Its region.
    pub fn region(&self) -> Region {
        Region(topic_parts(&self.0).map(|parts| parts[1]).unwrap_or_default().to_owned())
    }
}

name! {
    /// An SQS queue by its canonical URL (clause NAM-6). Other spellings of the same queue are refused: a signed text has one form.
    QueueUrl, "an SQS queue URL (https://sqs.<region>.amazonaws.com/<account>/<name>)", |text| {
        text.len() <= 256 && queue_parts(text).is_some_and(|[region, account, name]| {
            is_region(region)
                && text.starts_with(&format!("https://sqs.{region}.amazonaws.com{}/", domain_suffix(region)))
                && is_account(account)
                && all(name, 80, |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
    }
}

fn domain_suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") { ".cn" } else { "" }
}

impl QueueUrl {
    /// The URL of the queue `name` of `account` in `region`.
    pub fn of(region: &Region, account: &AccountId, name: &str) -> Result<Self, NotAName> {
        format!("https://sqs.{region}.amazonaws.com{}/{account}/{name}", domain_suffix(region.as_str())).parse()
    }

    fn part(&self, at: usize) -> &str {
        queue_parts(&self.0).and_then(|parts| parts.get(at).copied()).unwrap_or_default()
    }

    /// Its region.
    pub fn region(&self) -> Region {
        Region(self.part(0).to_owned())
    }

    /// Its account.
    pub fn account(&self) -> AccountId {
        AccountId(self.part(1).to_owned())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.part(2)
    }
}

name! {
    /// A deployment: a UUIDv7 in lower-case hyphenated form (clause NAM-7). Also the RunTask `clientToken` and `startedBy`.
    DeploymentId, "a deployment id (UUIDv7, lower case)", |text| {
        uuid::Uuid::try_parse(text).is_ok_and(|id| {
            id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122 && id.hyphenated().to_string() == text
        })
    }
}

impl DeploymentId {
    /// A new id from a moment in milliseconds since the epoch and ten random bytes (RFC 9562, section 5.7).
    pub fn new(unix_millis: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid().hyphenated().to_string())
    }

    /// The name of this deployment's own reply queue.
    pub fn reply_queue_name(&self) -> String {
        format!("relay-{self}-reply")
    }

    /// The name of this deployment's own control queue.
    pub fn control_queue_name(&self) -> String {
        format!("relay-{self}-control")
    }
}

/// A public key as its SubjectPublicKeyInfo in DER; on the wire standard base64 (clause ENC-4). That it is a point on a curve that relay
/// knows is for [`VerifyingKey`](crate::keys::VerifyingKey) to say.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Bytes of a DER-encoded key at most; P-256 has 91.
    pub const MAX: usize = 512;

    /// A key from its SubjectPublicKeyInfo.
    pub fn from_der(der: &[u8]) -> Result<Self, NotAName> {
        if der.is_empty() || der.len() > Self::MAX {
            return Err(NotAName {
                expected: "a public key (base64 of its SubjectPublicKeyInfo)",
                found: encoding::base64(&der[..der.len().min(60)]),
            });
        }
        Ok(Self(der.to_vec()))
    }

    /// Its SubjectPublicKeyInfo in DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Whether it has the one DER form of an Ed25519 key (RFC 8410): session and runner keys are of that kind.
    pub fn is_ed25519(&self) -> bool {
        const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        self.0.len() == 44 && self.0.starts_with(&HEAD)
    }

    /// Hex SHA-256 of the DER: the key id, a hint only (clause ENV-6).
    pub fn key_id(&self) -> String {
        Digest::of(&self.0).to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encoding::base64(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<Self, NotAName> {
        let odd = || NotAName {
            expected: "a public key (base64 of its SubjectPublicKeyInfo)",
            found: text.chars().take(80).collect(),
        };
        let der = encoding::from_base64(text).map_err(|_| odd())?;
        Self::from_der(&der).map_err(|_| odd())
    }
}

impl TryFrom<String> for PublicKey {
    type Error = NotAName;
    fn try_from(text: String) -> Result<Self, NotAName> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_two_plain_parts() {
        assert_eq!("payments/production".parse::<TargetName>().unwrap().family(), "relay_payments_production");
        for odd in ["payments", "payments/", "/x", "a/b/c", "Payments/production", "a_b/c", "-a/b", "a/b-", "а/b"] {
            assert!(odd.parse::<TargetName>().is_err(), "{odd}");
        }
    }

    #[test]
    fn queue_urls_have_one_spelling() {
        let url: QueueUrl = "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-x-reply".parse().unwrap();
        assert_eq!(
            (url.region().as_str(), url.account().as_str(), url.name()),
            ("eu-west-1", "111111111111", "relay-x-reply")
        );
        for odd in [
            "http://sqs.eu-west-1.amazonaws.com/111111111111/q",
            "https://sqs.eu-west-1.amazonaws.com.cn/111111111111/q",
            "https://sqs.cn-north-1.amazonaws.com/111111111111/q",
            "https://eu-west-1.queue.amazonaws.com/111111111111/q",
            "https://sqs.eu-west-1.amazonaws.com/111111111111/q/r",
            "https://sqs.eu-west-1.amazonaws.com/111111111111/",
            "https://sqs.eu-west-1.amazonaws.com@evil.example/111111111111/q",
            "https://sqs.eu-west-1.amazonaws.com/11111111111/q",
        ] {
            assert!(odd.parse::<QueueUrl>().is_err(), "{odd}");
        }
    }

    #[test]
    fn deployment_ids_are_version_7_and_lower_case() {
        let id = DeploymentId::new(1_790_000_000_000, [7; 10]);
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        for odd in [
            id.as_str().to_uppercase(),
            id.as_str().replace('-', ""),
            "9b2d7d2e-8a5e-4a3c-8f53-1f6a4a1d2c3b".into(),
            format!("{{{id}}}"),
        ] {
            assert!(odd.parse::<DeploymentId>().is_err(), "{odd}");
        }
    }

    #[test]
    fn topics_name_their_account_and_region() {
        let topic: TopicArn = "arn:aws:sns:eu-west-1:222222222222:relay".parse().unwrap();
        assert_eq!((topic.account().as_str(), topic.region().as_str()), ("222222222222", "eu-west-1"));
        for odd in [
            "arn:aws:sqs:eu-west-1:222222222222:relay",
            "arn:aws:sns:eu-west-1:222222222222:relay:sub",
            "arn:other:sns:eu-west-1:222222222222:relay",
            "relay",
        ] {
            assert!(odd.parse::<TopicArn>().is_err(), "{odd}");
        }
    }
}
