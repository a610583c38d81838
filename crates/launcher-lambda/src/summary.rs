//! The verification summary that the launcher leaves before it starts a task (clause REC-8).

use relay_aws::AwsError;
use relay_aws::clock::now;
use relay_policy::{Asked, Configuration, ParameterRule};
use relay_protocol::Digest;
use relay_protocol::record::{self, Subject};
use relay_protocol::summary::{Decided, Descriptor, passed};

use crate::launcher::Launcher;

impl Launcher {
    /// Writes that the policies permitted this request. The first summary stands.
    pub(crate) async fn summarise(&self, configuration: &Configuration, asked: &Asked) -> Result<(), AwsError> {
        let (bucket, evidence) = (&self.settings.evidence, asked.evidence());
        let (request, request_json) = (asked.request(), Digest::of(asked.canonical().as_bytes()));
        let decided = Decided {
            audience: &request.audience,
            target: &request.target,
            at: now(),
            configuration: Descriptor::new(bucket, &evidence.configuration(configuration.digest), configuration.digest),
            request: Descriptor::new(bucket, &evidence.request(), request_json),
            launcher_version: env!("CARGO_PKG_VERSION"),
        };
        let summary = passed(subjects(configuration, asked, request_json), decided);
        let signed = self.answers.key().sign_envelope(summary.to_envelope()).await?;
        self.objects.put_once(bucket, &evidence.summary(), signed.to_json()).await.map(|_| ())
    }
}

/// What may be deployed now: the request, its artifacts, and the images that the configuration
/// names.
fn subjects(configuration: &Configuration, asked: &Asked, request_json: Digest) -> Vec<Subject> {
    let issuer_keys = asked.issuer_keys().map(|keys| Digest::of(keys.as_bytes()));
    let mut all = record::subjects(asked.request.digest(), request_json, configuration.digest, issuer_keys);
    for (name, value) in &asked.request().parameters {
        let is_text = matches!(configuration.parameters.get(name), None | Some(ParameterRule::Text { .. }));
        all.extend(
            value.parse().ok().filter(|_| !is_text).map(|digest| Subject::new(format!("artifact/{name}"), digest)),
        );
    }
    for (container, image) in configuration.images.iter().flat_map(|images| images.named()) {
        all.extend(image.sha256().map(|digest| Subject::new(format!("image/{container}"), digest)));
    }
    all
}
