//! The names that a request carries (clauses NAM-1 to NAM-7). Each is parsed once, into a type that
//! cannot hold an invalid name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::encoding::{self, Digest};
use crate::time::Timestamp;

/// A text that does not have the form that its field requires.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}: `{}`", encoding::printable(.found))]
pub struct InvalidName {
    /// A description of what the field holds.
    pub expected: &'static str,
    /// The text that was found instead.
    pub found: String,
}

impl InvalidName {
    fn new(expected: &'static str, found: &str) -> Self {
        Self { expected, found: found.to_owned() }
    }
}

/// The wire form of a name, which is its text. The type must already have `as_str` and `FromStr`.
macro_rules! on_the_wire {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// A name without parts. Its validity depends on the text alone.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName::new($expected, text)) }
            }
        }

        on_the_wire!($name);
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

/// AWS's partitions: name, how its regions begin, and the domain of its services. The first one has
/// all other regions. (botocore, `data/partitions.json`)
const PARTITIONS: [(&str, &str, &str); 8] = [
    ("aws", "", "amazonaws.com"),
    ("aws-cn", "cn-", "amazonaws.com.cn"),
    ("aws-us-gov", "us-gov-", "amazonaws.com"),
    ("aws-eusc", "eusc-", "amazonaws.eu"),
    ("aws-iso", "us-iso-", "c2s.ic.gov"),
    ("aws-iso-b", "us-isob-", "sc2s.sgov.gov"),
    ("aws-iso-e", "eu-isoe-", "cloud.adc-e.uk"),
    ("aws-iso-f", "us-isof-", "csp.hci.ic.gov"),
];

fn is_partition(text: &str) -> bool {
    PARTITIONS.iter().any(|(partition, ..)| *partition == text)
}

name! {
    /// An AWS account id of twelve digits (clause NAM-1).
    AccountId, "an AWS account id of 12 digits", is_account
}

name! {
    /// An AWS region such as `eu-west-1` (clause NAM-2).
    Region, "an AWS region such as `eu-west-1`", is_region
}

name! {
    /// The target of a deployment, `<service>/<environment>`. Each part matches `[a-z0-9-]+`, has
    /// at most 63 characters, and neither starts nor ends with a hyphen (clause NAM-3).
    ///
    /// ```
    /// use relay_protocol::TargetName;
    ///
    /// let target: TargetName = "payments/production".parse()?;
    /// assert_eq!(target.as_str(), "payments/production");
    /// assert!("Payments".parse::<TargetName>().is_err());
    /// # Ok::<(), relay_protocol::names::InvalidName>(())
    /// ```
    TargetName, "a target such as `payments/production` ([a-z0-9-]+/[a-z0-9-]+)", |text| {
        text.split_once('/').is_some_and(|(service, environment)| is_slug(service) && is_slug(environment))
    }
}

name! {
    /// 128 random bits, in hex, that a request shares with its approvals. A ticket serves one
    /// deployment (clauses NAM-8, APP-2, APP-5).
    Ticket, "a ticket of 32 lower-case hexadecimal digits", |text| {
        text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl Ticket {
    /// The ticket of these random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Self(data_encoding::HEXLOWER.encode(&random))
    }
}

impl TopicArn {
    /// The evidence bucket that foundation.yaml makes in the topic's account and region.
    pub fn evidence_bucket(&self) -> String {
        format!("relay-evidence-{}-{}", self.account(), self.region())
    }
}

impl TargetName {
    /// The task definition family of this target: `relay_<service>_<environment>`. The mapping is
    /// injective, because neither part can contain an underscore.
    pub fn family(&self) -> String {
        format!("relay_{}", self.0.replace('/', "_"))
    }

    /// The target of this family; `None` if it is no family of relay's.
    pub fn of_family(family: &str) -> Option<Self> {
        let (service, environment) = family.strip_prefix("relay_")?.split_once('_')?;
        format!("{service}/{environment}").parse().ok()
    }

    /// The alias of the target key that the target's stack makes:
    /// `alias/relay-<service>-<environment>`. It may be another target's too, since both parts may
    /// contain a hyphen; the key that is pinned decides, never the alias.
    pub fn key_alias(&self) -> String {
        format!("alias/relay-{}", self.0.replace('/', "-"))
    }
}

name! {
    /// The name of a parameter: `[a-z][a-z0-9_]{0,62}` (clause NAM-4).
    ParameterName, "a parameter name ([a-z][a-z0-9_]*, at most 63 characters)", |text| {
        text.starts_with(|c: char| c.is_ascii_lowercase()) && all(text, 63, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    }
}

impl ParameterName {
    /// The environment variable in which a step finds the value: `RELAY_PARAM_<NAME>`.
    pub fn variable(&self) -> String {
        format!("RELAY_PARAM_{}", self.0.to_ascii_uppercase())
    }
}

/// The ARN of an SNS topic, which is the audience of a request (clause NAM-5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicArn {
    text: String,
    region: Region,
    account: AccountId,
}

impl TopicArn {
    /// The ARN as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The account that owns the topic.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The region of the topic.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The name of the topic.
    pub fn name(&self) -> &str {
        self.text.rsplit(':').next().unwrap_or_default()
    }
}

impl FromStr for TopicArn {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let odd = || InvalidName::new("the ARN of an SNS topic (arn:aws:sns:<region>:<account>:<name>)", text);
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            ["arn", partition, "sns", region, account, name] if is_partition(partition) && is_resource_name(name) => {
                let (region, account) = (region.parse().map_err(|_| odd())?, account.parse().map_err(|_| odd())?);
                Ok(Self { text: text.to_owned(), region, account })
            }
            _ => Err(odd()),
        }
    }
}

