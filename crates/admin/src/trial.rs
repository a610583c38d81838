//! `target test`: shows whether a request would be allowed. It runs [`relay_policy::verify`] and
//! [`relay_policy::authorise`] on the request, as a deployment does.
//!
//! A signed bundle is verified with the real keys. An unsigned request is signed with a stand-in
//! key: within this process, a stand-in replaces each signer's verifying key. Policies still see
//! the real public key and key id.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use relay_aws::clock::now;
use relay_console::Failure;
use relay_policy::{Allowed, Asked, Configuration, Denied, Step, authorise, verify};
use relay_protocol::keys::{IssuerKeys, PrivateKey, Proof, TrustRoots, TrustedSigner, VerifyingKey};
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::{Origin, Stage};
use relay_protocol::{
    Approval, Bundle, DeploymentId, Digest, Envelope, Message, QueueUrl, Reason, Request, Statement as _, Ticket,
    limits,
};

use crate::claims::Claims;
use crate::cli::Test;
use crate::target::{load, unreadable};

/// Evaluates the request and prints the decision.
pub(crate) fn test(arguments: &Test, out: &mut impl Write) -> Result<u8, Failure> {
    let (_, mut configuration) = load(&arguments.file)?;
    let decision = match asked(arguments, &mut configuration)? {
        Ok(asked) => {
            let at = arguments.at.unwrap_or(asked.request().issued_at);
            for (target, _) in relay_policy::saved_artifacts(&configuration.parameters, asked.request()) {
                writeln!(out, "assumed: this requester has just saved the artifact of {target}, with exit code 0")?;
            }
            let asked = asked.assuming_saved(&configuration);
            authorise(&configuration, &asked, at, Stage::Launch)
        }
        Err(denied) => Err(denied),
    };
    match decision {
        Ok(allowed) => {
            say_allowed(&configuration, &allowed, out)?;
            Ok(0)
        }
        Err(denied) => {
            writeln!(out, "denied: {}: {}\nhint: {}", denied.reason, denied.message, denied.reason.hint())?;
            Ok(ExitCode::No.code())
        }
    }
}

fn say_allowed(configuration: &Configuration, allowed: &Allowed, out: &mut impl Write) -> Result<(), Failure> {
    let persons: BTreeSet<&str> = allowed.approvers.iter().filter_map(|approver| approver.kind.person()).collect();
    let approvals = match persons.len() {
        1 => "1 approval".to_owned(),
        n => format!("{n} approvals"),
    };
    writeln!(out, "allowed by {} (signer {}, {approvals})", allowed.policies.join(", "), allowed.signer.name)?;
    let mut say = |kind: &str, steps: &[Step], commands: &[Vec<String>]| {
        steps.iter().zip(commands).try_for_each(|(step, command)| {
            // JSON shows where one argument ends and the next begins.
            writeln!(out, "{kind} {}: {}", step.name, serde_json::json!(command))
        })
    };
    say("step", &configuration.steps, &allowed.commands.0)?;
    say("rollback", &configuration.rollback, &allowed.commands.1)?;
    Ok(())
}

