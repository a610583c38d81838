//! The workplace: a new directory for each deployment. It owns the artifacts, the steps'
//! environment and secrets, and the file for outputs.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use relay_aws::Sdk;
use relay_aws::objects::Objects;
use relay_aws::secrets::Secrets as Store;
use relay_aws::sessions::Sessions;
use relay_engine::SECRET_MIN;
use relay_policy::{Asked, Configuration, ParameterRule, SecretRef, Step};
use relay_protocol::encoding::{Hasher, short};
use relay_protocol::evidence::Evidence;
use relay_protocol::frame::outputs_size;
use relay_protocol::limits::{OUTPUTS_MAX, SAVED_TEXT_MAX};
use relay_protocol::record::Subject;
use relay_protocol::{Digest, Reason, RequestRef, artifact};
use rustix::fs::{AtFlags, CWD, Gid, OFlags, Uid, chownat};

use crate::credentials::{Endpoint, Role};
use crate::outputs;
use crate::remove::remove_tree;
use crate::secrets::Secrets;
use crate::step::Text;

/// How long the removal of the directory may take.
const CLEAR: Duration = Duration::from_secs(30);

/// An error, other than the tool's own exit, that ends the deployment.
#[derive(Debug)]
pub(crate) struct StepError {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl StepError {
    /// Creates an error from its reason and a message for people.
    pub(crate) fn new(reason: Reason, message: impl ToString) -> Self {
        Self { reason, message: message.to_string() }
    }
}

/// The directory, and the environment of the steps. It contains secrets, so it has no `Debug`.
pub(crate) struct Workplace {
    base: PathBuf,
    /// The directory in which the steps run.
    pub(crate) work: PathBuf,
    /// The complete environment of the steps.
    pub(crate) environment: BTreeMap<String, String>,
    /// The secrets that the output must not show.
    pub(crate) secrets: Secrets,
    /// The tool's user id, if it is not the runner's.
    pub(crate) user: Option<u32>,
    /// The endpoint that serves the tool's credentials.
    credentials: Option<Endpoint>,
    /// The artifacts, for the record.
    pub(crate) subjects: Vec<Subject>,
    /// What the reader of the output should know.
    pub(crate) warnings: Vec<String>,
}

impl Workplace {
    /// Creates the directory with an empty work directory in it.
    pub(crate) fn make(configuration: &Configuration, asked: &Asked) -> Result<Self, StepError> {
        let request = asked.request();
        let base = Path::new(&configuration.workspace).join(request.deployment_id.as_str());
        let work = base.join("work");
        let user = (configuration.uid != 0 && rustix::process::geteuid().is_root()).then_some(configuration.uid);
        let odd = |error: io::Error| {
            StepError::new(Reason::Runner, format!("cannot create the work directory {}: {error}", work.display()))
        };
        fs::create_dir_all(&configuration.workspace).map_err(odd)?;
        // Not `create_dir_all`: a directory that already exists is not ours, and not empty.
        fs::create_dir(&base).map_err(odd)?;
        let temporary = base.join("tmp");
        fs::create_dir(&work).map_err(odd)?;
        fs::create_dir(&temporary).map_err(odd)?;
        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOME".to_owned(), work.display().to_string()),
            // All other directories may be read-only.
            ("TMPDIR".to_owned(), temporary.display().to_string()),
        ]);
        environment.extend(configuration.environment.clone());
        environment.extend(request.parameters.iter().map(|(name, value)| (name.variable(), value.clone())));
        environment.insert("RELAY_DEPLOYMENT_ID".to_owned(), request.deployment_id.to_string());
        environment.insert("RELAY_TARGET".to_owned(), request.target.to_string());
        let requesters: Vec<&str> = asked.request.signers().iter().map(|signer| signer.name.as_str()).collect();
        environment.insert("RELAY_REQUESTERS".to_owned(), requesters.join(","));
        if let Some(trace) = &request.traceparent {
            environment.insert("TRACEPARENT".to_owned(), trace.as_str().to_owned());
        }
        environment.insert("RELAY_OUTPUT".to_owned(), base.join("output").display().to_string());
        File::create_new(base.join("output")).map_err(odd)?;
        for path in [&work, &temporary, &base.join("output")] {
            give(path, user).map_err(odd)?;
        }
        let (credentials, subjects, warnings) = Default::default();
        Ok(Self { base, work, environment, secrets: Secrets::new(), user, credentials, subjects, warnings })
    }

    /// What keeps the tool from the runner's own credentials (clause REC-3 names the values).
    pub(crate) fn isolation(&self) -> &'static str {
        match (self.user, &self.credentials) {
            (Some(_), _) => "uid",
            (None, Some(_)) if !an_ancestor_shows_credentials() => "credentials",
            (None, _) => "none",
        }
    }

    /// Reads the secrets, and starts the endpoint for the tool's credentials.
    pub(crate) async fn furnish(
        &mut self,
        configuration: &Configuration,
        asked: &Asked,
        sdk: &Sdk,
    ) -> Result<(), StepError> {
        if !configuration.secrets.is_empty() {
            let store = Store::new(sdk);
            for (name, reference) in &configuration.secrets {
                let bad = |problem: String| StepError::new(Reason::Secret, format!("{name} ({reference}): {problem}"));
                let value = read_secret(&store, reference).await.map_err(bad)?;
                self.keep(name, value);
            }
        }
        if let Some(role) = &configuration.role {
            let request = asked.request();
            let in_the_name_of = Role {
                sessions: Sessions::new(sdk),
                arn: role.clone(),
                deployment_id: request.deployment_id.clone(),
                target: request.target.clone(),
            };
            let endpoint = Endpoint::start(in_the_name_of, self.secrets.clone())
                .await
                .map_err(|error| StepError::new(Reason::Role, format!("{role}: {error}")))?;
            for (name, value) in &endpoint.variables {
                self.environment.insert((*name).to_owned(), value.clone());
            }
            self.credentials = Some(endpoint);
        }
        Ok(())
    }

    fn keep(&mut self, name: &str, value: String) {
        if value.trim().len() < SECRET_MIN {
            self.warnings.push(format!(
                "the secret {name} has fewer than {SECRET_MIN} characters, so it is not masked in the output"
            ));
        }
        self.secrets.add(value.clone().into_bytes());
        self.environment.insert(name.to_owned(), value);
    }

    /// Fetches, verifies and unpacks each artifact into a directory named after its parameter
    /// (clauses ART-2 to ART-5).
    pub(crate) async fn fetch_artifacts(
        &mut self,
        configuration: &Configuration,
        asked: &Asked,
        objects: &Objects,
    ) -> Result<(), StepError> {
        for (name, rule) in &configuration.parameters {
            let (bucket, prefix, max) = match rule {
                ParameterRule::Text { .. } => continue,
                ParameterRule::Artifact { location, max } => (location.bucket.as_str(), location.prefix.clone(), *max),
                ParameterRule::SavedBy { target, max, .. } => {
                    (configuration.bucket.as_str(), artifact::saved_prefix(target), *max)
                }
            };
            let bad = |problem: String| StepError::new(Reason::Artifact, format!("the artifact `{name}`: {problem}"));
            let Some(Ok(wanted)) = asked.request().parameters.get(name).map(|value| value.parse::<Digest>()) else {
                return Err(bad("its value is not a digest".to_owned()));
            };
            let key = artifact::object_key(&prefix, wanted);
            let file =
                fetch(objects, Source { bucket, key: &key, max, digest: wanted }, &self.base).await.map_err(bad)?;
            let folder = self.work.join(name.as_str());
            let user = self.user;
            tokio::task::spawn_blocking(move || unpack(file, max, &folder, user))
                .await
                .map_err(|error| bad(error.to_string()))?
                .map_err(bad)?;
            self.subjects.push(Subject::new(format!("artifact/{name}"), wanted));
        }
        Ok(())
    }

    /// Masks the secrets in texts for the record (clause REC-4). One masker serves all
    /// of them, because it costs more to make than to use.
    pub(crate) fn masked(&self, texts: &[String]) -> Vec<String> {
        let mut masker = self.secrets.masker();
        texts.iter().map(|text| String::from_utf8_lossy(&masker.mask(text.as_bytes())).into_owned()).collect()
    }

    /// Adds the outputs that the steps have written to `$RELAY_OUTPUT`, masked, as far as there is
    /// room for them (clause FRM-14). Returns what was left out, in words.
    pub(crate) fn add_outputs(&self, outputs: &mut BTreeMap<String, String>) -> Vec<String> {
        let mut text = Vec::new();
        let file = match open_output(&self.base.join("output")) {
            Ok(file) => file,
            Err(problem) => return vec![format!("$RELAY_OUTPUT is ignored: {problem}")],
        };
        if file.take(OUTPUTS_MAX as u64 + 1).read_to_end(&mut text).is_err() || text.len() > OUTPUTS_MAX {
            return vec![format!("$RELAY_OUTPUT is ignored: it is larger than the limit of {OUTPUTS_MAX} bytes")];
        }
        let mut room = OUTPUTS_MAX.saturating_sub(outputs_size(outputs));
        let (mut malformed, mut refused) = (0_usize, Vec::new());
        // Masked as a whole, because a secret may have several lines.
        let masked = self.secrets.masker().mask(&text);
        for pair in outputs::parse(&String::from_utf8_lossy(&masked)) {
            let Some((name, value)) = pair else {
                malformed += 1;
                continue;
            };
            // Braces that every map has, less a comma that one pair alone does not need.
            let pair = BTreeMap::from([(name, value)]);
            match room.checked_sub(outputs_size(&pair)) {
                Some(left) => {
                    room = left;
                    outputs.extend(pair);
                }
                None => refused.extend(pair.into_keys()),
            }
        }
        let mut problems = Vec::new();
        if malformed > 0 {
            problems.push(format!(
                "lines of $RELAY_OUTPUT that are ignored, because they are neither name=value nor name<<END: {malformed}"
            ));
        }
        if !refused.is_empty() {
            let names = short(&refused.join(", "));
            problems.push(format!(
                "outputs are refused, because all together may have {OUTPUTS_MAX} bytes as JSON: {names}"
            ));
        }
        problems
    }

    /// Packs the paths that a step saves, with its text if it has one, and stores them in the relay
    /// bucket under their digest. Then it leaves a mark in the evidence that says which deployment
    /// it was (clauses ART-7, ART-8).
    pub(crate) async fn save(&mut self, saving: &Saving<'_>) -> Result<Digest, StepError> {
        let Saving { configuration, asked, objects, step, text } = saving;
        let bad = |problem: String| {
            StepError::new(Reason::Artifact, format!("cannot save the paths of the step `{}`: {problem}", step.name))
        };
        let text = match text {
            None => relay_artifact::Text::None,
            Some(text) => relay_artifact::Text::Own(text.take().ok_or_else(|| {
                bad(format!(
                    "its stdout was not read to its end, or is longer than the {SAVED_TEXT_MAX} bytes that an approver is shown"
                ))
            })?),
        };
        let packed = self.base.join("saved.tar.zst");
        let (work, out, paths) =
            (self.work.clone(), packed.clone(), step.save.iter().map(PathBuf::from).collect::<Vec<_>>());
        let pack = move || {
            let file = File::create(&out).map_err(|error| error.to_string())?;
            relay_artifact::pack(&work, &paths, text, io::BufWriter::new(file)).map_err(|error| error.to_string())
        };
        let digest =
            tokio::task::spawn_blocking(pack).await.map_err(|error| bad(error.to_string()))?.map_err(bad)?.digest;
        let key = artifact::object_key(&artifact::saved_prefix(&configuration.target), digest);
        objects.put_file(&configuration.bucket, &key, &packed).await.map_err(|error| bad(error.to_string()))?;
        let mine = RequestRef::of(asked.request(), asked.request.digest()).to_json();
        let mark = Evidence::saved(&configuration.target, digest);
        // If the same bytes were saved before, the first deployment stands.
        objects.put_once(&configuration.evidence, &mark, mine).await.map_err(|error| bad(error.to_string()))?;
        self.subjects.push(Subject::new(format!("saved/{}", step.name), digest));
        Ok(digest)
    }

    /// Ends what serves the tool: its credentials and the copies of its secrets.
    pub(crate) fn close(self) -> Remains {
        Remains { base: self.base }
    }
}

