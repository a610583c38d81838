//! The text of a saved artifact, such as a terraform plan. It lies in the very object that the
//! deployment would use, under one digest, so an approver sees what would be done (clause ART-7).

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};

use relay_aws::Sdk;
use relay_aws::objects::Objects;
use relay_console::Failure;
use relay_protocol::artifact::TEXT;
use relay_protocol::encoding::Hasher;
use relay_protocol::frame::TriedArtifact;
use relay_protocol::limits::SAVED_TEXT_MAX;
use relay_protocol::{Digest, Region};

/// The most bytes of a saved artifact that are read.
const ARTIFACT_MAX: u64 = 1 << 30;

/// Where saved artifacts are read from.
pub(super) struct Source<'a> {
    /// Copies, in place of the target account's bucket.
    pub(super) copies: &'a [PathBuf],
    /// The region of the target account.
    pub(super) region: &'a Region,
    /// The profile for its bucket.
    pub(super) profile: Option<&'a str>,
}

impl Source<'_> {
    /// The text of an artifact with this digest; `None` if it has none.
    ///
    /// # Errors
    ///
    /// If the artifact cannot be read, or has another digest.
    pub(super) async fn text(&self, saved: &TriedArtifact, digest: Digest) -> Result<Option<Vec<u8>>, Failure> {
        let mut packed = match self.copy(digest)? {
            Some(copy) => copy,
            None => self.fetch(saved, digest).await?,
        };
        let read = move || read_text(&mut packed);
        let odd = |problem: String| Failure::usage(format!("the artifact `{}`: {problem}", saved.parameter));
        tokio::task::spawn_blocking(read).await.map_err(|error| odd(error.to_string()))?.map_err(odd)
    }

    /// The copy that has this digest. It is hashed while it is copied once more, so that nobody can
    /// change it between that and the reading.
    fn copy(&self, digest: Digest) -> Result<Option<File>, Failure> {
        for path in self.copies {
            let named = |error: io::Error| Failure::usage(format!("--saved {}: {error}", path.display()));
            let (found, own) = own_copy(path).map_err(named)?;
            if found == digest {
                return Ok(Some(own));
            }
        }
        match self.copies {
            [] => Ok(None),
            [..] => Err(Failure::usage(format!("none of the files of --saved has the digest {digest}"))
                .hint("the requester may have handed you another plan than the one that would be applied")),
        }
    }

    async fn fetch(&self, saved: &TriedArtifact, digest: Digest) -> Result<File, Failure> {
        let TriedArtifact { location, parameter, .. } = saved;
        let odd = |problem: String| Failure::usage(format!("the artifact `{parameter}` in {location}: {problem}"));
        let (bucket, key) = location
            .strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(|| odd("is not a place in S3".to_owned()))?;
        let mut own = Private::new().map_err(|error| odd(error.to_string()))?;
        let objects = Objects::new(&match self.profile {
            Some(profile) => Sdk::of_profile(self.region, profile).await,
            None => Sdk::from_environment(Some(self.region)).await,
        });
        let take = |part: &[u8]| own.write_all(part);
        let found = objects.fetch(bucket, key, ARTIFACT_MAX, take).await.map_err(|error| {
            Failure::aws(&format!("reading the artifact `{parameter}` in {location}"), &error)
                .hint("name a profile that may read it with --saved-profile (infra/approver-policy.json), or a copy with --saved FILE")
        })?;
        if !found {
            return Err(odd("is not there any more: saved artifacts expire".to_owned()));
        }
        match own.done().map_err(|error| odd(error.to_string()))? {
            (found, file) if found == digest => Ok(file),
            (found, _) => Err(odd(format!("has another digest than the request says, {found}"))),
        }
    }
}

/// A file that nobody else can reach, with the SHA-256 of what was written to it.
struct Private {
    file: File,
    hasher: Hasher,
}

impl Private {
    fn new() -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, hasher: Hasher::default() })
    }

    /// The digest, and the file from its beginning.
    fn done(mut self) -> io::Result<(Digest, File)> {
        self.file.rewind()?;
        Ok((self.hasher.digest(), self.file))
    }
}

impl Write for Private {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let written = self.file.write(part)?;
        self.hasher.push(part.get(..written).unwrap_or(part));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Copies at most [`ARTIFACT_MAX`] bytes of a file.
fn own_copy(path: &Path) -> io::Result<(Digest, File)> {
    let mut own = Private::new()?;
    io::copy(&mut File::open(path)?.take(ARTIFACT_MAX), &mut own)?;
    own.done()
}

/// Reads the text out of the artifact. What else is in there is passed over.
fn read_text(packed: &mut File) -> Result<Option<Vec<u8>>, String> {
    let size = packed.metadata().map_err(|error| error.to_string())?.len();
    relay_artifact::find(BufReader::new(packed), size, TEXT, SAVED_TEXT_MAX as u64).map_err(|error| error.to_string())
}
