//! The decision: who asks for what, and whether it is allowed. The launcher and the runner both
//! call this code (clauses LAU-3 to LAU-8, RUN-4 to RUN-8).

use std::collections::{BTreeMap, BTreeSet};

use relay_protocol::evidence::Evidence;
use relay_protocol::keys::{KnownSigner, SingleKey};
use relay_protocol::limits::{BUNDLE_MAX, COMMANDS_MAX};
use relay_protocol::request::{RequestError, Stage};
use relay_protocol::{
    Approval, Bundle, Control, Digest, DryRun, Envelope, ParameterName, Reason, Request, Timestamp, Verified,
    VerifyError,
};

use crate::cedar::{Action, Question};
use crate::configuration::Configuration;
use crate::parameters;

/// A verified request with those of its approvals that could be verified.
#[derive(Clone, Debug)]
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

    /// The names of the deployment's objects in the evidence.
    pub fn evidence(&self) -> Evidence {
        Evidence::of(&self.request().target, &self.request().deployment_id)
    }

    /// The canonical form of the request and its approvals, for the evidence (clause BUN-3).
    pub fn canonical(&self) -> String {
        Bundle::canonical(&self.request, &self.approvals).to_json()
    }

    /// The name of the object that shows that the request's ticket was used; `None` if it has no
    /// ticket (clause APP-5).
    pub fn ticket(&self) -> Option<String> {
        ticket(self.request())
    }

    /// The question that the request asks of `configuration`.
    fn asking<'a>(&'a self, configuration: &'a Configuration) -> Asking<'a> {
        let (request, signers) = (self.request(), self.request.signers());
        Asking { configuration, request, signers, approvals: &self.approvals }
    }
}

/// A verified dry run with those of its approvals that could be verified. It is a type of its own,
/// so that nothing takes it for a request.
#[derive(Debug)]
pub struct Tried {
    /// The dry run.
    dry_run: Verified<DryRun, KnownSigner>,
    /// The verified approvals.
    approvals: Vec<Verified<Approval, KnownSigner>>,
}

impl Tried {
    /// The request that it asks about.
    pub fn request(&self) -> &Request {
        &self.dry_run.statement().0
    }

    /// As [`Asked::ticket`].
    pub fn ticket(&self) -> Option<String> {
        ticket(self.request())
    }

    /// Its digest, which the answer names.
    pub fn digest(&self) -> Digest {
        self.dry_run.digest()
    }

    /// The names of its signers.
    pub fn requesters(&self) -> Vec<String> {
        self.dry_run.signers().iter().map(|signer| signer.name.clone()).collect()
    }

    /// Decides what would become of the request (clause DRY-2).
    ///
    /// # Errors
    ///
    /// If any check fails, as in [`authorise`].
    pub fn decide(&self, configuration: &Configuration, now: Timestamp) -> Result<Allowed, Denied> {
        let (request, signers) = (self.request(), self.dry_run.signers());
        Asking { configuration, request, signers, approvals: &self.approvals }.decide(now, Stage::Launch)
    }
}

/// Verifies a dry run against the signers of a target (clause DRY-1).
///
/// # Errors
///
/// If the dry run cannot be verified.
pub fn verify_dry_run(bundle: &Bundle, configuration: &Configuration) -> Result<Tried, VerifyError> {
    let dry_run = configuration.roots.verify(&bundle.request)?;
    Ok(Tried { dry_run, approvals: verify_approvals(bundle, configuration) })
}

/// Verifies a bundle against the signers of a target (clauses LAU-3, RUN-4).
///
/// # Errors
///
/// If the request cannot be verified. An approval that cannot be verified is not an error.
pub fn verify(bundle: &Bundle, configuration: &Configuration) -> Result<Asked, VerifyError> {
    let request = configuration.roots.verify(&bundle.request)?;
    Ok(Asked { request, approvals: verify_approvals(bundle, configuration) })
}

fn ticket(request: &Request) -> Option<String> {
    request.ticket.as_ref().map(|ticket| Evidence::ticket(&request.target, ticket))
}

fn verify_approvals(bundle: &Bundle, configuration: &Configuration) -> Vec<Verified<Approval, KnownSigner>> {
    bundle.approvals.iter().filter_map(|approval| configuration.roots.verify(approval).ok()).collect()
}