on_the_wire!(TopicArn);

/// The canonical URL of an SQS queue (clause NAM-6). Other spellings of the same queue are refused,
/// because a signed text has exactly one form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueUrl {
    text: String,
    region: Region,
    account: AccountId,
    name: String,
}

/// The longest URL of a queue, in characters.
const QUEUE_URL_MAX: usize = 256;

impl QueueUrl {
    /// The URL of the queue `name` of `account` in `region`.
    ///
    /// # Errors
    ///
    /// If `name` is not a valid SQS queue name, or if the URL is longer than 256 characters.
    pub fn of(region: &Region, account: &AccountId, name: &str) -> Result<Self, InvalidName> {
        let text = format!("https://sqs.{region}.{}/{account}/{name}", region.domain());
        if text.len() > QUEUE_URL_MAX || !all(name, 80, |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(Self::odd(&text));
        }
        Ok(Self { text, region: region.clone(), account: account.clone(), name: name.to_owned() })
    }

    fn odd(text: &str) -> InvalidName {
        InvalidName::new("an SQS queue URL (https://sqs.<region>.amazonaws.com/<account>/<name>)", text)
    }

    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The region of the queue.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The account that owns the queue.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The name of the queue.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Region {
    /// The partition that the region belongs to, such as `aws`.
    pub fn partition(&self) -> &'static str {
        self.home().0
    }

    /// The domain of the services of its partition, such as `amazonaws.com`.
    pub fn domain(&self) -> &'static str {
        self.home().1
    }

    fn home(&self) -> (&'static str, &'static str) {
        let [(name, _, domain), others @ ..] = &PARTITIONS;
        let other = others.iter().find(|(_, prefix, _)| self.as_str().starts_with(prefix));
        other.map_or((name, domain), |(name, _, domain)| (name, domain))
    }
}

impl FromStr for QueueUrl {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let parts = || {
            let (region, rest) = text.strip_prefix("https://sqs.")?.split_once('.')?;
            let (_, path) = rest.split_once('/')?;
            let (account, name) = path.split_once('/')?;
            Self::of(&region.parse().ok()?, &account.parse().ok()?, name).ok()
        };
        // Accept only the canonical spelling of these parts.
        parts().filter(|url| url.text == text).ok_or_else(|| Self::odd(text))
    }
}

on_the_wire!(QueueUrl);

name! {
    /// The id of a deployment: a UUIDv7 in lower-case hyphenated form (clause NAM-7). It is also
    /// the RunTask `clientToken` and `startedBy`.
    DeploymentId, "a deployment id (UUIDv7, lower case)", |text| {
        uuid::Uuid::try_parse(text).is_ok_and(|id| {
            id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122 && id.hyphenated().to_string() == text
        })
    }
}

