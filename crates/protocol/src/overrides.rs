//! What a task is told when it starts: the one override of RunTask (clauses LAU-8, RUN-3). It names
//! the request; the request itself lies in the evidence bucket.

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::evidence::Evidence;
use crate::names::{DeploymentId, TargetName};
use crate::request::Request;
use crate::strict;

/// The name of the container in every target's task definition.
pub const CONTAINER: &str = "runner";

/// The name of the container that copies the runner beside the tool, where there is one.
pub const INSTALL_CONTAINER: &str = "install";

/// The environment variable in which the runner finds a [`RequestRef`].
pub const VARIABLE: &str = "RELAY_REQUEST";

/// The request that a task is to run: the value of [`VARIABLE`]. Nobody signs it. The runner reads
/// the request that it names, and verifies that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestRef {
    /// The target, which is part of the object's name.
    pub target: TargetName,
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The digest that the request must have.
    pub request_digest: Digest,
}

impl RequestRef {
    /// The reference to a request.
    pub fn of(request: &Request, request_digest: Digest) -> Self {
        let (target, deployment_id) = (request.target.clone(), request.deployment_id.clone());
        Self { target, deployment_id, request_digest }
    }

    /// Whether this refers to `request`, whose digest is `digest`.
    pub fn fits(&self, request: &Request, digest: Digest) -> bool {
        *self == Self::of(request, digest)
    }

    /// The names of the deployment's objects in the evidence.
    pub fn evidence(&self) -> Evidence {
        Evidence::of(&self.target, &self.deployment_id)
    }

    /// The text for the variable.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// Reads the variable's text.
    ///
    /// # Errors
    ///
    /// If the text is not JSON of this form.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        strict::from_str(text)
    }
}
