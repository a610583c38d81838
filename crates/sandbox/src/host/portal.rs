//! The portal of IAM Identity Center: `GetRoleCredentials`, with which the SDK turns a person's
//! sign-in into a role's credentials. The role is the built-in one of the account that is asked
//! for.

use hyper::http::request::Parts;
use serde_json::json;

use crate::wire::answer::{Reply, plain_json};
use crate::wire::times::now_ms;

/// The path of the operation.
pub(super) const PATH: &str = "/federation/credentials";

/// The access token of the one person who has signed in.
const SIGNED_IN: &str = "sandbox-sso-token";

/// How long the credentials live, in milliseconds.
const LIFE: u64 = 3_600_000;

/// Answers one request.
pub(super) fn respond(parts: &Parts) -> Reply {
    if parts.headers.get("x-amz-sso_bearer_token").is_none_or(|token| token != SIGNED_IN) {
        return plain_json(
            401,
            &json!({"__type": "UnauthorizedException", "message": "Session token not found or invalid"}),
        );
    }
    let query = parts.uri.query().unwrap_or_default();
    let account = query.split('&').find_map(|pair| pair.strip_prefix("account_id=")).unwrap_or_default();
    plain_json(
        200,
        &json!({"roleCredentials": {
            "accessKeyId": account, "secretAccessKey": "sandbox", "sessionToken": "sandbox",
            "expiration": now_ms() + LIFE,
        }}),
    )
}
