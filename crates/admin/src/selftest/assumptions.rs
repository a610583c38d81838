//! Every assumption that relay makes about AWS: what it is, where AWS says so, what depends on it,
//! and the check that tries it out. docs/aws-assumptions.md is made from this table.

use std::fmt::Write as _;

use super::trial::{Outcome, Trial};
use super::{deployments, queues, roles, storage, tasks};

/// One assumption.
pub(crate) struct Assumption {
    /// The name in reports and lists.
    pub(crate) name: &'static str,
    pub(crate) assumes: &'static str,
    /// What of relay breaks if it does not hold.
    pub(crate) depends: &'static str,
    /// The address of AWS's page.
    pub(crate) source: &'static str,
    pub(crate) check: fn(&mut Trial<'_>) -> Outcome,
}

/// What can be tried in an account without relay.
pub(crate) const BARE: &[Assumption] = &[
    Assumption {
        name: "clock",
        assumes: "AWS's clock and this machine's are at most 60 seconds apart.",
        depends: "the times of requests: a clock that is off makes every request early or expired",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html",
        check: queues::clock_agrees,
    },
    Assumption {
        name: "s3-create-once",
        assumes: "PutObject with If-None-Match: * fails with 412 if the object exists.",
        depends: "the claim: a request runs at most once",
        source: "https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html",
        check: storage::creates_once,
    },
    Assumption {
        name: "s3-one-creator",
        assumes: "Of several PutObject with If-None-Match: * at the same time, one succeeds.",
        depends: "the claim: a request runs at most once",
        source: "https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html",
        check: storage::one_creator_wins,
    },
    Assumption {
        name: "s3-replace-what-was-read",
        assumes: "PutObject with If-Match fails with 412 if the object has another ETag.",
        depends: "the target's lock: two deployments do not run side by side",
        source: "https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html",
        check: storage::replaces_what_was_read,
    },
    Assumption {
        name: "s3-read-after-write",
        assumes: "An object is listed and read as soon as PutObject has answered.",
        depends: "claim, lock and ledger",
        source: "https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel",
        check: storage::reads_what_was_written,
    },
    Assumption {
        name: "s3-policy-demands-condition",
        assumes: "A bucket policy can deny PutObject without If-None-Match (s3:if-none-match).",
        depends: "evidence that nobody overwrites",
        source: "https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html",
        check: storage::policy_demands_a_condition,
    },
    Assumption {
        name: "sqs-largest-message",
        assumes: "SQS accepts a body of 1,048,576 bytes and none that is larger.",
        depends: "frames: their limit is a quarter of it",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html",
        check: queues::takes_the_largest_message,
    },
    Assumption {
        name: "sqs-characters",
        assumes: "SQS delivers every character that it allows unchanged.",
        depends: "signatures over frames",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html",
        check: queues::keeps_every_character,
    },
    Assumption {
        name: "sqs-control-characters",
        assumes: "SQS refuses control characters other than tab, line feed and carriage return.",
        depends: "the encoding of frames: it escapes them",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html",
        check: queues::refuses_control_characters,
    },
    Assumption {
        name: "sqs-batch-in-parts",
        assumes: "SendMessageBatch can succeed for some entries and report the others.",
        depends: "the sender: it repeats the entries that failed",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html",
        check: queues::batch_fails_in_parts,
    },
    Assumption {
        name: "sqs-batch-limit",
        assumes: "The entries of a batch share one limit of 1,048,576 bytes.",
        depends: "the sender: it packs four full frames into a batch",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html",
        check: queues::batch_shares_one_limit,
    },
    Assumption {
        name: "sqs-new-queue",
        assumes: "A new queue accepts messages within a minute or so.",
        depends: "the start of a deployment: the reply queue is made for it",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html",
        check: queues::new_queue_is_soon_there,
    },
    Assumption {
        name: "sqs-deleted-name",
        assumes: "The name of a deleted queue cannot be used again for 60 seconds.",
        depends: "nothing: names are never used twice. It tells how soon a queue is gone",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html",
        check: queues::deleted_name_rests,
    },
    Assumption {
        name: "sqs-other-account",
        assumes: "Another account may send to a queue only if the queue's policy says so.",
        depends: "the reply queue: the target account alone may write to it",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-using-identity-based-policies.html",
        check: queues::other_account_needs_the_policy,
    },
    Assumption {
        name: "sns-limit",
        assumes: "A topic carries messages of 262,144 bytes and none that is larger.",
        depends: "requests: they have a quarter of that",
        source: "https://docs.aws.amazon.com/sns/latest/api/API_Publish.html",
        check: queues::topic_has_a_limit,
    },
    Assumption {
        name: "kms-public-key",
        assumes: "GetPublicKey answers with SubjectPublicKeyInfo in DER.",
        depends: "the pins in relay.toml, and key ids",
        source: "https://docs.aws.amazon.com/kms/latest/APIReference/API_GetPublicKey.html",
        check: roles::public_key_is_spki,
    },
    Assumption {
        name: "kms-signature",
        assumes: "Sign with ECDSA_SHA_256 answers with a signature in DER over the given digest.",
        depends: "every signature by launcher, runner and CI",
        source: "https://docs.aws.amazon.com/kms/latest/APIReference/API_Sign.html",
        check: roles::signature_is_der,
    },
    Assumption {
        name: "kms-alias",
        assumes: "Sign accepts an alias, and answers with the ARN of its key.",
        depends: "the target key: configurations name its alias",
        source: "https://docs.aws.amazon.com/kms/latest/developerguide/alias-using.html",
        check: roles::alias_names_a_key,
    },
    Assumption {
        name: "kms-disabled-key",
        assumes: "A disabled key signs nothing.",
        depends: "stopping a target or a CI in an emergency",
        source: "https://docs.aws.amazon.com/kms/latest/developerguide/enabling-keys.html",
        check: roles::disabled_key_signs_nothing,
    },
    Assumption {
        name: "iam-default",
        assumes: "A role without a policy may do nothing.",
        depends: "least privilege",
        source: "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html",
        check: roles::nothing_is_allowed_by_default,
    },
    Assumption {
        name: "iam-denial",
        assumes: "An explicit denial beats a permission.",
        depends: "boundaries, bucket policies, SCPs",
        source: "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html",
        check: roles::denial_beats_permission,
    },
    Assumption {
        name: "iam-principal",
        assumes: "aws:PrincipalArn of a session is the ARN of its role.",
        depends: "the policies of topic, queues, keys and buckets",
        source: "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html",
        check: roles::role_is_the_principal,
    },
    Assumption {
        name: "sts-source-identity",
        assumes: "A role without sts:SetSourceIdentity in its trust refuses a source identity.",
        depends: "the deploy role: its sessions name the deployment",
        source: "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_monitor.html",
        check: roles::source_identity_needs_trust,
    },
    Assumption {
        name: "sts-tags",
        assumes: "A role without sts:TagSession in its trust refuses session tags.",
        depends: "the deploy role: its sessions carry the target",
        source: "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html",
        check: roles::session_tags_need_trust,
    },
    Assumption {
        name: "sts-chain",
        assumes: "A session that was assumed with another session lasts an hour at most.",
        depends: "the tool's credentials: they are renewed",
        source: "https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html",
        check: roles::chained_session_lasts_an_hour,
    },
    Assumption {
        name: "sts-tokens",
        assumes: "GetWebIdentityToken issues a JWT with ES384, a key's name and an issuer.",
        depends: "signing with a token of AWS's own",
        source: "https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html",
        check: roles::account_issues_tokens,
    },
    Assumption {
        name: "sts-forged-token",
        assumes: "AssumeRoleWithWebIdentity refuses a token that the issuer did not sign.",
        depends: "CI's role with GitHub and GitLab",
        source: "https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html",
        check: roles::forged_token_is_refused,
    },
];

/// What can be tried once relay is installed.
pub(crate) const INSTALLED: &[Assumption] = &[
    Assumption {
        name: "ci-permissions",
        assumes: "CI's role may publish, and use queues named relay-*; it may not call ECS.",
        depends: "the bound on what a stolen CI session can do",
        source: "https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html",
        check: deployments::ci_cannot_run_tasks,
    },
    Assumption {
        name: "deployment-succeeds",
        assumes: "A request starts a task through SNS, Lambda and ECS, and its output comes back.",
        depends: "everything",
        source: "https://docs.aws.amazon.com/lambda/latest/dg/with-sns.html",
        check: deployments::succeeds,
    },
    Assumption {
        name: "deployment-fails",
        assumes: "The exit code of the tool arrives.",
        depends: "CI's verdict",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Container.html",
        check: deployments::fails,
    },
    Assumption {
        name: "deployment-cancelled",
        assumes: "A control message reaches the running task, and the tool is stopped.",
        depends: "aborting a job in CI",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html",
        check: deployments::is_cancelled,
    },
    Assumption {
        name: "deployment-times-out",
        assumes: "A tool that exceeds its time is stopped.",
        depends: "the timeout of a target",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html",
        check: deployments::times_out,
    },
    Assumption {
        name: "deployment-big-output",
        assumes: "32 MiB of output arrive complete and in order.",
        depends: "the streaming",
        source: "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html",
        check: deployments::big_output_arrives,
    },
    Assumption {
        name: "deployment-killed",
        assumes: "A task that ECS stops is noticed by the CLI.",
        depends: "never hanging",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html",
        check: deployments::killed_task_is_noticed,
    },
    Assumption {
        name: "ecs-client-token",
        assumes: "RunTask with the same clientToken returns the same task.",
        depends: "at most one task for a request",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html",
        check: tasks::token_starts_one_task,
    },
    Assumption {
        name: "ecs-client-token-conflict",
        assumes: "RunTask refuses a clientToken that was used with other parameters.",
        depends: "at most one task for a request",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html",
        check: tasks::token_belongs_to_its_request,
    },
    Assumption {
        name: "ecs-overrides-limit",
        assumes: "Overrides of RunTask may have up to 8,192 characters.",
        depends: "the launcher: the request itself lies in S3, and only its digest is passed",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html",
        check: tasks::overrides_have_a_limit,
    },
    Assumption {
        name: "ecs-exit-code",
        assumes: "A task that ends by itself has the stop code EssentialContainerExited.",
        depends: "the watchdog: it tells an end from a loss",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html",
        check: tasks::exit_code_is_told,
    },
    Assumption {
        name: "ecs-image-missing",
        assumes: "A task whose image cannot be pulled stops with TaskFailedToStart and CannotPull….",
        depends: "the message that names the image",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_cannot_pull_image.html",
        check: tasks::missing_image_is_told,
    },
    Assumption {
        name: "ecs-stop",
        assumes: "A task that a person stops has the stop code UserInitiated and that reason.",
        depends: "the message that names who stopped it",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html",
        check: tasks::stop_is_told,
    },
    Assumption {
        name: "ecs-image-digest",
        assumes: "DescribeTasks names the digest of each container's image.",
        depends: "the runner: it runs only in the images of the configuration",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Container.html",
        check: tasks::image_digest_is_told,
    },
    Assumption {
        name: "ecs-capacity",
        assumes: "RunTask refuses a capacity provider that the cluster does not have.",
        depends: "the promise that a target runs on no hosts but its own",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html",
        check: tasks::unknown_capacity_is_refused,
    },
    Assumption {
        name: "ecs-events",
        assumes: "EventBridge reports the states of a task, with growing versions.",
        depends: "the launcher: it learns at once that a task has died",
        source: "https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html",
        check: tasks::events_come_in_order,
    },
];

/// All assumptions, in the order of their checks.
pub(crate) fn all() -> impl Iterator<Item = &'static Assumption> {
    BARE.iter().chain(INSTALLED)
}

/// The document about them.
pub(crate) fn document() -> String {
    let mut out = String::from(
        "# What relay assumes about AWS\n\n\
         <!-- Made from the code: RELAY_BLESS=1 cargo test --workspace --test reference -->\n\n\
         `relay-admin selftest` tries each assumption in two accounts of your own, with the check of the\n\
         same name. Nobody has reported a run on AWS yet. CI runs the checks on an emulator, and a file\n\
         lists what that emulator does otherwise: tests/src/emulator/known-differences.txt.\n",
    );
    for one in all() {
        let Assumption { name, assumes, depends, source, .. } = one;
        let _ = write!(out, "\n## {name}\n\n{assumes}\n\nNeeded by {depends}.\nSource: <{source}>\n");
    }
    out
}
