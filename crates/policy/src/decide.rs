//! The decision: who asks for what, and whether it is allowed. The launcher and the runner both
//! call this code (clauses LAU-3 to LAU-8, RUN-4 to RUN-8).

use std::collections::{BTreeMap, BTreeSet};

use relay_protocol::encoding::short;
use relay_protocol::evidence::Evidence;
use relay_protocol::frame::TriedArtifact;
use relay_protocol::keys::{IssuerKeys, KeyName, KnownSigner, SingleKey, TokenFacts, TokenTimeError};
use relay_protocol::limits::{BUNDLE_MAX, COMMANDS_MAX};
use relay_protocol::request::{RequestError, Stage};
use relay_protocol::{
    Approval, Bundle, Control, Digest, DryRun, Envelope, ParameterName, Reason, Request, Timestamp, Verified,
    VerifyError,
};

use crate::cedar::{Action, Question};
use crate::configuration::Configuration;
use crate::parameters::{self, ParameterRule};
use crate::saved::{self, Found, Saved};

/// A verified request with those of its approvals that could be verified.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request.
    pub request: Verified<Request, KnownSigner>,
    /// The verified approvals. Those without a valid signature were dropped (clause APP-4).
    pub approvals: Vec<Verified<Approval, KnownSigner>>,
    /// The keys of issuers by which its tokens were judged; empty if it has none.
    pub keys: IssuerKeys,
    /// The artifacts that another target saved, as far as their records were read.
    saved: SavedFacts,
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

    /// The object with the keys of issuers, for the evidence; `None` if the request and its
    /// approvals have no token (clause EVD-5).
    pub fn issuer_keys(&self) -> Option<String> {
        (!self.keys.is_empty()).then(|| self.keys.to_json())
    }

    /// The name of the object that shows that the request's ticket was used; `None` if it has no
    /// ticket (clause APP-5).
    pub fn ticket(&self) -> Option<String> {
        ticket(self.request())
    }

    /// Verifies the records of the artifacts that another target saved (clause ART-8).
    #[must_use]
    pub fn with_saved(self, configuration: &Configuration, found: &Found) -> Self {
        let saved = saved::judge(&configuration.parameters, self.request(), found);
        Self { saved, ..self }
    }

    /// Assumes of each artifact that another target saved that this requester saved it just now,
    /// and that all went well. For trials, which read no evidence.
    #[must_use]
    pub fn assuming_saved(self, configuration: &Configuration) -> Self {
        let saved = saved::assumed(&configuration.parameters, self.request(), self.request.signers());
        Self { saved, ..self }
    }

    /// The question that the request asks of `configuration`.
    fn asking<'a>(&'a self, configuration: &'a Configuration) -> Asking<'a> {
        let (request, signers) = (self.request(), self.request.signers());
        Asking { configuration, request, signers, approvals: &self.approvals, saved: &self.saved }
    }
}

/// What is known of each artifact that another target saved, or why it does not count.
type SavedFacts = BTreeMap<ParameterName, Result<Saved, String>>;

/// A verified dry run with those of its approvals that could be verified. It is a type of its own,
/// so that nothing takes it for a request.
#[derive(Debug)]
pub struct Tried {
    /// The dry run.
    dry_run: Verified<DryRun, KnownSigner>,
    /// The verified approvals.
    approvals: Vec<Verified<Approval, KnownSigner>>,
    /// As [`Asked::saved`].
    saved: SavedFacts,
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

    /// The names of the signers, each with the claims of its token, for an approver to read.
    pub fn requesters(&self) -> Vec<String> {
        self.dry_run.signers().iter().map(described).collect()
    }

    /// Decides what would become of the request (clause DRY-2).
    ///
    /// # Errors
    ///
    /// If any check fails, as in [`authorise`].
    pub fn decide(&self, configuration: &Configuration, now: Timestamp) -> Result<Allowed, Denied> {
        let (request, signers) = (self.request(), self.dry_run.signers());
        let Self { approvals, saved, .. } = self;
        Asking { configuration, request, signers, approvals, saved }.decide(now, Stage::Launch)
    }

    /// As [`Asked::with_saved`].
    #[must_use]
    pub fn with_saved(self, configuration: &Configuration, found: &Found) -> Self {
        let saved = saved::judge(&configuration.parameters, self.request(), found);
        Self { saved, ..self }
    }

    /// What an approver is told about the artifacts that another target saved.
    pub fn saved(&self, configuration: &Configuration) -> Vec<TriedArtifact> {
        saved::told(&configuration.bucket, &configuration.parameters, self.request(), &self.saved)
    }
}

/// A signer's name with the claims of its token by which people know a job.
fn described(signer: &KnownSigner) -> String {
    let claim = |name: &str| {
        let found = signer.claims.iter().find(|(tag, _)| tag.split_once('/').is_some_and(|(_, rest)| rest == name))?;
        Some(format!("{} = {}", found.0, found.1))
    };
    let claims: Vec<String> = ["sub", "actor", "ref", "workflow_ref"].into_iter().filter_map(claim).collect();
    if claims.is_empty() { signer.name.clone() } else { short(&format!("{} ({})", signer.name, claims.join(", "))) }
}

