//! The launcher's own record of a deployment that has no record of a runner: refused, never
//! started, killed or lost (clause REC-5).

use relay_aws::AwsError;
use relay_aws::clock::now;
use relay_engine::conclude::never_ran;
use relay_engine::launch::reasons;
use relay_policy::{Asked, Configuration};
use relay_protocol::claim::{Claim, Holder, Verdict};
use relay_protocol::encoding::short;
use relay_protocol::evidence::Writer;
use relay_protocol::limits::RECORD_MAX;
use relay_protocol::record::{self, LauncherOutcome, Record, RecordSigner, Unfinished};
use relay_protocol::task::Task;
use relay_protocol::{Digest, Envelope, Reason};

use crate::launcher::Launcher;

/// How a deployment ended, as the launcher knows it.
pub(crate) struct Ending<'a> {
    outcome: LauncherOutcome,
    reason: Reason,
    message: String,
    task: Option<&'a Task>,
}

impl<'a> Ending<'a> {
    /// The launcher's final verdict, if the claim holds one.
    pub(crate) fn of_claim(claim: &Claim, task: Option<&'a Task>) -> Option<Self> {
        let Holder::Launcher { verdict, reason, message } = &claim.holder else { return None };
        let outcome = match verdict {
            Verdict::Refused => LauncherOutcome::Refused,
            Verdict::LaunchFailed => LauncherOutcome::NeverStarted,
        };
        Some(Self { outcome, reason: *reason, message: message.clone(), task })
    }

    /// The end of a task whose runner held the claim and left no record.
    fn of_task(task: &'a Task) -> Self {
        let reason = reasons::stop_reason(task);
        let outcome = match reason {
            Reason::Lost | Reason::Runner => LauncherOutcome::Lost,
            // A runner has claimed, so a container ran, whatever ECS says.
            reason if never_ran(reason) => LauncherOutcome::Lost,
            _ => LauncherOutcome::Killed,
        };
        let message = task.stopped_reason.clone().unwrap_or_else(|| reason.words().to_owned());
        Self { outcome, reason, message, task: Some(task) }
    }
}

impl Launcher {
    /// Makes sure that there is a record of a deployment whose task has stopped.
    pub(crate) async fn record_end(
        &self,
        configuration: &Configuration,
        asked: &Asked,
        task: &Task,
    ) -> Result<(), AwsError> {
        let evidence = asked.evidence();
        if self.objects.exists(&self.settings.evidence, &evidence.record(Writer::Runner)).await? {
            return Ok(());
        }
        let claim = self.read_claim(&evidence).await?;
        let ending = claim.as_ref().and_then(|claim| Ending::of_claim(claim, Some(task)));
        self.record(configuration, asked, ending.unwrap_or_else(|| Ending::of_task(task))).await
    }

    /// Writes the launcher's record, unless it is there already. The first one stands.
    pub(crate) async fn record(
        &self,
        configuration: &Configuration,
        asked: &Asked,
        ending: Ending<'_>,
    ) -> Result<(), AwsError> {
        let (bucket, evidence) = (&self.settings.evidence, asked.evidence());
        let key = evidence.record(Writer::Launcher);
        let mut stands = self.standing(&key).await?;
        if stands.is_none() {
            let unsigned = statement(configuration, asked, ending).to_envelope();
            let signed = self.answers.key().sign_envelope(unsigned).await?;
            // Two deliveries may race, each with a record of its own. The bundle is made of the one
            // that stands.
            stands = match self.objects.put_once(bucket, &key, signed.to_json()).await? {
                true => Some(signed),
                false => self.standing(&key).await?,
            };
        }
        match stands {
            Some(stands) => {
                let bundle = record::sigstore(&stands);
                self.objects.put_once(bucket, &evidence.sigstore(Writer::Launcher), bundle).await.map(|_| ())
            }
            // Nobody but launchers may write it; `relay verify` tells whoever looks.
            None => Ok(()),
        }
    }

    /// The record that was written before, if it is there and can be read.
    async fn standing(&self, key: &str) -> Result<Option<Envelope>, AwsError> {
        let object = self.objects.get(&self.settings.evidence, key, 2 * RECORD_MAX as u64).await?;
        Ok(object.and_then(|object| Envelope::parse(&object.bytes, 2 * RECORD_MAX).ok()))
    }
}

fn statement(configuration: &Configuration, asked: &Asked, ending: Ending<'_>) -> Record<Unfinished> {
    let request = asked.request();
    let Ending { outcome, reason, message, task } = ending;
    let request_json = Digest::of(asked.canonical().as_bytes());
    let issuer_keys = asked.issuer_keys().map(|keys| Digest::of(keys.as_bytes()));
    let subjects = record::subjects(asked.request.digest(), request_json, configuration.digest, issuer_keys);
    let unfinished = Unfinished {
        deployment_id: request.deployment_id.clone(),
        target: request.target.clone(),
        audience: request.audience.clone(),
        parameters: request.parameters.clone(),
        signers: asked.request.signers().iter().map(RecordSigner::from).collect(),
        approvers: asked.approvals.iter().flat_map(|approval| approval.signers()).map(RecordSigner::from).collect(),
        origin: request.origin.clone(),
        recorded_at: now(),
        outcome,
        reason,
        message: short(&message),
        task_arn: task.map(|task| task.arn.clone()),
        exit_code: task.and_then(|task| task.exit_code),
        launcher_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Record::new(subjects, unfinished)
}