/// The answer that a request is allowed, and by which policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The policies that allowed it.
    pub policies: Vec<String>,
    /// The signer of the request, as the policies saw it.
    pub signer: KnownSigner,
    /// The signers whose approvals count.
    pub approvers: Vec<KnownSigner>,
    /// The argument vectors of all steps, and those of the rollback.
    pub commands: (Vec<Vec<String>>, Vec<Vec<String>>),
}

fn persons(approvers: &[KnownSigner]) -> u32 {
    let persons: BTreeSet<&str> = approvers.iter().filter_map(|approver| approver.kind.person()).collect();
    u32::try_from(persons.len()).unwrap_or(u32::MAX)
}

/// What a requester is told whose ticket has served another deployment (clause APP-5).
pub const TICKET_USED: &str = "another deployment has used the ticket of this request, and with it the approvals";

/// The answer that a request is not allowed. The requester is told why, because the signature is
/// valid (clause LAU-6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The reason code of the check that failed.
    pub reason: Reason,
    /// An explanation for people.
    pub message: String,
    /// How many persons more would have to approve; 0 if approvals are not what is missing.
    pub approvals_missing: u32,
}

impl Denied {
    /// A denial for a reason other than missing approvals.
    pub fn new(reason: Reason, message: impl ToString) -> Self {
        Self { reason, message: message.to_string(), approvals_missing: 0 }
    }
}

fn denied(reason: Reason, message: impl ToString) -> Denied {
    Denied::new(reason, message)
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
/// The launcher's question is asked twice, as of the request's `issued_at` and as of `now`, and
/// both times the answer must be yes: a requester could otherwise date a request back to before a
/// freeze (clause LAU-4). The runner asks as of `issued_at` alone, because it starts later.
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
    let allowed = asked.asking(configuration).decide(now, stage)?;
    let found = asked.canonical().len();
    if found > BUNDLE_MAX {
        let message = format!("the request and its approvals have {found} bytes; the limit is {BUNDLE_MAX}");
        return Err(denied(Reason::TooLarge, message));
    }
    Ok(allowed)
}

/// A verified question: may this be deployed?
struct Asking<'a> {
    configuration: &'a Configuration,
    request: &'a Request,
    signers: &'a [KnownSigner],
    approvals: &'a [Verified<Approval, KnownSigner>],
}

