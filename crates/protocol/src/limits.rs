//! Every limit of the protocol, with its unit and its reason. No other code in the workspace
//! defines limits of the protocol.

/// The table of limits: name, type, value, and the reason as the document gives it.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr, $reason:literal;)*) => {
        $($(#[$doc])* pub const $name: $type = $value;)*

        /// Every limit with its name, value and reason. Section 19 of `docs/protocol.md` is
        /// generated from this.
        pub const ALL: &[(&str, i128, &str)] = &[$((stringify!($name), $value as i128, $reason)),*];
    };
}

limits! {
    /// Bytes of a bundle: an SNS body, or the canonical form in the evidence. SNS carries 256 KiB.
    /// Clauses LIM-1, LIM-2.
    BUNDLE_MAX: usize = 65_536, "a quarter of what SNS carries: room for tokens and approvals";

    /// Bytes of one decoded payload, other than a record's (request, approval, control, vouch).
    /// Clause LIM-3.
    PAYLOAD_MAX: usize = 32_768, "one decoded payload, except a record's";

    /// Bytes of a record's decoded payload. By [`COMMANDS_MAX`], [`OUTPUTS_MAX`] and
    /// [`PAYLOAD_MAX`], a record cannot be longer. Clause LIM-3.
    RECORD_MAX: usize = 524_288, "a record's payload; the other limits keep it below this";

    /// Bytes of the arguments of all steps and rollback steps together, with the parameters filled
    /// in. Clause LIM-8.
    COMMANDS_MAX: usize = 131_072, "arguments of all steps together; bounds the record";

    /// Signatures on one envelope. A request has one, rarely two; eight leaves room and bounds the
    /// work that an untrusted sender can cause. Clause LIM-4.
    SIGNATURES_MAX: usize = 8, "a request has one, rarely two; bounds the work that an untrusted sender can cause";

    /// Characters of one `sig`. A compact JWS is the longest. Clause LIM-4.
    SIGNATURE_MAX: usize = 4_096, "characters of one `sig`; a compact JWS is the longest";

    /// Bytes of the name of an issuer's key (`kid`). Clause SIG-6.
    KID_MAX: usize = 256, "the name of an issuer's key";

    /// Bytes of a token's claims as tags, names and values together, without the issuer's name.
    /// Clause SIG-7.
    TAGS_MAX: usize = 8_192, "twice a token, because nested names repeat; bounds the record";

    /// Keys of issuers that a reader looks up for one message. Clause SIG-9.
    ISSUER_KEYS_MAX: usize = 8, "keys of issuers that one message may name; bounds the look-ups";

    /// Keys that one issuer may list. Clause SIG-9.
    JWKS_MAX: usize = 64, "keys that one issuer may list; each becomes an object";

    /// Bytes of an object with a key of an issuer. Clause SIG-9.
    ISSUER_KEY_MAX: u64 = 4_096, "an RSA key of 4,096 bits with its names";

    /// Bytes of the object with the keys that tokens were judged by. Clause EVD-5.
    ISSUER_KEYS_FILE_MAX: u64 = 65_536, "eight keys of issuers, with room";

    /// Bytes of the text in a saved artifact. Clause ART-7.
    SAVED_TEXT_MAX: usize = 1_048_576, "more than a person reads before an approval";

    /// Objects that one entry of the ledger lists; the next entry lists the rest. Clause LED-2.
    LEDGER_OBJECTS_MAX: usize = 10_000, "what the function reads in a few minutes";

    /// Bytes of the payload of an entry of the ledger. Clause LED-1.
    LEDGER_ENTRY_MAX: usize = 4_194_304, "10,000 objects with the longest names";

    /// Seconds after which the newest entry of the ledger is too old. Clause LED-4.
    LEDGER_AGE_MAX: i64 = 2 * 60 * 60, "one entry an hour, and one that may be late";

    /// Seconds for which a key of an issuer is used after the issuer last listed it. Clause SIG-9.
    ISSUER_KEY_LIFETIME: i64 = 48 * 60 * 60, "a weekend on which the keys cannot be fetched";

    /// The latest time in a token, in seconds since 1970: the end of the year 9999. Clause SIG-6.
    TIME_MAX: i64 = 253_402_300_799, "the end of the year 9999, the last that TIM-1 can write";

    /// Approvals that accompany a request. Clause LIM-5.
    APPROVALS_MAX: usize = 8, "approvals that accompany a request";

    /// Parameters of one request. Clause LIM-6.
    PARAMETERS_MAX: usize = 64, "parameters of one request";

    /// Bytes of one parameter's value. The limit on the payload bounds all of them together. Clause
    /// LIM-6.
    PARAMETER_VALUE_MAX: usize = 16_384, "one value; the limit on the payload bounds all together";

    /// Bytes of one informational text (`origin`, messages from the launcher). Clause LIM-7.
    TEXT_MAX: usize = 512, "one informational text";

    /// Longest lifetime of a request in seconds, from `issued_at` to `expires_at`. Clause REQ-9.
    REQUEST_LIFETIME_MAX: i64 = 15 * 60, "15 minutes: long enough to wait in a queue, short for an attacker";

    /// Seconds by which two clocks may differ. Clause REQ-10.
    CLOCK_SKEW: i64 = 60, "seconds by which two clocks may differ";

    /// Seconds after `expires_at` during which a runner that the launcher started may still begin,
    /// because a slow image pull is not a replay. Clause RUN-5.
    START_DELAY_MAX: i64 = 10 * 60, "time for capacity and the image pull, between launch and start";

    /// Longest lifetime of an approval in seconds. Clause APP-3.
    APPROVAL_LIFETIME_MAX: i64 = 24 * 60 * 60, "a working day and a night";

    /// Seconds for which a control statement is accepted after it was issued: the longest lifetime
    /// of a request. Clause CTL-4.
    CONTROL_LIFETIME: i64 = 15 * 60, "the longest lifetime of a request";

    /// Bytes of one frame on the wire: body and attributes. SQS accepts 1 MiB; four such frames
    /// fill a batch. Clause FRM-2.
    FRAME_MAX: usize = 262_144, "four frames fill an SQS batch";

    /// Bytes reserved for a frame's attributes beside its body (`from`, `sig`, `vouch`). Clause
    /// FRM-2.
    FRAME_ATTRIBUTES_MAX: usize = 8_192, "reserved for the attributes beside a body";

    /// Bytes of output in one frame, decoded. Bounds what a compressed frame may decompress to.
    /// Clause FRM-9.
    FRAME_OUTPUT_MAX: usize = 1_048_576, "output that a compressed frame may unpack to";

    /// Chunks in one output frame. Clause FRM-9.
    FRAME_CHUNKS_MAX: usize = 8_192, "bounds the work for one frame";

    /// Entries in one SQS batch (SQS `SendMessageBatch`).
    BATCH_ENTRIES_MAX: usize = 10, "SQS `SendMessageBatch`";

    /// Bytes of all entries of one SQS batch together (SQS `SendMessageBatch`: the entries share 1
    /// MiB).
    BATCH_BYTES_MAX: usize = 1_048_576, "SQS `SendMessageBatch`, all entries together";

    /// Seconds between heartbeats of a runner. Clause FRM-12.
    HEARTBEAT_SECONDS: u64 = 15, "interval of the heartbeats; a longer silence is a sign of trouble";

    /// Bytes of all outputs of a deployment, as JSON with its escapes. Clause FRM-14.
    OUTPUTS_MAX: usize = 32 * 1_024, "of the JSON form, so that an escape counts; fits one frame";

    /// Seconds for which the launcher and the runner retry a reply queue that does not exist yet or
    /// still denies access. Clause FRM-16.
    QUEUE_WAIT_SECONDS: u64 = 60, "SQS's own limit for a new queue or policy to take effect";

    /// Largest claim or lock object that is read, in bytes.
    CLAIM_MAX: usize = 4_096, "bytes of a claim or lock that are read";

    /// Entries that an artifact may unpack to. Clause ART-5.
    ARTIFACT_ENTRIES_MAX: usize = 100_000, "entries of one artifact";

    /// How many times its own size an artifact may unpack to. A tree of text shrinks tenfold; a
    /// bomb, ten-thousandfold. Clause ART-5.
    ARTIFACT_RATIO_MAX: u64 = 100, "text shrinks tenfold; a bomb, ten-thousandfold";
}
