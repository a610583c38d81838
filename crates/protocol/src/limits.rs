//! Every limit of the protocol, each with its unit and its reason. Nothing else in the workspace invents one.

/// Characters that all RunTask overrides together may have, serialised, escapes included (ECS `TaskOverride`). Clause LIM-1.
pub const OVERRIDES_MAX: usize = 8_192;

/// Bytes of an SNS body that is parsed at all. Twice [`OVERRIDES_MAX`]: whatever is larger could not be launched, and a parser
/// should not be fed what cannot be used. Clause LIM-2.
pub const BUNDLE_MAX: usize = 16_384;

/// Bytes of one decoded payload (request, approval, control, vouch). Clause LIM-3.
pub const PAYLOAD_MAX: usize = 8_192;

/// Signatures on one envelope. A request has one, rarely two; eight leaves room and bounds the work of a stranger. Clause LIM-4.
pub const SIGNATURES_MAX: usize = 8;

/// Characters of one `sig` (a compact JWS is the longest). Clause LIM-4.
pub const SIGNATURE_MAX: usize = 4_096;

/// Approvals beside a request. Clause LIM-5.
pub const APPROVALS_MAX: usize = 8;

/// Parameters of one request. Clause LIM-6.
pub const PARAMETERS_MAX: usize = 64;

/// Bytes of one parameter's value. The override limit is the true bound. Clause LIM-6.
pub const PARAMETER_VALUE_MAX: usize = 6_144;

/// Bytes of one informational text (`origin`, messages of the launcher). Clause LIM-7.
pub const TEXT_MAX: usize = 512;

/// Seconds from `issued_at` to `expires_at` of a request at most. Clause REQ-9.
pub const REQUEST_LIFETIME_MAX: i64 = 15 * 60;

/// Seconds by which two clocks may differ. Clause REQ-10.
pub const CLOCK_SKEW: i64 = 60;

/// Seconds after `expires_at` in which a runner that the launcher started still begins: a slow image pull is no replay. Clause RUN-5.
pub const START_DELAY_MAX: i64 = 10 * 60;

/// Seconds that an approval lives at most. Clause APP-3.
pub const APPROVAL_LIFETIME_MAX: i64 = 24 * 60 * 60;

/// Seconds for which a control statement is accepted after it was issued: as long as a request lives. Clause CTL-4.
pub const CONTROL_LIFETIME: i64 = 15 * 60;

/// Bytes of one frame on the wire: body and attributes. SQS takes 1 MiB, four such frames fill a batch. Clause FRM-2.
pub const FRAME_MAX: usize = 262_144;

/// Bytes of a frame's attributes that are kept free beside its body (`from`, `sig`, `vouch`). Clause FRM-2.
pub const FRAME_ATTRIBUTES_MAX: usize = 8_192;

/// Bytes of output in one frame, decoded. Bounds what a compressed frame may unfold to. Clause FRM-9.
pub const FRAME_OUTPUT_MAX: usize = 1_048_576;

/// Chunks in one output frame. Clause FRM-9.
pub const FRAME_CHUNKS_MAX: usize = 8_192;

/// Entries in one SQS batch (SQS `SendMessageBatch`).
pub const BATCH_ENTRIES_MAX: usize = 10;

/// Bytes of all entries of one SQS batch together (SQS `SendMessageBatch`: one MiB is shared).
pub const BATCH_BYTES_MAX: usize = 1_048_576;

/// Seconds between heartbeats of a runner. Clause FRM-12.
pub const HEARTBEAT_SECONDS: u64 = 15;

/// Bytes of all outputs (`name=value` lines) of a deployment. Clause FRM-14.
pub const OUTPUTS_MAX: usize = 32 * 1_024;

/// Seconds for which the launcher and the runner retry a reply queue that is not there yet, or denies yet. Clause FRM-16.
pub const QUEUE_WAIT_SECONDS: u64 = 60;

/// Bytes of a claim or lock object that is read.
pub const CLAIM_MAX: usize = 4_096;

/// Entries that an artifact may unpack to. Clause ART-5.
pub const ARTIFACT_ENTRIES_MAX: usize = 100_000;

/// How many times its own size an artifact may unpack to. A tree of text shrinks tenfold; a bomb, ten-thousandfold. Clause ART-5.
pub const ARTIFACT_RATIO_MAX: u64 = 100;
