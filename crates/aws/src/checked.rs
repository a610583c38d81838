//! Checks credentials before the SDK uses them: a line break in one would make it panic when it
//! signs.

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};

/// Passes on the credentials of another provider, if they can be credentials.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) inner: SharedCredentialsProvider,
    /// A problem of the environment. If there is one, every call fails with these words.
    pub(crate) problem: Option<String>,
}

impl ProvideCredentials for Checked {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            match &self.problem {
                Some(problem) => Err(CredentialsError::invalid_configuration(problem.clone())),
                None => check(self.inner.provide_credentials().await?),
            }
        })
    }
}

fn check(credentials: Credentials) -> Result<Credentials, CredentialsError> {
    let parts = [
        ("access key id", credentials.access_key_id()),
        ("secret access key", credentials.secret_access_key()),
        ("session token", credentials.session_token().unwrap_or_default()),
    ];
    match parts.iter().find(|(_, text)| !text.bytes().all(|byte| byte.is_ascii_graphic())) {
        Some((name, _)) => Err(CredentialsError::invalid_configuration(format!(
            "the {name} contains a line break, a blank or another character that none has: correct where it comes from"
        ))),
        None => Ok(credentials),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_is_found_before_anything_is_signed() {
        let made = |id: &str, secret: &str, token: &str| Credentials::new(id, secret, Some(token.into()), None, "test");
        assert!(check(made("AKIA", "a+b/c=", "t")).is_ok());
        for broken in [made("AKIA\n", "s", "t"), made("AKIA", "s\r", "t"), made("AKIA", "s", "t t")] {
            let error = check(broken).unwrap_err();
            let words = std::error::Error::source(&error).unwrap().to_string();
            assert!(words.contains("line break") && !words.contains("AKIA"), "{words}");
        }
    }
}
