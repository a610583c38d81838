//! The container images of a target, named by their digests. They stand in the configuration, so
//! its digest and every approval cover them (clauses APP-2, RUN-14).

use std::collections::BTreeMap;

use relay_protocol::Digest;
use relay_protocol::encoding::printable;
use relay_protocol::overrides::{CONTAINER, INSTALL_CONTAINER};
use serde::Deserialize;

/// The images of a target.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    /// The image that holds the tool. The runner runs in its container.
    pub tool: Image,
    /// The image that holds the runner, if the tool's image does not. A second container copies the
    /// runner out of it.
    pub runner: Option<Image>,
}

/// The name of an image that cannot be moved, because the name contains the digest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Image {
    name: String,
    digest: String,
}

impl Image {
    /// The whole name, such as `repository@sha256:…`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest with its algorithm, `sha256:…`, as ECS reports it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The digest by itself.
    pub fn sha256(&self) -> Option<Digest> {
        digest_of(&self.digest)
    }
}

impl TryFrom<String> for Image {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let hex = |digest: &str| {
            digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let digest = match name.split_once("@sha256:") {
            Some((repository, digest)) if !repository.is_empty() && hex(digest) => format!("sha256:{digest}"),
            _ => {
                return Err("an image is written as NAME@sha256:DIGEST (64 lower-case hex digits): a tag can be moved");
            }
        };
        Ok(Self { name, digest })
    }
}

/// How the name of the container begins that GuardDuty adds to each task of an account that it
/// watches. No task definition names it.
/// <https://docs.aws.amazon.com/guardduty/latest/ug/how-runtime-monitoring-works-ecs-fargate.html>
const GUARDDUTY: &str = "aws-guardduty-agent";

/// The image of a container is not the one that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OtherImage {
    /// ECS does not report the image, perhaps not yet.
    #[error("ECS does not say which image the container `{container}` runs; the configuration names {expected}")]
    Missing {
        /// The name of the container.
        container: &'static str,
        /// The digest in the configuration.
        expected: String,
    },
    /// It is another image.
    #[error("the container `{container}` runs the image {found}; the configuration names {expected}")]
    Differs {
        /// The name of the container.
        container: &'static str,
        /// The digest in the configuration.
        expected: String,
        /// The digest that ECS reports.
        found: String,
    },
    /// The task has a container that the configuration does not name. It could use the task's role.
    #[error("the task has the container `{0}`, and the configuration names no image for it")]
    Unnamed(String),
}

/// The digest in `sha256:…`.
pub fn digest_of(image_digest: &str) -> Option<Digest> {
    image_digest.strip_prefix("sha256:")?.parse().ok()
}

impl Images {
    /// The images by the names of their containers.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Image)> {
        let all = [(CONTAINER, Some(&self.tool)), (INSTALL_CONTAINER, self.runner.as_ref())];
        all.into_iter().filter_map(|(name, image)| Some((name, image?)))
    }

    /// Compares these images with those that ECS reports, by the name of the container.
    ///
    /// # Errors
    ///
    /// If an image differs, if there is another container, or if ECS does not report an image.
    pub fn check(&self, found: &BTreeMap<String, Option<String>>) -> Result<(), OtherImage> {
        let is_named = |name: &str| self.named().any(|(container, _)| container == name) || name.starts_with(GUARDDUTY);
        if let Some(name) = found.keys().find(|name| !is_named(name)) {
            return Err(OtherImage::Unnamed(printable(name)));
        }
        for (container, image) in self.named() {
            let expected = image.digest.clone();
            match found.get(container).and_then(Option::as_ref) {
                Some(found) if *found == expected => {}
                Some(found) => return Err(OtherImage::Differs { container, expected, found: printable(found) }),
                None => return Err(OtherImage::Missing { container, expected }),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(digit: &str) -> Image {
        Image::try_from(format!("tool@sha256:{}", digit.repeat(64))).unwrap()
    }

    fn reported(pairs: &[(&str, &str)]) -> BTreeMap<String, Option<String>> {
        let image = |digit: &str| (!digit.is_empty()).then(|| format!("sha256:{}", digit.repeat(64)));
        pairs.iter().map(|(name, digit)| ((*name).to_owned(), image(digit))).collect()
    }

    #[test]
    fn an_image_is_named_by_its_digest() {
        let digest = "a".repeat(64);
        let image = Image::try_from(format!("hashicorp/terraform@sha256:{digest}")).unwrap();
        assert_eq!(image.digest(), format!("sha256:{digest}"));
        for odd in [
            "hashicorp/terraform:1.9",
            "x@sha256:abc",
            &format!("@sha256:{digest}"),
            &format!("x@sha256:{}", "A".repeat(64)),
        ] {
            assert!(Image::try_from(odd.to_owned()).is_err(), "{odd}");
        }
    }

    // clause: RUN-14
    #[test]
    fn every_image_has_to_be_the_one_that_the_configuration_names() {
        let images = Images { tool: image("a"), runner: Some(image("b")) };
        assert_eq!(images.check(&reported(&[("runner", "a"), ("install", "b")])), Ok(()));
        let watched = reported(&[("runner", "a"), ("install", "b"), ("aws-guardduty-agent-x1", "c")]);
        assert_eq!(images.check(&watched), Ok(()));
        for found in [
            reported(&[("runner", "a"), ("install", "c")]),
            reported(&[("runner", "b"), ("install", "b")]),
            reported(&[("runner", "a")]),
            reported(&[("runner", ""), ("install", "b")]),
            reported(&[("runner", "a"), ("install", "b"), ("other", "c")]),
            reported(&[("runner", "a"), ("install", "b"), ("other", "")]),
            reported(&[]),
        ] {
            assert!(images.check(&found).is_err(), "{found:?}");
        }
        let alone = Images { runner: None, ..images };
        assert_eq!(alone.check(&reported(&[("runner", "a")])), Ok(()));
        assert!(alone.check(&reported(&[("runner", "a"), ("install", "b")])).is_err());
    }
}
