//! Parameters: what a request may pass, and the rule that each whole value must match (clauses
//! REQ-6, REQ-14).

use std::collections::BTreeMap;

use regex::Regex;
use relay_protocol::keys::SingleKey;
use relay_protocol::{Digest, ParameterName, TargetName};

/// The rule for the value of a parameter.
#[derive(Clone, Debug)]
pub enum ParameterRule {
    /// A text whose whole value matches a pattern.
    Text {
        /// The pattern as written in the configuration.
        pattern: String,
        /// The same pattern, anchored at both ends.
        regex: Regex,
        /// Whether line breaks and tabs are allowed.
        multiline: bool,
        /// Whether non-ASCII characters are allowed.
        unicode: bool,
    },
    /// An artifact. The value is its SHA-256; the bytes are in the CI account's bucket.
    Artifact {
        /// The location of the artifacts: `s3://bucket/prefix/`.
        location: S3Prefix,
        /// The largest packed size in bytes.
        max: u64,
    },
    /// An artifact that another target saved. The value is its SHA-256; the bytes are in the relay
    /// bucket.
    SavedBy {
        /// The target that saved it.
        target: TargetName,
        /// The target key of that target, which signs the record of who saved it.
        key: SingleKey,
        /// The largest packed size in bytes.
        max: u64,
    },
}

/// A location in S3: `s3://bucket/prefix/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Prefix {
    /// The name of the bucket.
    pub bucket: String,
    /// The key prefix: empty, or ending with a slash.
    pub prefix: String,
}

impl S3Prefix {
    /// Reads `s3://bucket/prefix/`; `None` if the text has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (bucket, prefix) = text.strip_prefix("s3://")?.split_once('/')?;
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let fits = (3..=63).contains(&bucket.len())
            && bucket.chars().all(good)
            && (prefix.is_empty() || prefix.ends_with('/'));
        fits.then(|| Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// A parameter that does not match its rule. The requester is told, because the value is theirs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// The configuration has this parameter, but the request does not.
    #[error("the parameter `{name}` is missing: add {flag}")]
    Missing {
        /// The parameter.
        name: ParameterName,
        /// The flag of `relay deploy` that gives it.
        flag: String,
    },
    /// The request has this parameter, but the configuration does not.
    #[error("there is no parameter `{name}`; this target has: {known}")]
    Unknown {
        /// The parameter.
        name: ParameterName,
        /// All parameters of the target.
        known: String,
    },
    /// A character that no value may have, or that this rule does not allow.
    #[error(
        "the parameter `{name}` has the character {} ({what}) at position {at}, which is not allowed",
        character.escape_unicode()
    )]
    Character {
        /// The parameter.
        name: ParameterName,
        /// The character.
        character: char,
        /// The position of the character, counted from 1.
        at: usize,
        /// A description of the character.
        what: &'static str,
    },
    /// The value does not match the pattern.
    #[error("the parameter `{name}` does not match its pattern `{pattern}` (the whole value must match)")]
    Pattern {
        /// The parameter.
        name: ParameterName,
        /// The pattern.
        pattern: String,
    },
    /// The value of an artifact parameter is not a digest.
    #[error(
        "the parameter `{0}` is an artifact: its value must be a SHA-256 digest of 64 lower-case hexadecimal digits (`relay deploy --artifact {0}=PATH` computes it)"
    )]
    Digest(ParameterName),
}

impl ParameterRule {
    /// A rule for text. The pattern is anchored here, so that the author cannot forget it.
    ///
    /// # Errors
    ///
    /// If the pattern is not a valid regular expression, or is too large when compiled.
    pub fn text(pattern: &str, multiline: bool, unicode: bool) -> Result<Self, regex::Error> {
        // Compile the pattern by itself first: `a)(b` would close the group that anchors it.
        regex::RegexBuilder::new(pattern).size_limit(1 << 20).build()?;
        let regex = regex::RegexBuilder::new(&format!(r"\A(?:{pattern})\z")).size_limit(1 << 20).build()?;
        Ok(Self::Text { pattern: pattern.to_owned(), regex, multiline, unicode })
    }

