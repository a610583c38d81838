//! The names of container images that `target render` accepts.

/// The name of an image that cannot be moved, because the name contains the digest.
#[derive(Clone, Debug)]
pub(crate) struct Image(pub(crate) String);

impl std::str::FromStr for Image {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = |digest: &str| {
            digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        match text.split_once("@sha256:") {
            Some((name, digest)) if !name.is_empty() && hex(digest) => Ok(Self(text.to_owned())),
            _ => Err("write it as NAME@sha256:DIGEST (64 lower-case hex digits): a tag can be moved".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_its_digest() {
        let digest = "a".repeat(64);
        assert!(format!("hashicorp/terraform@sha256:{digest}").parse::<Image>().is_ok());
        for odd in [
            "hashicorp/terraform:1.9",
            "x@sha256:abc",
            &format!("@sha256:{digest}"),
            &format!("x@sha256:{}", "A".repeat(64)),
        ] {
            assert!(odd.parse::<Image>().is_err(), "{odd}");
        }
    }
}