/// What a step saves.
pub(crate) struct Saving<'a> {
    pub(crate) configuration: &'a Configuration,
    pub(crate) asked: &'a Asked,
    pub(crate) objects: &'a Objects,
    pub(crate) step: &'a Step,
    /// Its stdout, if it is saved too.
    pub(crate) text: Option<&'a Text>,
}

/// What is left of a workplace once the tool has ended: its directory.
#[derive(Debug)]
pub(crate) struct Remains {
    base: PathBuf,
}

impl Remains {
    /// Removes the directory. After [`CLEAR`], the rest is left to the container's end.
    pub(crate) async fn clear(self) {
        let base = self.base.clone();
        let removing = tokio::task::spawn_blocking(move || remove_tree(&base));
        let problem = match tokio::time::timeout(CLEAR, removing).await {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it takes longer than {} s", CLEAR.as_secs()),
        };
        tracing::warn!(problem, folder = %self.base.display(), "cannot remove the work directory");
    }
}

/// Reads a secret, or the value of one key of it.
async fn read_secret(store: &Store, reference: &SecretRef) -> Result<String, String> {
    let SecretRef { arn, key, stage, version } = reference;
    if reference.is_parameter() {
        return store.parameter(arn).await.map_err(|error| error.to_string());
    }
    let whole = store.secret(arn, stage.as_deref(), version.as_deref()).await.map_err(|error| error.to_string())?;
    let Some(key) = key else { return Ok(whole) };
    let json: serde_json::Value = serde_json::from_str(&whole).map_err(|_| "the secret is not JSON".to_owned())?;
    match json.get(key) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(serde_json::Value::Null) | None => Err(format!("the secret has no key `{key}`")),
        Some(other) => Ok(other.to_string()),
    }
}