impl DeploymentId {
    /// A new id from a time in milliseconds since the Unix epoch and ten random bytes (RFC 9562,
    /// section 5.7).
    pub fn new(unix_millis: u64, random: [u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid().hyphenated().to_string())
    }

    /// The time in the id, in whole seconds (RFC 9562, section 5.7). Whoever made the id chose it;
    /// a request's id must agree with its `issued_at` (clause REQ-16).
    pub fn time(&self) -> Timestamp {
        // A UUIDv7 begins with 48 bits of milliseconds: 12 digits with a hyphen among them.
        let digits: String = self.0.chars().filter(|c| *c != '-').take(12).collect();
        let millis = i64::from_str_radix(&digits, 16).unwrap_or_default();
        Timestamp::from_unix(millis / 1_000)
    }

    /// The name of the reply queue that belongs to this deployment alone.
    pub fn reply_queue_name(&self) -> String {
        format!("relay-{self}-reply")
    }

    /// The name of the control queue that belongs to this deployment alone.
    pub fn control_queue_name(&self) -> String {
        format!("relay-{self}-control")
    }
}

/// A public key as a DER-encoded SubjectPublicKeyInfo; standard base64 on the wire (clause ENC-4).
/// Whether it is a point on a supported curve is checked by
/// [`VerifyingKey`](crate::keys::VerifyingKey).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// The largest DER encoding of a key, in bytes. A P-256 key has 91.
    pub const MAX: usize = 512;

    const EXPECTED: &str = "a public key (base64 of its SubjectPublicKeyInfo)";

    /// A key from its SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    ///
    /// If `der` is empty or longer than [`PublicKey::MAX`] bytes.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidName> {
        if der.is_empty() || der.len() > Self::MAX {
            return Err(InvalidName::new(Self::EXPECTED, &encoding::base64(&der[..der.len().min(60)])));
        }
        Ok(Self(der.to_vec()))
    }

    /// The SubjectPublicKeyInfo in DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the one DER form of an Ed25519 key (RFC 8410). Session and runner keys must
    /// be Ed25519.
    pub fn is_ed25519(&self) -> bool {
        const HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        self.0.len() == 44 && self.0.starts_with(&HEAD)
    }

    /// The key id: the SHA-256 of the DER in hex. It is only a hint (clause ENV-6).
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
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let odd = || InvalidName::new(Self::EXPECTED, &text.chars().take(80).collect::<String>());
        let der = encoding::from_base64(text).map_err(|_| odd())?;
        Self::from_der(&der).map_err(|_| odd())
    }
}

impl TryFrom<String> for PublicKey {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
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
        let target: TargetName = "payments/production".parse().unwrap();
        assert_eq!(target.family(), "relay_payments_production");
        assert_eq!(TargetName::of_family(&target.family()), Some(target));
        for odd in ["payments_production", "relay_payments", "relay_a_b_c", "relay_A_b", ""] {
            assert_eq!(TargetName::of_family(odd), None, "{odd}");
        }
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

    // clause: NAM-5, NAM-6
    #[test]
    fn every_partition_has_its_own_domain() {
        let of = |region: &str| {
            let region: Region = region.parse().unwrap();
            let arn = format!("arn:{}:sns:{region}:222222222222:relay", region.partition());
            assert_eq!(arn.parse::<TopicArn>().unwrap().region(), &region);
            let queue = QueueUrl::of(&region, &"111111111111".parse().unwrap(), "q").unwrap();
            assert_eq!(queue.as_str().parse::<QueueUrl>().unwrap(), queue);
            (region.partition(), queue.as_str().to_owned())
        };
        for (region, partition, host) in [
            ("eu-west-1", "aws", "sqs.eu-west-1.amazonaws.com"),
            ("cn-north-1", "aws-cn", "sqs.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "aws-us-gov", "sqs.us-gov-west-1.amazonaws.com"),
            ("eusc-de-east-1", "aws-eusc", "sqs.eusc-de-east-1.amazonaws.eu"),
            ("us-iso-east-1", "aws-iso", "sqs.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "aws-iso-b", "sqs.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-isoe-west-1", "aws-iso-e", "sqs.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", "aws-iso-f", "sqs.us-isof-south-1.csp.hci.ic.gov"),
        ] {
            assert_eq!(of(region), (partition, format!("https://{host}/111111111111/q")));
        }
    }
}
