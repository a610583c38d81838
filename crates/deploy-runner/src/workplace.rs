//! The workplace: one empty folder for each deployment, with its artifacts, the steps' environment and secrets, and the file for outputs.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use relay_aws::Sdk;
use relay_aws::objects::Objects;
use relay_aws::secrets::Secrets;
use relay_aws::sessions::Sessions;
use relay_policy::{Asked, Configuration, ParameterRule};
use relay_protocol::limits::OUTPUTS_MAX;
use relay_protocol::record::Subject;
use relay_protocol::{Digest, Reason, artifact};
use relay_stream::Masker;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Something that ends the deployment before its tool does.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Trouble {
    pub(crate) fn new(reason: Reason, message: impl ToString) -> Self {
        Self { reason, message: message.to_string() }
    }
}

/// The folder, and what the steps get. It holds secrets, so it is not shown.
pub(crate) struct Workplace {
    base: PathBuf,
    /// Where the steps run.
    pub(crate) work: PathBuf,
    /// The steps' whole environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// What must not be shown.
    pub(crate) secrets: Vec<Vec<u8>>,
    /// The artifacts, for the record.
    pub(crate) subjects: Vec<Subject>,
}

impl Workplace {
    /// Makes the folder, empty.
    pub(crate) fn make(configuration: &Configuration, asked: &Asked) -> Result<Self, Trouble> {
        let request = asked.request();
        let base = Path::new(&configuration.workspace).join(request.deployment_id.as_str());
        let work = base.join("work");
        let odd = |error: io::Error| {
            Trouble::new(Reason::Runner, format!("the work directory {} cannot be made: {error}", work.display()))
        };
        fs::create_dir_all(&configuration.workspace).map_err(odd)?;
        // Not create_dir_all: a folder that is there already is not empty, and not ours.
        fs::create_dir(&base).map_err(odd)?;
        fs::create_dir(&work).map_err(odd)?;
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME".to_owned(), work.display().to_string()),
        ]);
        environment.extend(configuration.environment.clone());
        environment.extend(request.parameters.iter().map(|(name, value)| (name.variable(), value.clone())));
        environment.insert("RELAY_DEPLOYMENT_ID".to_owned(), request.deployment_id.to_string());
        environment.insert("RELAY_TARGET".to_owned(), request.target.to_string());
        environment.insert("RELAY_OUTPUT".to_owned(), base.join("output").display().to_string());
        File::create_new(base.join("output")).map_err(odd)?;
        Ok(Self { base, work, environment, secrets: Vec::new(), subjects: Vec::new() })
    }

    /// Reads the secrets and the tool's credentials.
    pub(crate) async fn furnish(
        &mut self,
        configuration: &Configuration,
        asked: &Asked,
        sdk: &Sdk,
    ) -> Result<(), Trouble> {
        if !configuration.secrets.is_empty() {
            let store = Secrets::new(sdk);
            for (name, arn) in &configuration.secrets {
                let value = store
                    .read(arn)
                    .await
                    .map_err(|error| Trouble::new(Reason::Secret, format!("{name} ({arn}): {error}")))?;
                self.keep(name, value);
            }
        }
        if let Some(role) = &configuration.role {
            let request = asked.request();
            let assumed =
                Sessions::new(sdk).assume(role, request.deployment_id.as_str(), request.target.as_str()).await;
            let credentials =
                assumed.map_err(|error| Trouble::new(Reason::Role, format!("{role}: {error}")))?.credentials;
            self.environment.insert("AWS_ACCESS_KEY_ID".to_owned(), credentials.access_key_id().to_owned());
            self.keep("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key().to_owned());
            self.keep("AWS_SESSION_TOKEN", credentials.session_token().unwrap_or_default().to_owned());
        }
        Ok(())
    }

    fn keep(&mut self, name: &str, value: String) {
        self.secrets.push(value.clone().into_bytes());
        self.environment.insert(name.to_owned(), value);
    }

    /// Fetches, verifies and unpacks each artifact into a folder of its parameter's name (clauses ART-2 to ART-5).
    pub(crate) async fn fetch_artifacts(
        &mut self,
        configuration: &Configuration,
        asked: &Asked,
        objects: &Objects,
    ) -> Result<(), Trouble> {
        for (name, rule) in &configuration.parameters {
            let (bucket, prefix, max) = match rule {
                ParameterRule::Text { .. } => continue,
                ParameterRule::Artifact { location, max } => (location.bucket.as_str(), location.prefix.clone(), *max),
                ParameterRule::SavedBy { target, max } => {
                    (configuration.bucket.as_str(), format!("saved/{target}/"), *max)
                }
            };
            let bad = |problem: String| Trouble::new(Reason::Artifact, format!("the artifact `{name}`: {problem}"));
            let Some(Ok(wanted)) = asked.request().parameters.get(name).map(|value| value.parse::<Digest>()) else {
                return Err(bad("its value is no digest".to_owned()));
            };
            let key = artifact::object_key(&prefix, wanted);
            let file = fetch(objects, bucket, &key, max, wanted, &self.base).await.map_err(bad)?;
            let folder = self.work.join(name.as_str());
            tokio::task::spawn_blocking(move || unpack(file, max, &folder))
                .await
                .map_err(|error| bad(error.to_string()))?
                .map_err(bad)?;
            self.subjects.push(Subject::new(format!("artifact/{name}"), wanted));
        }
        Ok(())
    }

    /// A text as it may stand in the record and in outputs: without secrets (clause REC-4).
    pub(crate) fn masked(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.mask(text.as_bytes())).into_owned()
    }

    fn mask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut masker = Masker::new(&self.secrets);
        let mut masked = masker.push(bytes);
        masked.extend(masker.finish());
        masked
    }

    /// What the steps have written to `$RELAY_OUTPUT` so far: `name=value` lines, masked. The second part says what was left out.
    pub(crate) fn outputs(&self) -> (BTreeMap<String, String>, Vec<String>) {
        let mut outputs = BTreeMap::new();
        let mut problems = Vec::new();
        let mut text = Vec::new();
        let file = match open_output(&self.base.join("output")) {
            Ok(file) => file,
            Err(problem) => return (outputs, vec![format!("$RELAY_OUTPUT was left out: {problem}")]),
        };
        if file.take(OUTPUTS_MAX as u64 + 1).read_to_end(&mut text).is_err() || text.len() > OUTPUTS_MAX {
            return (outputs, vec![format!("$RELAY_OUTPUT has more than {OUTPUTS_MAX} bytes and was left out")]);
        }
        for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let masked = self.mask(line);
            let line = String::from_utf8_lossy(&masked);
            match line.split_once('=') {
                Some((name, value))
                    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)) =>
                {
                    outputs.insert(name.to_owned(), value.to_owned());
                }
                _ => problems.push("a line of $RELAY_OUTPUT is not of the form name=value and was left out".to_owned()),
            }
        }
        (outputs, problems)
    }

    /// Packs what a step is to save and puts it into the relay bucket under its digest.
    pub(crate) async fn save(
        &mut self,
        configuration: &Configuration,
        objects: &Objects,
        step: &str,
        paths: &[String],
    ) -> Result<Digest, Trouble> {
        let bad = |problem: String| Trouble::new(Reason::Artifact, format!("what the step `{step}` saves: {problem}"));
        let packed = self.base.join("saved.tar.zst");
        let (work, out, paths) =
            (self.work.clone(), packed.clone(), paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        let pack = move || {
            let file = File::create(&out).map_err(|error| error.to_string())?;
            relay_artifact::pack(&work, &paths, io::BufWriter::new(file)).map_err(|error| error.to_string())
        };
        let packed_as =
            tokio::task::spawn_blocking(pack).await.map_err(|error| bad(error.to_string()))?.map_err(bad)?;
        let key = artifact::object_key(&format!("saved/{}/", configuration.target), packed_as.digest);
        objects.put_file(&configuration.bucket, &key, &packed).await.map_err(|error| bad(error.to_string()))?;
        self.subjects.push(Subject::new(format!("saved/{step}"), packed_as.digest));
        Ok(packed_as.digest)
    }

    /// Removes everything.
    pub(crate) fn clear(self) {
        for secret in self.secrets {
            drop(Zeroizing::new(secret));
        }
        if let Err(error) = fs::remove_dir_all(&self.base) {
            tracing::warn!(%error, folder = %self.base.display(), "the work directory was not removed");
        }
    }
}

