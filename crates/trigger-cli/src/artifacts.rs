//! Artifacts: packed deterministically, uploaded under their digest, and bound into the request by
//! that digest.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use relay_aws::objects::Objects;
use relay_console::Failure;
use relay_platform::Temporary;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{Digest, ParameterName, artifact};

/// A packed artifact that is not uploaded yet.
#[derive(Debug)]
pub(crate) struct Packed {
    file: Temporary,
    pub(crate) digest: Digest,
}

/// Packs every artifact, before anything is published.
pub(crate) fn pack(artifacts: &BTreeMap<ParameterName, PathBuf>) -> Result<BTreeMap<ParameterName, Packed>, Failure> {
    artifacts.iter().map(|(name, path)| Ok((name.clone(), pack_one(name, path)?))).collect()
}

fn pack_one(name: &ParameterName, path: &Path) -> Result<Packed, Failure> {
    let wrong = |problem: String| Failure::usage(format!("--artifact {name}={}: {problem}", path.display()));
    let mut file = Temporary::new().map_err(|error| wrong(error.to_string()))?;
    let mut out = BufWriter::new(file.file());
    let packed = relay_artifact::pack(path, &[], relay_artifact::Text::Any, &mut out)
        .map_err(|error| wrong(error.to_string()))?;
    out.flush().map_err(|error| wrong(error.to_string()))?;
    drop(out);
    Ok(Packed { file, digest: packed.digest })
}

/// Uploads the artifacts that the store lacks. The key is the digest, so an existing object has the
/// same contents.
pub(crate) async fn upload(
    objects: &Objects,
    store: Option<&(String, String)>,
    packed: &BTreeMap<ParameterName, Packed>,
) -> Result<(), Failure> {
    if packed.is_empty() {
        return Ok(());
    }
    let (bucket, prefix) = store.ok_or_else(|| {
        Failure::usage("no artifact store is configured")
            .hint("add artifact_store = \"s3://bucket/prefix/\" to relay.toml, or pass --artifact-store")
    })?;
    for (name, packed) in packed {
        let key = artifact::object_key(prefix, packed.digest);
        let doing = format!("uploading the artifact `{name}` to s3://{bucket}/{key}");
        let there = objects.exists(bucket, &key).await.map_err(|error| Failure::aws(&doing, &error))?;
        if !there {
            let path = packed.file.path();
            objects.put_file(bucket, &key, &path).await.map_err(|error| Failure::aws(&doing, &error))?;
        }
    }
    Ok(())
}

/// Adds the artifacts' digests to the parameters. A name that is given both ways is an error.
pub(crate) fn merge(
    parameters: &mut BTreeMap<ParameterName, String>,
    packed: &BTreeMap<ParameterName, Packed>,
) -> Result<(), Failure> {
    for (name, packed) in packed {
        if parameters.insert(name.clone(), packed.digest.to_string()).is_some() {
            return Err(Failure::new(ExitCode::Usage, format!("{name} is given both as --param and as --artifact")));
        }
    }
    Ok(())
}
