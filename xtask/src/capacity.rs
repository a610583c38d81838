//! `capacity`: a model on paper of what a task's start takes and what a deployment costs, on
//! Fargate and on hosts that wait (infra/managed-instances.yaml), by deployments an hour. Nothing
//! of it was measured. docs/operations.md has the table that it prints.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::Outcome;

/// Seconds from RunTask to the first command on Fargate, with an image of 413 MB.
/// <https://elasticscale.com/blog/reduce-aws-fargate-pull-times-with-soci>
const FARGATE_START: f64 = 57.0;
/// US dollars an hour for 1 vCPU and 2 GB on Fargate, Linux x86, us-east-1.
/// <https://aws.amazon.com/fargate/pricing/>
const FARGATE_HOUR: f64 = 0.04048 + 2.0 * 0.004_445;
/// Seconds of a start on a host that is there and has the image. Assumed: AWS publishes no figure.
const WARM_START: f64 = 5.0;
/// Seconds of a start that waits for a new host. Assumed: AWS publishes no figure.
const COLD_START: f64 = 90.0;
/// US dollars an hour for an m6a.large (2 vCPU, 8 GiB) in us-east-1, with an eighth more as the fee
/// of ECS. The fee is recalled, not verified. <https://aws.amazon.com/ecs/pricing/>
const HOST_HOUR: f64 = 0.0864 * 1.125;
/// Hours for which an idle host is kept: the template's default, and ECS's maximum.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_InfrastructureOptimization.html>
const IDLE: f64 = 1.0;
/// Hours that a plan takes on its host.
const PLAN: f64 = 2.0 / 60.0;

/// Deployments an hour.
const RATES: [f64; 5] = [0.1, 0.5, 1.0, 4.0, 20.0];

/// Prints the table.
pub(crate) fn run() -> Outcome {
    Ok(io::stdout().write_all(table().as_bytes())?)
}

/// A start finds a host if another deployment ended within the idle time before it. Deployments
/// come at random (Poisson), one at a time.
fn warm(rate: f64) -> f64 {
    1.0 - (-rate * IDLE).exp()
}

fn table() -> String {
    let mut out = String::from(
        "| deployments an hour | Fargate: start, cost | waiting host: starts that find one, mean start, cost |\n|---|---|---|\n",
    );
    for rate in RATES {
        let fargate = (PLAN + FARGATE_START / 3_600.0) * FARGATE_HOUR;
        let warm = warm(rate);
        // The host is paid while it runs or waits: for the mean gap between deployments, cut off at
        // the idle time, and for the plan.
        let host = (PLAN + warm / rate) * HOST_HOUR;
        let start = warm * WARM_START + (1.0 - warm) * COLD_START;
        let _ = writeln!(
            out,
            "| {rate} | {FARGATE_START:.0} s, {fargate:.4} | {:.0} %, {start:.0} s, {host:.4} |",
            warm * 100.0
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_table_of_the_model() {
        let document = include_str!("../../docs/operations.md");
        assert!(document.contains(&table()), "docs/operations.md needs this table:\n{}", table());
    }

    #[test]
    fn more_deployments_find_a_host_more_often() {
        assert!(warm(0.1) < warm(1.0) && warm(20.0) > 0.99);
    }
}