/// Returns the verified request, or `Ok(Err(…))` if it cannot be verified with this target's
/// signers.
fn asked(arguments: &Test, configuration: &mut Configuration) -> Result<Result<Asked, Denied>, Failure> {
    let bytes = match &arguments.request {
        Some(file) => Some(std::fs::read(file).map_err(|error| unreadable(file, &error))?),
        None => None,
    };
    if let Some(Ok(Message::Request(bundle))) = bytes.as_deref().map(Message::parse) {
        let more = arguments.approvals > 0 || !arguments.approved_by.is_empty();
        if arguments.signer.is_some() || arguments.claims.is_some() || more {
            return Err(Failure::usage(
                "the request is signed: leave out --signer, --claims, --approvals and --approved-by",
            ));
        }
        let by_tokens = !relay_policy::key_names(&bundle, configuration).is_empty();
        if by_tokens {
            let problem = "the request is signed by a token, and its issuer's keys are not here";
            return Err(Failure::usage(problem).hint("pass the token's claims with --claims FILE, and the parameters"));
        }
        let unverified = |error: relay_protocol::VerifyError| Denied::new(Reason::Unverified, error);
        return Ok(verify(&bundle, configuration, &IssuerKeys::default()).map_err(unverified));
    }
    let claims = arguments.claims.as_deref().map(Claims::read).transpose()?;
    let signer = match (&claims, &arguments.signer) {
        (Some(claims), _) => match claims.signers(&configuration.roots) {
            // Every one that fits is tried; the first one's account and queues are used.
            Ok(fitting) => fitting.first().copied().unwrap_or_default(),
            Err(why) => return Ok(Err(Denied::new(Reason::Unverified, why))),
        },
        (None, Some(name)) => find(&configuration.roots, name)?,
        (None, None) => {
            let problem =
                "the request is not signed: name the requester with --signer, or a job's claims with --claims";
            return Err(Failure::usage(problem));
        }
    };
    if claims.is_none() && configuration.roots.signers().get(signer).is_some_and(is_by_token) {
        return Err(Failure::usage("this signer has no key: pass the claims of a job's token with --claims FILE"));
    }
    let request = match bytes {
        Some(bytes) => Request::parse(&bytes)
            .map_err(|error| Failure::usage(format!("--request is neither a request nor a signed bundle: {error}")))?,
        None => request(arguments, configuration, signer)?,
    };
    let approvers = approvers(arguments, &configuration.roots, signer)?;
    let keys = stand_in(configuration, claims.as_ref(), &approvers)?;
    let by = approvers.into_iter().filter_map(|at| keys.get(at));
    let approvals = by.map(|key| approve(&request, configuration.digest, key)).collect::<Result<_, _>>()?;
    let unsigned = Envelope::new(Request::TYPE, request.to_payload());
    let (request, issuer_keys) = match &claims {
        Some(claims) => (claims.sign(unsigned, request.issued_at), claims.keys(request.issued_at)),
        None => {
            let key = keys.get(signer).ok_or_else(|| Failure::usage("no such signer"))?;
            (key.sign_envelope(unsigned), IssuerKeys::default())
        }
    };
    Ok(verify(&Bundle { request, approvals }, configuration, &issuer_keys)
        .map_err(|error| Denied::new(Reason::Unverified, error)))
}

fn is_by_token(signer: &TrustedSigner) -> bool {
    matches!(signer.proof, Proof::Token(_))
}

/// Returns the index of the signer with this name, public key or key id.
fn find(roots: &TrustRoots, wanted: &str) -> Result<usize, Failure> {
    let is = |signer: &TrustedSigner| {
        signer.name == wanted
            || matches!(&signer.proof, Proof::Key { public, .. } if public.to_string() == wanted || public.key_id() == wanted)
    };
    let mut found = roots.signers().iter().enumerate().filter(|(_, signer)| is(signer)).map(|(at, _)| at);
    match (found.next(), found.next()) {
        (Some(at), None) => Ok(at),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("several signers are named {wanted}: pass the public key or key id instead")))
        }
        (None, _) => {
            let known: Vec<&str> = roots.signers().iter().map(|signer| signer.name.as_str()).collect();
            Err(Failure::usage(format!("no signer is named {wanted}; this target has: {}", known.join(", "))))
        }
    }
}

/// Returns the indices of those who approve: the named signers, then as many further persons as
/// `--approvals` says, without the requester.
fn approvers(arguments: &Test, roots: &TrustRoots, requester: usize) -> Result<Vec<usize>, Failure> {
    let mut all = arguments.approved_by.iter().map(|name| find(roots, name)).collect::<Result<Vec<_>, _>>()?;
    let person = |at: usize| roots.signers().get(at).and_then(|signer| signer.kind.person());
    let mut taken: BTreeSet<&str> = all.iter().chain([&requester]).filter_map(|at| person(*at)).collect();
    for more in 0..arguments.approvals {
        let free = |at: &usize| person(*at).is_some_and(|person| !taken.contains(person));
        let Some(at) = (0..roots.signers().len()).find(free) else {
            return Err(Failure::usage(format!(
                "--approvals {}: beside the requester, only {more} persons of this target are not named yet; a signer is a person with `kind = \"person\"`",
                arguments.approvals
            )));
        };
        taken.extend(person(at));
        all.push(at);
    }
    Ok(all)
}

