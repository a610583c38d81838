//! The issuers' HTTP side: GitHub's token endpoint, and the discovery documents and keys of both
//! issuers. The function `jwks` is run once before the first token is needed.
//!
//! On GitHub, the job's bearer token decides what its identity tokens claim. So does the
//! sandbox's: `sandbox` stands for a push to the main branch; `sandbox.` and a JSON object in
//! base64url changes claims, and leaves out those that are `null`.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use hyper::Method;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::functions;
use super::shared::Host;
use crate::services::{Now, lock};
use crate::wire::answer::{Reply, plain_json};

/// The bearer token of a job on GitHub.
pub(super) const BEARER: &str = "sandbox";

/// The life of GitHub's tokens, in seconds.
const LIFE: u64 = 300;

/// Answers a path below `/issuers/`.
pub(super) async fn respond(host: &Arc<Host>, parts: &Parts, path: &str) -> Reply {
    match (&parts.method, path) {
        (&Method::GET, "github/token") => match token(host, parts).await {
            Ok(token) => plain_json(200, &json!({ "value": token })),
            Err((status, problem)) => plain_json(status, &json!({ "message": problem })),
        },
        (&Method::GET, "github/.well-known/openid-configuration") => {
            plain_json(200, &lock(&host.services.github).discovery())
        }
        (&Method::GET, "github/.well-known/jwks") => plain_json(200, &lock(&host.services.github).jwks()),
        (&Method::GET, "sts/.well-known/openid-configuration") => {
            plain_json(200, &lock(&host.services.sts).issuer.discovery())
        }
        (&Method::GET, "sts/.well-known/jwks") => plain_json(200, &lock(&host.services.sts).issuer.jwks()),
        _ => plain_json(404, &json!({"message": "no such path"})),
    }
}

/// A token for the job whose bearer token the caller shows.
async fn token(host: &Arc<Host>, parts: &Parts) -> Result<String, (u16, String)> {
    let forbidden = || (403, "the bearer token is not a job's".to_owned());
    let bearer = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("bearer ")).ok_or_else(forbidden)?;
    let mut claims = github_claims();
    if bearer != BEARER {
        let changes = bearer.strip_prefix(BEARER).and_then(|rest| rest.strip_prefix('.')).ok_or_else(forbidden)?;
        let changes = BASE64URL_NOPAD.decode(changes.as_bytes()).map_err(|_| forbidden())?;
        let changes: Map<String, Value> = serde_json::from_slice(&changes).map_err(|_| forbidden())?;
        claims.extend(changes);
    }
    let query = parts.uri.query().unwrap_or_default();
    let audience = query.split('&').find_map(|pair| pair.strip_prefix("audience="));
    let audience = audience.ok_or((400, "no audience".to_owned()))?;
    let audience = percent_decode_str(audience).decode_utf8_lossy().into_owned();
    ensure_keys(host).await;
    let issuer = lock(&host.services.github);
    issuer.token(Now::read(), &audience, LIFE, Value::Object(claims)).map_err(|problem| (500, problem))
}

/// The bearer token of a job whose tokens differ in these claims.
pub(super) fn bearer(changes: &Map<String, Value>) -> String {
    format!("{BEARER}.{}", BASE64URL_NOPAD.encode(Value::Object(changes.clone()).to_string().as_bytes()))
}

/// What a push to the main branch claims (GitHub's reference of OpenID Connect).
fn github_claims() -> Map<String, Value> {
    let repository = "octo-org/payments";
    let workflow = format!("{repository}/.github/workflows/deploy.yml@refs/heads/main");
    let claims = json!({
        "sub": format!("repo:{repository}:environment:production"), "environment": "production",
        "repository": repository, "repository_id": "74", "repository_owner": "octo-org", "repository_owner_id": "65",
        "repository_visibility": "private", "actor": "octocat", "actor_id": "12", "event_name": "push",
        "ref": "refs/heads/main", "ref_type": "branch", "sha": "0123456789abcdef0123456789abcdef01234567",
        "workflow": "deploy", "workflow_ref": workflow, "job_workflow_ref": workflow, "run_id": "19",
        "run_number": "10", "run_attempt": "1", "runner_environment": "github-hosted",
    });
    claims.as_object().cloned().unwrap_or_default()
}

/// Makes sure that the function `jwks` has run, as its schedule sees to on AWS.
pub(super) async fn ensure_keys(host: &Arc<Host>) {
    host.keys_fetched.get_or_init(|| fetch_keys(host)).await;
}

/// Runs the function `jwks` once.
pub(super) async fn fetch_keys(host: &Arc<Host>) {
    let issuers = [lock(&host.services.github).url.clone(), lock(&host.services.sts).issuer.url.clone()].join(",");
    let environment = vec![("RELAY_BUCKET", host.bucket()), ("RELAY_ISSUERS", issuers)];
    // Its log has what went wrong, and so has the sandbox's.
    let _ = functions::run(host, "jwks", environment).await;
}
