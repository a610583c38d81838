//! A reference to a secret, as ECS writes it: the ARN of a secret or of an SSM parameter. A
//! secret's ARN may go on with `:<json-key>:<version-stage>:<version-id>`, each of which may be
//! empty.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html>

use std::fmt;
use std::str::FromStr;

/// A reference to a secret.
///
/// ```
/// use relay_policy::SecretRef;
///
/// let arn = "arn:aws:secretsmanager:eu-west-1:222222222222:secret:shop/db-AbCdEf";
/// let reference: SecretRef = format!("{arn}:password::").parse()?;
/// assert_eq!((reference.arn.as_str(), reference.key.as_deref()), (arn, Some("password")));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    /// The ARN of the secret or parameter.
    pub arn: String,
    /// The key of a JSON secret whose value is the secret.
    pub key: Option<String>,
    /// The staging label of the version; the default is `AWSCURRENT`.
    pub stage: Option<String>,
    /// The id of the version.
    pub version: Option<String>,
}

impl SecretRef {
    /// Whether it names an SSM parameter.
    pub fn is_parameter(&self) -> bool {
        self.arn.contains(":ssm:")
    }
}

impl FromStr for SecretRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let more = |at: usize| parts.get(at).filter(|part| !part.is_empty()).map(|part| (*part).to_owned());
        let (arn, more): (_, [Option<String>; 3]) = match parts.as_slice() {
            ["arn", _, "ssm", _, _, name] if name.starts_with("parameter/") => (text.to_owned(), Default::default()),
            ["arn", _, "secretsmanager", _, _, "secret", name] if !name.is_empty() => {
                (text.to_owned(), Default::default())
            }
            ["arn", _, "secretsmanager", _, _, "secret", name, _, _, _] if !name.is_empty() => {
                (parts.get(..7).unwrap_or_default().join(":"), [more(7), more(8), more(9)])
            }
            _ => {
                return Err(format!(
                    "`{text}` is neither the ARN of an SSM parameter nor that of a secret, which may go on with :<json-key>:<version-stage>:<version-id>"
                ));
            }
        };
        let [key, stage, version] = more;
        Ok(Self { arn, key, stage, version })
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arn)?;
        if let Some(key) = &self.key {
            write!(f, " (key {key})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_ecs_are_understood() {
        let secret = "arn:aws:secretsmanager:eu-west-1:222222222222:secret:a/b-AbCdEf";
        let read = |text: &str| text.parse::<SecretRef>();
        assert_eq!(read(secret).unwrap().arn, secret);
        let whole = read(&format!("{secret}:key:AWSPREVIOUS:id")).unwrap();
        let parts = (whole.key.as_deref(), whole.stage.as_deref(), whole.version.as_deref());
        assert_eq!((whole.arn.as_str(), parts), (secret, (Some("key"), Some("AWSPREVIOUS"), Some("id"))));
        assert_eq!(read(&format!("{secret}::AWSPREVIOUS:")).unwrap().key, None);
        assert!(read("arn:aws:ssm:eu-west-1:222222222222:parameter/a/b").unwrap().is_parameter());
        for wrong in ["", "secret", &format!("{secret}:key"), "arn:aws:s3:::x", "arn:aws:ssm:eu-west-1:1:document/x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