/// Gives each signer a stand-in key, and the issuer of `claims` too. Returns the private keys in
/// the order of the signers. Those who approve have one even if they would sign with a token.
fn stand_in(
    configuration: &mut Configuration,
    claims: Option<&Claims>,
    approvers: &[usize],
) -> Result<Vec<PrivateKey>, Failure> {
    let odd = |error: relay_protocol::keys::VerifyingKeyError| Failure::usage(error.to_string());
    let mut signers = configuration.roots.signers().to_vec();
    let mut keys = Vec::new();
    for (at, signer) in signers.iter_mut().enumerate() {
        let key = key(at);
        match &mut signer.proof {
            Proof::Key { verifying, .. } => *verifying = VerifyingKey::from_spki(key.public()).map_err(odd)?,
            proof if approvers.contains(&at) => *proof = TrustedSigner::by_key(key.public().clone()).map_err(odd)?,
            Proof::Token(_) => {}
        }
        keys.push(key);
    }
    if let Some(claims) = claims {
        claims.stand_in(&mut signers);
    }
    configuration.roots = TrustRoots::new(signers);
    Ok(keys)
}

/// Returns a key that anyone can derive, and that nothing outside this process trusts.
fn key(n: usize) -> PrivateKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
    PrivateKey::from_seed(seed)
}

fn approve(request: &Request, configuration: Digest, key: &PrivateKey) -> Result<Envelope, Failure> {
    let no_ticket = || Failure::usage("--request has no `ticket`, so no approval can count");
    let subject = request.subject(configuration).ok_or_else(no_ticket)?;
    let (issued_at, expires_at) = (request.issued_at, request.issued_at.plus(limits::APPROVAL_LIFETIME_MAX));
    let approval = Approval { subject, issued_at, expires_at };
    Ok(key.sign_envelope(Envelope::new(Approval::TYPE, approval.to_payload())))
}

/// Builds the request that `relay deploy` would send from the signer's first CI account.
fn request(arguments: &Test, configuration: &Configuration, signer: usize) -> Result<Request, Failure> {
    let mut parameters = BTreeMap::new();
    for (name, value) in &arguments.parameters {
        if parameters.insert(name.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!("--param {name} is given twice")));
        }
    }
    let issued_at = arguments.at.unwrap_or_else(now);
    let millis = u64::try_from(issued_at.unix()).unwrap_or_default().saturating_mul(1_000);
    let deployment_id = DeploymentId::new(millis, [0; 10]);
    let region = configuration.topic.region();
    let accounts = configuration.roots.signers().get(signer).map(|signer| signer.ci_accounts.as_slice());
    // As in a deployment, a signer without a CI account is denied, unless the target has fixed
    // queues; then the request uses the first of them.
    let account = accounts.and_then(|accounts| accounts.first()).cloned();
    let queue = |name: String| match (&account, configuration.fixed_queues.as_slice()) {
        (None, [fixed, ..]) => Ok(fixed.clone()),
        _ => {
            let account = account.clone().unwrap_or_else(|| configuration.topic.account().clone());
            QueueUrl::of(region, &account, &name).map_err(|error| Failure::usage(error.to_string()))
        }
    };
    Ok(Request {
        audience: configuration.topic.clone(),
        target: configuration.target.clone(),
        parameters,
        reply_queue: queue(deployment_id.reply_queue_name())?,
        control_queue: Some(queue(deployment_id.control_queue_name())?),
        deployment_id,
        session_key: key(usize::MAX).public().clone(),
        ticket: Some(Ticket::new([0; 16])),
        issued_at,
        expires_at: issued_at.plus(limits::REQUEST_LIFETIME_MAX),
        origin: Origin::default(),
        traceparent: None,
    })
}