impl Asking<'_> {
    fn decide(&self, now: Timestamp, stage: Stage) -> Result<Allowed, Denied> {
        let Self { configuration, request, .. } = self;
        request.check_place(&configuration.topic, &configuration.target)?;
        request.check_time(now, stage)?;
        if configuration.frozen {
            return Err(denied(Reason::Frozen, format!("deployments of {} are frozen", configuration.target)));
        }
        parameters::check(&configuration.parameters, &request.parameters)
            .map_err(|error| denied(Reason::Parameter, error))?;
        let commands = commands(configuration, &request.parameters)?;
        let times = match stage {
            Stage::Launch => vec![now, request.issued_at],
            Stage::Run => vec![request.issued_at],
        };
        let mut refused = None;
        for signer in self.signers {
            // The accounts of a signer are its own. A signer that may not use the queue cannot lend
            // its permission to one that may.
            if let Err(error) = request.check_queues(&signer.ci_accounts, &configuration.fixed_queues) {
                refused.get_or_insert(Denied::from(error));
                continue;
            }
            let (approvers, others) = self.approvers(signer)?;
            match self.ask(signer, persons(&approvers), &times)? {
                Some(policies) => return Ok(Allowed { policies, signer: signer.clone(), approvers, commands }),
                None => refused = Some(self.not_permitted(signer, persons(&approvers), &others, &times)),
            }
        }
        Err(refused.unwrap_or_else(|| denied(Reason::Policy, "no signer of this request may deploy to this target")))
    }

    /// Asks the policies about one signer, as of each of these times. Returns the policies that
    /// permit it as of the last one.
    fn ask(&self, signer: &KnownSigner, approvals: u32, times: &[Timestamp]) -> Result<Option<Vec<String>>, Denied> {
        let mut permitted = None;
        for at in times {
            let question = self.question(signer, Action::Deploy, *at, approvals);
            permitted = self.configuration.policies.ask(&question).map_err(|error| denied(Reason::Policy, error))?;
            if permitted.is_none() {
                return Ok(None);
            }
        }
        Ok(permitted)
    }

    fn question<'a>(
        &'a self,
        signer: &'a KnownSigner,
        action: Action<'a>,
        at: Timestamp,
        approvals: u32,
    ) -> Question<'a> {
        let Self { configuration: Configuration { target, .. }, request: Request { parameters, .. }, .. } = self;
        let requester_known = self.signers.iter().all(|signer| signer.kind.person().is_some());
        Question { signer, action, target, parameters, at, approvals, requester_known }
    }

    /// The denial when no policy permits. It distinguishes a policy that refuses from one that only
    /// needs more approvals.
    fn not_permitted(&self, signer: &KnownSigner, approvals: u32, others: &[String], times: &[Timestamp]) -> Denied {
        let permits = |more: &u32| matches!(self.ask(signer, approvals.saturating_add(*more), times), Ok(Some(_)));
        // A policy counts few persons. One that asks for a number beyond any team says no.
        if let Some(missing) = (1..=APPROVERS_MAX).find(permits) {
            let have = counted(approvals, "person has", "persons have");
            let others: String = others.iter().map(|why| format!("; {why}")).collect();
            let message =
                format!("{have} approved exactly this deployment; the policy requires {missing} more{others}");
            return Denied { reason: Reason::Approval, message, approvals_missing: missing };
        }
        let target = &self.configuration.target;
        denied(Reason::Policy, format!("no policy of {target} permits {} to deploy this", signer.name))
    }

    /// The signers whose approvals count for a request by `requester`, one entry per key, and why
    /// the other approvals do not count (clauses APP-2 to APP-4).
    fn approvers(&self, requester: &KnownSigner) -> Result<(Vec<KnownSigner>, Vec<String>), Denied> {
        let mut approvers: BTreeMap<&str, &KnownSigner> = BTreeMap::new();
        let mut others = Vec::new();
        for approval in self.approvals {
            for signer in approval.signers() {
                match self.why_not(approval.statement(), signer, requester)? {
                    None => drop(approvers.insert(&signer.key_id, signer)),
                    Some(why) => others.push(format!("the approval by {} does not count: {why}", signer.name)),
                }
            }
        }
        Ok((approvers.into_values().cloned().collect(), others))
    }

    /// Why an approval by `signer` does not count. `None` means that it does.
    fn why_not(
        &self,
        approval: &Approval,
        signer: &KnownSigner,
        requester: &KnownSigner,
    ) -> Result<Option<String>, Denied> {
        let Some(person) = signer.kind.person() else {
            return Ok(Some(format!("its kind is `{}`, and only persons approve", signer.kind.name())));
        };
        if self.signers.iter().any(|signer| signer.kind.person() == Some(person)) {
            return Ok(Some("this person signed the request".to_owned()));
        }
        let Some(subject) = self.request.subject(self.configuration.digest) else {
            return Ok(Some("the request has no ticket".to_owned()));
        };
        if subject != approval.subject {
            return Ok(Some("it is for other parameters, another configuration or another ticket".to_owned()));
        }
        if !approval.covers(subject, self.request.issued_at) {
            return Ok(Some(format!("it was valid from {} to {}", approval.issued_at, approval.expires_at)));
        }
        let question = self.question(signer, Action::Approve { requester }, approval.issued_at, 0);
        let permitted = self.configuration.policies.ask(&question).map_err(|error| denied(Reason::Policy, error))?;
        Ok(permitted.is_none().then(|| "no policy permits this signer to approve it".to_owned()))
    }
}

/// The most further approvals that a denial looks for.
const APPROVERS_MAX: u32 = 16;

fn counted(number: u32, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
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
    let asking = asked.asking(configuration);
    let approvals = |requester| asking.approvers(requester).map_or(0, |(approvers, _)| persons(&approvers));
    let approvals = asking.signers.iter().map(approvals).max().unwrap_or_default();
    ours(control.statement())
        && control.signers().iter().any(|signer| {
            let question = asking.question(signer, Action::Cancel, control.statement().issued_at, approvals);
            matches!(configuration.policies.ask(&question), Ok(Some(_)))
        })
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
    let commands: Commands = (fill(&configuration.steps)?, fill(&configuration.rollback)?);
    let bytes: usize = commands.0.iter().chain(&commands.1).flatten().map(String::len).sum();
    if bytes > COMMANDS_MAX {
        let message =
            format!("the command lines of all steps have {bytes} bytes together; the limit is {COMMANDS_MAX}");
        return Err(denied(Reason::TooLarge, message));
    }
    Ok(commands)
}
