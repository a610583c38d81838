//! The request in the evidence bucket: written before anything is decided, and read again for every
//! later judgement (clauses EVD-2, LAU-12).

use std::collections::BTreeSet;

use relay_aws::{AwsError, Kind, issuer_keys};
use relay_policy::{Asked, Configuration, Found};
use relay_protocol::evidence::Evidence;
use relay_protocol::keys::{IssuerKeys, KeyName};
use relay_protocol::limits::{BUNDLE_MAX, ISSUER_KEYS_FILE_MAX};
use relay_protocol::{Bundle, Request, RequestRef};
use tracing::warn;

use crate::launcher::{Launcher, Target};

impl Launcher {
    /// Writes the request and the configuration to the evidence. If a request is there already, it
    /// stands, with its approvals; `None` means that it is another request.
    pub(crate) async fn store(&self, target: &Target, asked: Asked) -> Result<Option<Asked>, AwsError> {
        let (bucket, evidence) = (&self.settings.evidence, asked.evidence());
        let text = target.configuration.text.clone();
        self.objects.put_once(bucket, &evidence.configuration(target.configuration.digest), text).await?;
        // Before the request, so that no request is without the keys that it is judged by.
        let Some(asked) = self.store_keys(target, asked).await? else { return Ok(None) };
        let is_first = self.objects.put_once(bucket, &evidence.request(), asked.canonical()).await?;
        if is_first && asked.keys.is_empty() {
            return Ok(Some(asked));
        }
        let stands = self.read_request(&evidence, &target.configuration).await?;
        Ok(stands.ok().filter(|stands| stands.request.digest() == asked.request.digest()))
    }

    /// Writes the keys that the tokens were judged by. If others are there already, those stand,
    /// and the request is judged again by them: what is written has to be verifiable by them alone.
    async fn store_keys(&self, target: &Target, asked: Asked) -> Result<Option<Asked>, AwsError> {
        let (bucket, evidence) = (&self.settings.evidence, asked.evidence());
        let Some(keys) = asked.issuer_keys() else { return Ok(Some(asked)) };
        if self.objects.put_once(bucket, &evidence.issuer_keys(), keys).await? {
            return Ok(Some(asked));
        }
        let again = self.read_keys(&evidence).await?.and_then(|keys| {
            let bundle = Bundle::parse(asked.canonical().as_bytes()).map_err(|error| error.to_string())?;
            relay_policy::verify(&bundle, &target.configuration, &keys)
                .map_err(|error| relay_policy::explain(&error, &bundle, &target.configuration, &keys))
        });
        Ok(again.inspect_err(|problem| warn!(problem, "the keys in the evidence do not fit this request")).ok())
    }

    /// Reads and verifies a request of the evidence. The inner error says why it does not count.
    pub(crate) async fn read_request(
        &self,
        evidence: &Evidence,
        configuration: &Configuration,
    ) -> Result<Result<Asked, String>, AwsError> {
        let key = evidence.request();
        let object = match self.objects.get(&self.settings.evidence, &key, BUNDLE_MAX as u64).await {
            Err(error) if error.kind == Kind::Invalid => return Ok(Err(error.to_string())),
            object => object?,
        };
        let Some(object) = object else { return Ok(Err(format!("the evidence has no {key}"))) };
        let bundle = match Bundle::parse(&object.bytes) {
            Ok(bundle) => bundle,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let keys = match relay_policy::key_names(&bundle, configuration).is_empty() {
            true => IssuerKeys::default(),
            false => match self.read_keys(evidence).await? {
                Ok(keys) => keys,
                Err(problem) => return Ok(Err(problem)),
            },
        };
        Ok(relay_policy::verify(&bundle, configuration, &keys)
            .map_err(|error| relay_policy::explain(&error, &bundle, configuration, &keys)))
    }

    /// Reads the keys that the tokens of a request were judged by when it was new. A later
    /// judgement uses them, whatever the issuer's keys are by then (clause SIG-8).
    async fn read_keys(&self, evidence: &Evidence) -> Result<Result<IssuerKeys, String>, AwsError> {
        let key = evidence.issuer_keys();
        let object = match self.objects.get(&self.settings.evidence, &key, ISSUER_KEYS_FILE_MAX).await {
            Err(error) if error.kind == Kind::Invalid => return Ok(Err(error.to_string())),
            object => object?,
        };
        let Some(object) = object else { return Ok(Err(format!("the evidence has no {key}"))) };
        Ok(IssuerKeys::parse(&object.bytes).map_err(|error| format!("{key}: {error}")))
    }

    /// Reads the keys of issuers that an envelope or a bundle names, as they are now.
    pub(crate) async fn keys_now(&self, names: &BTreeSet<KeyName>) -> Result<IssuerKeys, AwsError> {
        issuer_keys::read(&self.objects, &self.settings.bucket, names).await
    }

    /// Reads what the evidence has for the artifacts of a request that other targets saved.
    pub(crate) async fn saved(&self, configuration: &Configuration, request: &Request) -> Result<Found, AwsError> {
        let artifacts = relay_policy::saved_artifacts(&configuration.parameters, request);
        relay_aws::saved::read(&self.objects, &self.settings.evidence, &artifacts).await
    }

    /// Reads and verifies the request that a task was started for, and compares it with what the
    /// task's override says.
    pub(crate) async fn request_of(
        &self,
        named: &RequestRef,
        configuration: &Configuration,
    ) -> Result<Result<Asked, String>, AwsError> {
        let asked = self.read_request(&named.evidence(), configuration).await?;
        Ok(asked.and_then(|asked| match named.fits(asked.request(), asked.request.digest()) {
            true => Ok(asked),
            false => Err("the request in the evidence is not the one that the task was started for".to_owned()),
        }))
    }
}