/// Whether the tool, which has this process's user id, can read where the container's credentials
/// are. An init process that started the runner has them in its environment.
fn an_ancestor_shows_credentials() -> bool {
    crate::leftovers::ancestors().into_iter().any(|pid| {
        let shown = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        shown.split(|byte| *byte == 0).any(|variable| variable.starts_with(b"AWS_CONTAINER_CREDENTIALS_"))
    })
}

/// Opens the output file. The tool may have replaced it with a link to a file that only the runner
/// may read, or with a pipe that nobody writes to.
fn open_output(path: &Path) -> Result<File, String> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| error.to_string())?;
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        Ok(file)
    } else {
        Err("it is no longer a regular file".to_owned())
    }
}

/// The location of an artifact, and what it must match.
struct Source<'a> {
    bucket: &'a str,
    key: &'a str,
    /// The largest size in bytes.
    max: u64,
    digest: Digest,
}

/// Downloads to an unnamed file and checks the digest before anything reads the content.
async fn fetch(objects: &Objects, source: Source<'_>, folder: &Path) -> Result<File, String> {
    let Source { bucket, key, max, digest: wanted } = source;
    let mut file = tempfile::tempfile_in(folder).map_err(|error| error.to_string())?;
    let mut hasher = Hasher::default();
    let found = objects
        .fetch(bucket, key, max, |part| {
            hasher.push(part);
            file.write_all(part)
        })
        .await
        .map_err(|error| error.to_string())?;
    if !found {
        return Err(format!("s3://{bucket}/{key} does not exist"));
    }
    let digest = hasher.digest();
    if digest != wanted {
        return Err(format!("s3://{bucket}/{key} has the digest {digest}, not the requested one"));
    }
    file.rewind().map_err(|error| error.to_string())?;
    Ok(file)
}

fn unpack(file: File, max: u64, folder: &Path, user: Option<u32>) -> Result<(), String> {
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    fs::create_dir(folder).map_err(|error| error.to_string())?;
    relay_artifact::unpack(io::BufReader::new(file), size, max, folder).map_err(|error| error.to_string())?;
    give_all(folder, user).map_err(|error| error.to_string())
}

/// Makes the tool's user the owner of `path`. A link itself changes, not its target.
fn give(path: &Path, user: Option<u32>) -> io::Result<()> {
    let Some(id) = user else { return Ok(()) };
    Ok(chownat(CWD, path, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Does the same for a directory and everything in it. The tool does not run yet, so no path can be
/// replaced meanwhile.
fn give_all(folder: &Path, user: Option<u32>) -> io::Result<()> {
    if user.is_none() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give_all(&entry.path(), user)?;
        } else {
            give(&entry.path(), user)?;
        }
    }
    give(folder, user)
}
