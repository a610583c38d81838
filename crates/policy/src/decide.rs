//! The decision: who asks for what, and whether it is allowed. The launcher and the runner both
//! call this code (clauses LAU-3 to LAU-8, RUN-4 to RUN-8).

use std::collections::{BTreeMap, BTreeSet};

use relay_protocol::keys::{KnownSigner, SingleKey};
use relay_protocol::request::{RequestError, Stage};
use relay_protocol::{
    Approval, Bundle, Control, Envelope, ParameterName, Reason, Request, Timestamp, Verified, VerifyError, overrides,
};

use crate::cedar::Question;
use crate::configuration::Configuration;
use crate::parameters;

/// A verified request with those of its approvals that could be verified.
#[derive(Debug)]
pub struct Asked {
    /// The request.
    pub request: Verified<Request, KnownSigner>,
    /// The verified approvals. Those without a valid signature were dropped (clause APP-4).
    pub approvals: Vec<Verified<Approval, KnownSigner>>,
}

impl Asked {
    /// The content of the request.
    pub fn request(&self) -> &Request {
        self.request.statement()
    }

    /// The canonical form of the request and its approvals, for the override (clause BUN-3).
    pub fn canonical(&self) -> String {
        Bundle::canonical(&self.request, &self.approvals).to_json()
    }
}

/// Verifies a bundle against the signers of a target (clauses LAU-3, RUN-4).
///
/// # Errors
///
/// If the request cannot be verified. An approval that cannot be verified is not an error.
pub fn verify(bundle: &Bundle, configuration: &Configuration) -> Result<Asked, VerifyError> {
    let request = configuration.roots.verify(&bundle.request)?;
    let approvals = bundle.approvals.iter().filter_map(|approval| configuration.roots.verify(approval).ok()).collect();
    Ok(Asked { request, approvals })
}

/// The answer that a request is allowed, and by which policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The policies that allowed it.
    pub policies: Vec<String>,
    /// The signer of the request, as the policies saw it.
    pub signer: KnownSigner,
    /// The signers who approved the request.
    pub approvers: Vec<KnownSigner>,
    /// The argument vectors of all steps, and those of the rollback.
    pub commands: (Vec<Vec<String>>, Vec<Vec<String>>),
}
fn persons(approvers: &[KnownSigner]) -> u32 {
    let persons: BTreeSet<&str> = approvers.iter().map(|approver| approver.person.as_str()).collect();
    u32::try_from(persons.len()).unwrap_or(u32::MAX)
}

/// The answer that a request is not allowed. The requester is told why, because the signature is
/// valid (clause LAU-6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The reason code of the check that failed.
    pub reason: Reason,
    /// An explanation for people.
    pub message: String,
}

fn denied(reason: Reason, message: impl ToString) -> Denied {
    Denied { reason, message: message.to_string() }
}

impl From<RequestError> for Denied {
    fn from(error: RequestError) -> Self {
        let reason = match &error {
            RequestError::Expired { .. } => Reason::Expired,
            RequestError::NotYetValid { .. } => Reason::NotYetValid,
            RequestError::Lifetime { .. } => Reason::Lifetime,
            RequestError::Audience { .. } => Reason::Audience,
            RequestError::Target { .. } => Reason::Target,
            RequestError::Queue { .. } => Reason::Queue,
        };
        denied(reason, error)
    }
}