/// The tool may have put anything in this file's place: a link to what only the runner may read, or a pipe that nobody ever writes to.
fn open_output(path: &Path) -> Result<File, String> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        Ok(file)
    } else {
        Err("it is no file any more".to_owned())
    }
}

/// Downloads to a nameless file and checks the digest before anything looks inside.
async fn fetch(
    objects: &Objects,
    bucket: &str,
    key: &str,
    max: u64,
    wanted: Digest,
    folder: &Path,
) -> Result<File, String> {
    let mut file = tempfile::tempfile_in(folder).map_err(|error| error.to_string())?;
    let mut hasher = <sha2::Sha256 as sha2::Digest>::new();
    let found = objects
        .fetch(bucket, key, max, |part| {
            sha2::Digest::update(&mut hasher, part);
            file.write_all(part)
        })
        .await
        .map_err(|error| error.to_string())?;
    if !found {
        return Err(format!("there is no s3://{bucket}/{key}"));
    }
    let digest = Digest::from_bytes(sha2::Digest::finalize(hasher).into());
    if digest != wanted {
        return Err(format!("s3://{bucket}/{key} has the digest {digest}"));
    }
    file.rewind().map_err(|error| error.to_string())?;
    Ok(file)
}

fn unpack(file: File, max: u64, folder: &Path) -> Result<(), String> {
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    fs::create_dir(folder).map_err(|error| error.to_string())?;
    relay_artifact::unpack(io::BufReader::new(file), size, max, folder).map(|_| ()).map_err(|error| error.to_string())
}