    fn check(&self, name: &ParameterName, value: &str) -> Result<(), ParameterError> {
        match self {
            Self::Text { pattern, regex, multiline, unicode } => {
                check_characters(name, value, *multiline, *unicode)?;
                if regex.is_match(value) {
                    Ok(())
                } else {
                    Err(ParameterError::Pattern { name: name.clone(), pattern: pattern.clone() })
                }
            }
            Self::Artifact { .. } | Self::SavedBy { .. } => {
                value.parse::<Digest>().map(|_| ()).map_err(|_| ParameterError::Digest(name.clone()))
            }
        }
    }
}

/// Refuses control characters, and by default non-ASCII characters, because `\w` and `.` match more
/// than their author may expect. NUL can never be part of an argument.
fn check_characters(name: &ParameterName, value: &str, multiline: bool, unicode: bool) -> Result<(), ParameterError> {
    for (at, character) in value.chars().enumerate() {
        let what = match character {
            '\0' => "NUL",
            '\n' | '\r' | '\t' if multiline => continue,
            c if c.is_control() => "a control character",
            c if !c.is_ascii() && !unicode => "not ASCII",
            _ => continue,
        };
        return Err(ParameterError::Character { name: name.clone(), character, at: at + 1, what });
    }
    Ok(())
}

/// Checks all parameters of a request: none is missing or unknown, and each matches its rule.
pub(crate) fn check(
    rules: &BTreeMap<ParameterName, ParameterRule>,
    values: &BTreeMap<ParameterName, String>,
) -> Result<(), ParameterError> {
    if let Some(name) = values.keys().find(|name| !rules.contains_key(name)) {
        let known = rules.keys().map(ParameterName::as_str).collect::<Vec<_>>().join(", ");
        return Err(ParameterError::Unknown { name: name.clone(), known });
    }
    for (name, rule) in rules {
        let value = values.get(name).ok_or_else(|| ParameterError::Missing {
            name: name.clone(),
            flag: match rule {
                ParameterRule::Text { .. } | ParameterRule::SavedBy { .. } => format!("--param {name}=VALUE"),
                ParameterRule::Artifact { .. } => format!("--artifact {name}=PATH"),
            },
        })?;
        rule.check(name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pattern: &str, value: &str) -> Result<(), ParameterError> {
        let name: ParameterName = "x".parse().unwrap();
        check(
            &BTreeMap::from([(name.clone(), ParameterRule::text(pattern, false, false).unwrap())]),
            &BTreeMap::from([(name, value.to_owned())]),
        )
    }

    // clause: REQ-6
    #[test]
    fn a_value_matches_whole_or_not_at_all() {
        assert_eq!(with("sha256:[0-9a-f]{4}", "sha256:00ff"), Ok(()));
        for odd in ["sha256:00ff0", " sha256:00ff", "sha256:00ff;rm", "$(x)", "--sha256:00ff"] {
            assert!(matches!(with("sha256:[0-9a-f]{4}", odd), Err(ParameterError::Pattern { .. })), "{odd}");
        }
        assert!(matches!(with("a|b", "ab"), Err(ParameterError::Pattern { .. })));
    }

    // clause: REQ-14
    #[test]
    fn control_characters_and_look_alikes_are_named() {
        let character = |value: &str| match with(r"[\w.\n\x00]*", value) {
            Err(ParameterError::Character { character, at, what, .. }) => (character, at, what),
            other => panic!("{other:?}"),
        };
        assert_eq!(character("ab\n"), ('\n', 3, "a control character"));
        assert_eq!(character("\0"), ('\0', 1, "NUL"));
        assert_eq!(character("p\u{430}y"), ('\u{430}', 2, "not ASCII"));
        let multiline = ParameterRule::text("(?s).*", true, true).unwrap();
        assert_eq!(multiline.check(&"x".parse().unwrap(), "a\n\u{430}"), Ok(()));
        assert!(multiline.check(&"x".parse().unwrap(), "a\0").is_err());
    }

    #[test]
    fn a_pattern_cannot_break_out_of_its_anchors() {
        assert!(ParameterRule::text("a)|(b", false, false).is_err());
    }
}