/// Verifies a dry run against the signers of a target (clause DRY-1).
///
/// # Errors
///
/// If the dry run cannot be verified.
pub fn verify_dry_run(bundle: &Bundle, configuration: &Configuration, keys: &IssuerKeys) -> Result<Tried, VerifyError> {
    let dry_run = configuration.roots.verify(&bundle.request, keys)?;
    Ok(Tried { dry_run, approvals: verify_approvals(bundle, configuration, keys), saved: SavedFacts::new() })
}

/// The keys of issuers that are needed to verify a bundle.
pub fn key_names(bundle: &Bundle, configuration: &Configuration) -> BTreeSet<KeyName> {
    let envelopes = bundle.approvals.iter().chain([&bundle.request]);
    envelopes.flat_map(|envelope| configuration.roots.key_names(envelope)).collect()
}

/// Verifies a bundle against the signers of a target (clauses LAU-3, RUN-4). Tokens are judged by
/// `keys`.
///
/// # Errors
///
/// If the request cannot be verified. An approval that cannot be verified is not an error.
pub fn verify(bundle: &Bundle, configuration: &Configuration, keys: &IssuerKeys) -> Result<Asked, VerifyError> {
    let request = configuration.roots.verify(&bundle.request, keys)?;
    let approvals = verify_approvals(bundle, configuration, keys);
    // Only the keys of the tokens that remain: a stranger could add others (clause EVD-5).
    let names = key_names(&Bundle::canonical(&request, &approvals), configuration);
    Ok(Asked { request, approvals, keys: keys.only(&names), saved: SavedFacts::new() })
}

/// Why a bundle could not be verified, for a log: the error, and what is wrong with its tokens. The
/// requester is told neither (clause ENV-8).
pub fn explain(error: &VerifyError, bundle: &Bundle, configuration: &Configuration, keys: &IssuerKeys) -> String {
    let why = configuration.roots.why_not(&bundle.request, keys);
    why.into_iter().fold(error.to_string(), |text, why| format!("{text}; {why}"))
}

fn ticket(request: &Request) -> Option<String> {
    request.ticket.as_ref().map(|ticket| Evidence::ticket(&request.target, ticket))
}