/// Decides whether a request is allowed. Everything that it looks at is verified or pinned; the
/// caller supplies `now` and `stage`.
///
/// # Errors
///
/// If any check fails. [`Denied`] names the check and explains the failure.
pub fn authorise(
    configuration: &Configuration,
    asked: &Asked,
    now: Timestamp,
    stage: Stage,
) -> Result<Allowed, Denied> {
    let request = asked.request();
    request.check_place(&configuration.topic, &configuration.target)?;
    request.check_time(now, stage)?;
    if configuration.frozen {
        return Err(denied(Reason::Frozen, format!("deployments of {} are frozen", configuration.target)));
    }
    overrides::check(&asked.canonical()).map_err(|error| denied(Reason::TooLarge, error))?;
    parameters::check(&configuration.parameters, &request.parameters)
        .map_err(|error| denied(Reason::Parameter, error))?;
    let commands = commands(configuration, &request.parameters)?;
    let approvers = approvers(asked);
    let approvals = persons(&approvers);
    let mut refused = None;
    for signer in asked.request.signers() {
        // The accounts of a signer are its own. A signer that may not use the queue cannot lend its
        // permission to one that may.
        if let Err(error) = request.check_queues(&signer.ci_accounts, &configuration.fixed_queues) {
            refused.get_or_insert(Denied::from(error));
            continue;
        }
        let question = Question {
            signer,
            action: "deploy",
            target: &configuration.target,
            parameters: &request.parameters,
            issued_at: request.issued_at,
            approvals,
        };
        match configuration.policies.ask(&question) {
            Ok(Some(policies)) => return Ok(Allowed { policies, signer: signer.clone(), approvers, commands }),
            Ok(None) => refused = Some(not_permitted(configuration, asked, signer, approvals)),
            Err(error) => return Err(denied(Reason::Policy, error)),
        }
    }
    Err(refused.unwrap_or_else(|| denied(Reason::Policy, "no signer of this request may deploy to this target")))
}

/// Whether `envelope` is a control statement that may stop this deployment. It must be signed by
/// the request's own session key, or by a signer that the policy allows the action `cancel`
/// (clauses CTL-1 to CTL-4).
pub fn may_cancel(configuration: &Configuration, asked: &Asked, envelope: &Envelope, now: Timestamp) -> bool {
    let request = asked.request();
    let ours = |control: &Control| control.is_for(&request.deployment_id, asked.request.digest(), now);
    if let Ok(session) = SingleKey::new(&request.session_key)
        && let Ok(control) = session.verify::<Control>(envelope)
    {
        return ours(control.statement());
    }
    let Ok(control): Result<Verified<Control, _>, _> = configuration.roots.verify(envelope) else { return false };
    let approvals = persons(&approvers(asked));
    ours(control.statement())
        && control.signers().iter().any(|signer| {
            let question = Question {
                signer,
                action: "cancel",
                target: &configuration.target,
                parameters: &request.parameters,
                issued_at: control.statement().issued_at,
                approvals,
            };
            matches!(configuration.policies.ask(&question), Ok(Some(_)))
        })
}

/// The denial when no policy permits. It distinguishes a policy that refuses from one that only
/// needs more approvals.
fn not_permitted(configuration: &Configuration, asked: &Asked, signer: &KnownSigner, approvals: u32) -> Denied {
    let request = asked.request();
    let with_more = Question {
        signer,
        action: "deploy",
        target: &configuration.target,
        parameters: &request.parameters,
        issued_at: request.issued_at,
        approvals: u32::from(u16::MAX),
    };
    if matches!(configuration.policies.ask(&with_more), Ok(Some(_))) {
        let offered = asked.approvals.len();
        return denied(
            Reason::Approval,
            format!(
                "{approvals} persons have approved exactly this request ({offered} approvals came with it); the policy requires more"
            ),
        );
    }
    denied(Reason::Policy, format!("no policy of {} permits {} to deploy this", configuration.target, signer.name))
}

/// The signers who approved exactly this request: one entry per key, without the persons who signed
/// the request.
fn approvers(asked: &Asked) -> Vec<KnownSigner> {
    let request = asked.request();
    let subject = request.subject();
    let requesters: BTreeSet<&str> = asked.request.signers().iter().map(|signer| signer.person.as_str()).collect();
    let mut approvers: BTreeMap<&str, &KnownSigner> = BTreeMap::new();
    for approval in &asked.approvals {
        if approval.statement().covers(subject, request.issued_at) {
            for signer in approval.signers().iter().filter(|signer| !requesters.contains(signer.person.as_str())) {
                approvers.insert(&signer.key_id, signer);
            }
        }
    }
    approvers.into_values().cloned().collect()
}

type Commands = (Vec<Vec<String>>, Vec<Vec<String>>);

fn commands(configuration: &Configuration, values: &BTreeMap<ParameterName, String>) -> Result<Commands, Denied> {
    let fill = |steps: &[crate::Step]| {
        steps
            .iter()
            .map(|step| step.run.iter().map(|template| template.fill(values)).collect::<Result<Vec<_>, _>>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| denied(Reason::Parameter, error))
    };
    Ok((fill(&configuration.steps)?, fill(&configuration.rollback)?))
}