fn verify_approvals(
    bundle: &Bundle,
    configuration: &Configuration,
    keys: &IssuerKeys,
) -> Vec<Verified<Approval, KnownSigner>> {
    bundle.approvals.iter().filter_map(|approval| configuration.roots.verify(approval, keys).ok()).collect()
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

static NOTHING_SAVED: BTreeMap<ParameterName, Saved> = BTreeMap::new();

/// A verified question: may this be deployed?
struct Asking<'a> {
    configuration: &'a Configuration,
    request: &'a Request,
    signers: &'a [KnownSigner],
    approvals: &'a [Verified<Approval, KnownSigner>],
    saved: &'a SavedFacts,
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
        let saved = self.saved()?;
        let commands = commands(configuration, &request.parameters)?;
        let times = match stage {
            Stage::Launch => vec![now, request.issued_at],
            Stage::Run => vec![request.issued_at],
        };
        let mut refused = None;
        for signer in self.signers {
            if let Err(denied) = self.check_token(signer, now, stage) {
                refused.get_or_insert(denied);
                continue;
            }
            // The accounts of a signer are its own. A signer that may not use the queue cannot lend
            // its permission to one that may.
            if let Err(error) = request.check_queues(&signer.ci_accounts, &configuration.fixed_queues) {
                refused.get_or_insert(Denied::from(error));
                continue;
            }
            let (approvers, others) = self.approvers(signer, &saved)?;
            match self.ask(signer, persons(&approvers), &times, &saved)? {
                Some(policies) => return Ok(Allowed { policies, signer: signer.clone(), approvers, commands }),
                // A signer who only lacks approvals says more than one who may never deploy.
                None if refused.as_ref().is_some_and(|denied: &Denied| denied.approvals_missing > 0) => {}
                None => {
                    let asks = |more: u32| self.ask(signer, persons(&approvers).saturating_add(more), &times, &saved);
                    refused = Some(self.not_permitted(signer, persons(&approvers), &others, asks));
                }
            }
        }
        Err(refused.unwrap_or_else(|| denied(Reason::Policy, "no signer of this request may deploy to this target")))
    }

    /// The artifacts that another target saved. Each of them has to count.
    fn saved(&self) -> Result<BTreeMap<ParameterName, Saved>, Denied> {
        let parameters = self.configuration.parameters.iter();
        let by_others = parameters.filter(|(_, rule)| matches!(rule, ParameterRule::SavedBy { .. }));
        let one = |name: &ParameterName| match self.saved.get(name) {
            Some(Ok(saved)) => Ok((name.clone(), saved.clone())),
            Some(Err(problem)) => Err(denied(Reason::Artifact, format!("the artifact `{name}`: {problem}"))),
            None => Err(denied(Reason::Artifact, format!("the artifact `{name}`: nobody has looked for its record"))),
        };
        by_others.map(|(name, _)| one(name)).collect()
    }

    /// Checks the times of a signer's token, if it signed with one.
    fn check_token(&self, signer: &KnownSigner, now: Timestamp, stage: Stage) -> Result<(), Denied> {
        let Some(TokenFacts { times, .. }) = &signer.token else { return Ok(()) };
        times.check_request(self.request, now, stage).map_err(|error| {
            let reason = match error {
                TokenTimeError::NotYetValid { .. } => Reason::NotYetValid,
                TokenTimeError::Outside { .. } | TokenTimeError::Expired { .. } => Reason::Expired,
            };
            denied(reason, format!("{}: {error}", signer.name))
        })
    }

    /// Asks the policies about one signer, as of each of these times. Returns the policies that
    /// permit it as of the last one.
    fn ask(
        &self,
        signer: &KnownSigner,
        approvals: u32,
        times: &[Timestamp],
        saved: &BTreeMap<ParameterName, Saved>,
    ) -> Result<Option<Vec<String>>, Denied> {
        let mut permitted = None;
        for at in times {
            let question = Question { saved, ..self.question(signer, Action::Deploy, *at, approvals) };
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
        let persons = &self.configuration.persons;
        let requester_known = self.signers.iter().all(|signer| !persons.behind(signer).is_empty());
        Question { signer, action, target, parameters, at, approvals, requester_known, saved: &NOTHING_SAVED }
    }

    /// The denial when no policy permits. It distinguishes a policy that refuses from one that only
    /// needs more approvals.
    fn not_permitted(
        &self,
        signer: &KnownSigner,
        approvals: u32,
        others: &[String],
        ask: impl Fn(u32) -> Result<Option<Vec<String>>, Denied>,
    ) -> Denied {
        let permits = |more: &u32| matches!(ask(*more), Ok(Some(_)));
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
    fn approvers(
        &self,
        requester: &KnownSigner,
        saved: &BTreeMap<ParameterName, Saved>,
    ) -> Result<(Vec<KnownSigner>, Vec<String>), Denied> {
        let mut approvers: BTreeMap<&str, &KnownSigner> = BTreeMap::new();
        let mut others = Vec::new();
        for approval in self.approvals {
            for signer in approval.signers() {
                match self.why_not(approval, signer, requester, saved)? {
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
        by: &Verified<Approval, KnownSigner>,
        signer: &KnownSigner,
        requester: &KnownSigner,
        saved: &BTreeMap<ParameterName, Saved>,
    ) -> Result<Option<String>, Denied> {
        let (approval, persons) = (by.statement(), &self.configuration.persons);
        if signer.kind.person().is_none() {
            return Ok(Some(format!("its kind is `{}`, and only persons approve", signer.kind.name())));
        }
        // A token may fit several entries. If they are several persons, it says too little.
        let mut behind = persons.behind(signer);
        behind.extend(signer.token.iter().flat_map(|token| token.persons.iter().map(String::as_str)));
        if behind.len() > 1 {
            let names: Vec<&str> = behind.into_iter().collect();
            return Ok(Some(format!("it is by more than one person: {}", names.join(", "))));
        }
        if self.signers.iter().any(|signer| !persons.behind(signer).is_disjoint(&behind)) {
            return Ok(Some("this person asked for the deployment".to_owned()));
        }
        if signer.token.as_ref().is_some_and(|token| !token.times.count_at(approval.issued_at)) {
            return Ok(Some("its token was not valid when it was given".to_owned()));
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
        let question = Question { saved, ..question };
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
pub fn may_cancel(
    configuration: &Configuration,
    asked: &Asked,
    envelope: &Envelope,
    keys: &IssuerKeys,
    now: Timestamp,
) -> bool {
    if let Some(control) = by_session(asked, envelope) {
        return is_ours(asked, &control, now);
    }
    let Ok(control): Result<Verified<Control, _>, _> = configuration.roots.verify(envelope, keys) else {
        return false;
    };
    let asking = asked.asking(configuration);
    // An artifact that does not count any more must not keep anybody from stopping.
    let saved = asking.saved().unwrap_or_default();
    let approvals = |requester| asking.approvers(requester, &saved).map_or(0, |(approvers, _)| persons(&approvers));
    let approvals = asking.signers.iter().map(approvals).max().unwrap_or_default();
    is_ours(asked, control.statement(), now)
        && control.signers().iter().any(|signer| {
            let at = control.statement().issued_at;
            if signer.token.as_ref().is_some_and(|token| !token.times.count_at(at)) {
                return false;
            }
            let question = asking.question(signer, Action::Cancel, at, approvals);
            matches!(configuration.policies.ask(&question), Ok(Some(_)))
        })
}

/// The control statement, if the session key of the request has signed it. No key of an issuer is
/// needed to tell.
pub fn by_session(asked: &Asked, envelope: &Envelope) -> Option<Control> {
    let session = SingleKey::new(&asked.request().session_key).ok()?;
    session.verify::<Control>(envelope).ok().map(|control| control.statement().clone())
}

fn is_ours(asked: &Asked, control: &Control, now: Timestamp) -> bool {
    control.is_for(&asked.request().deployment_id, asked.request.digest(), now)
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
