//! Vectors of identity tokens: their form, their claims, their keys, and their times.

use data_encoding::BASE64URL_NOPAD;
use p256::ecdsa::signature::Signer as _;
use relay_protocol::keys::{IssuerKey, IssuerKeys, Token, read_jwks};
use relay_protocol::{Control, DryRun, Envelope, Signature, Statement as _, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use serde_json::{Value, json};

use super::request::{ISSUED, TYPE, good};
use super::verdict::moment;
use super::{Cases, Entry, Named, Vector, approval, keys, verdict};

/// The issuer of all these tokens.
const URL: &str = "https://token.actions.githubusercontent.com";

/// The sandbox's RSA key, because making one takes seconds.
const RSA: &str = include_str!("../../../crates/sandbox/src/services/issuer-key-1.pem");

/// The point of the private key 11 on P-384, and that key's signature over the token of
/// `good-es384`. ring signs with a random number, so the signature is kept.
const P384: [&str; 2] = [
    "CZBW4n2nuZjaHu7CkEgWxX_pNe1YN8N0Vsn9FIktP4xHSbZuOvuB1iY1bztVtN3Y",
    "LkwMI04wq5ZohQVUSsXgOW_E7tjfw2P9Q_-T9BtSoyVUZtUSY6r_NX1duoE4xeC7",
];
const P384_SIGNATURE: &str = "r8GRy10HaZQe2WLk6dNnomV_gbFgwshw0d9ID9-oN3Srb8Qb9j_hpj5Z9e8lX6v1nTvuK0VzKuBv57k0v7030IzlHbXJZr4XkgY6NUoThtR3kbK95RH_cZtKNyRbJkmk";

/// The private key of an issuer, by its kind.
enum By {
    P256(p256::ecdsa::SigningKey),
    Rsa(RsaKeyPair),
}

fn p256_key() -> By {
    By::P256(p256::ecdsa::SigningKey::from_slice(&[11; 32]).unwrap())
}

fn rsa_key() -> By {
    let text: String = RSA.lines().filter(|line| !line.starts_with('-')).collect();
    By::Rsa(RsaKeyPair::from_pkcs8(&data_encoding::BASE64.decode(text.as_bytes()).unwrap()).unwrap())
}

fn part(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(bytes.as_ref())
}

impl By {
    /// The signature in the form of JWS; both kinds are deterministic.
    fn sign(&self, text: &str) -> String {
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(text.as_bytes());
                part(signature.to_bytes())
            }
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
                part(signature)
            }
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::P256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                let (x, y) = point.as_bytes()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": part(x), "y": part(y)})
            }
            Self::Rsa(key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "kid": kid, "n": part(public.n), "e": part(public.e)})
            }
        }
    }
}

/// The keys of the issuer, as the evidence keeps them.
fn issuer_keys() -> IssuerKeys {
    let es384 = json!({"kty": "EC", "crv": "P-384", "kid": "es384", "x": P384[0], "y": P384[1]});
    let jwks = json!({"keys": [p256_key().jwk("es256"), p256_key().jwk("gone"), rsa_key().jwk("rs256"), es384]});
    let seen_at: Timestamp = ISSUED.parse().unwrap();
    let stored = |(kid, jwk): (String, _)| {
        let gone_at = (kid == "gone").then(|| seen_at.plus(-1));
        IssuerKey { issuer: URL.into(), kid, jwk, seen_at, gone_at, revoked: false }
    };
    read_jwks(jwks.to_string().as_bytes()).unwrap().into_iter().map(stored).collect()
}

fn header(alg: &str, kid: &str) -> Value {
    json!({"typ": "JWT", "alg": alg, "kid": kid})
}

/// The claims of a token for `envelope`.
fn claims(envelope: &Envelope) -> Value {
    let at = ISSUED.parse::<Timestamp>().unwrap().unix();
    json!({
        "iss": URL, "aud": Token::audience_for(envelope.digest()), "sub": "repo:octo-org/payments:environment:production",
        "iat": at, "nbf": at, "exp": at + 300, "repository_id": "74", "repository_owner_id": "65", "event_name": "push",
        "ref": "refs/heads/main", "run_number": 7, "protected": true,
        "https://sts.amazonaws.com/": {"org_id": "o-1", "request_tags": {"team": "payments"}},
    })
}

/// A compact JWS of these texts.
fn jws(by: &By, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", part(header), part(claims));
    format!("{signed}.{}", by.sign(&signed))
}

fn with_token(envelope: Envelope, sig: &str) -> Envelope {
    envelope.with_signature(Signature { keyid: String::new(), sig: sig.to_owned() })
}

fn unsigned() -> Envelope {
    keys::envelope(TYPE, good().json(), &[])
}

fn entry(name: &str, claims: &[(&str, &str)]) -> Entry {
    let claims = claims.iter().map(|(pointer, value)| ((*pointer).to_owned(), vec![(*value).to_owned()])).collect();
    let algorithms = ["RS256", "ES256", "ES384"].map(str::to_owned).into();
    Entry { name: name.into(), issuer: Named { name: "github".into(), url: URL.into(), algorithms }, claims }
}

fn main_branch() -> Entry {
    entry("main", &[("/repository_id", "74"), ("/repository_owner_id", "65"), ("/ref", "refs/heads/main")])
}

fn base() -> Vector {
    Vector {
        statement: "request".into(),
        stage: "launch".into(),
        now: ISSUED.into(),
        entries: vec![main_branch()],
        issuer_keys: issuer_keys().to_json(),
        ..Vector::default()
    }
    .body(
        with_token(
            unsigned(),
            &jws(&p256_key(), &header("ES256", "es256").to_string(), &claims(&unsigned()).to_string()),
        )
        .to_json(),
    )
}

/// Fills in the expected output of an accepted case.
fn unfold(vector: Vector) -> Vector {
    let out = verdict("token", &vector).unwrap_or_else(|class| panic!("{}: {class}", vector.comment));
    vector.but(|v| (v.digest, v.canonical, v.signers) = (out.digest, out.canonical, out.signers))
}

pub(super) fn cases() -> Cases {
    let mut all = accepted();
    all.extend(forms());
    all.extend(unfitting());
    all.extend(times());
    all
}

fn accepted() -> Cases {
    let ok = |clause: &str, comment: &str, json: String| unfold(base().odd(clause, "ok", comment).body(json));
    let es256 = header("ES256", "es256").to_string();
    let token = |claims: &Value| jws(&p256_key(), &es256, &claims.to_string());
    let good_claims = claims(&unsigned());
    let with = |name: &str, value: Value| {
        let mut claims = good_claims.clone();
        claims[name] = value;
        with_token(unsigned(), &token(&claims)).to_json()
    };
    let rs256 = jws(&rsa_key(), &header("RS256", "rs256").to_string(), &good_claims.to_string());
    let es384 = format!("{}.{}", part(header("ES384", "es384").to_string()), part(good_claims.to_string()));
    let es384 = format!("{es384}.{P384_SIGNATURE}");
    let two = [main_branch(), entry("numbers", &[("/run_number", "7"), ("/protected", "true")])];
    let nested = entry("nested", &[("/https:~1~1sts.amazonaws.com~1/org_id", "o-1")]);
    let first = token(&good_claims);
    let mut later = good_claims.clone();
    later["jti"] = json!("2");
    let ci = keys::ci();
    let beside =
        Envelope::parse(with_token(keys::envelope(TYPE, good().json(), &[&ci]), &first).to_json().as_bytes(), 65_536);
    let of_another = |statement: &str, payload_type: &str, payload: String| {
        let envelope = keys::envelope(payload_type, payload, &[]);
        let json = with_token(envelope.clone(), &token(&claims(&envelope))).to_json();
        let vector = base().odd("SIG-5", "ok", "A statement of another type, signed by a token for it.").body(json);
        unfold(vector.but(|v| {
            v.statement = statement.into();
            v.now = String::new();
            v.stage = String::new();
        }))
    };
    vec![
        ("good-es256", ok("SIG-5, SIG-6, SIG-7", "Nothing is odd.", with_token(unsigned(), &first).to_json())),
        ("good-rs256", ok("SIG-6", "RSA with SHA-256.", with_token(unsigned(), &rs256).to_json())),
        ("good-es384", ok("SIG-6", "ECDSA on P-384.", with_token(unsigned(), &es384).to_json())),
        ("audience-in-a-list", ok("SIG-5", "The audience is a list of one.", with("aud", json!([good_claims["aud"]])))),
        (
            "claims-unknown",
            ok("SIG-6", "A claim that relay does not know.", with("jti", json!({"a": [1e3, null, -0.0]}))),
        ),
        (
            "two-entries",
            unfold(base().odd("SIG-7", "ok", "The token fits two entries.").but(|v| v.entries = two.to_vec())),
        ),
        (
            "nested-claim",
            unfold(
                base()
                    .odd("SIG-7", "ok", "An entry demands a claim inside an object.")
                    .but(|v| v.entries = vec![nested]),
            ),
        ),
        (
            "two-tokens",
            ok("ENV-9, SIG-7", "Two tokens that fit one entry: one of them remains.", {
                with_token(with_token(unsigned(), &first), &token(&later)).to_json()
            }),
        ),
        (
            "beside-a-key",
            unfold(
                base()
                    .odd("ENV-9, SIG-7", "ok", "A token beside a key's signature.")
                    .body(beside.unwrap().to_json())
                    .but(|v| v.keys = vec![ci.public()]),
            ),
        ),
        ("approval", of_another("approval", approval::TYPE, approval::good(ISSUED).json())),
        ("dry-run", of_another("dry-run", DryRun::TYPE, good().json())),
        ("control", of_another("control", Control::TYPE, super::control::good().json())),
    ]
}

/// Tokens that are not of the form, or not signed.
fn forms() -> Cases {
    let no = |clause: &str, comment: &str, sig: &str| {
        base().odd(clause, "no-valid-signature", comment).body(with_token(unsigned(), sig).to_json())
    };
    let (key, good_header, good_claims) = (p256_key(), header("ES256", "es256"), claims(&unsigned()));
    let token = |header: &Value, claims: &Value| jws(&key, &header.to_string(), &claims.to_string());
    let with_header = |name: &str, value: Value| {
        let mut header = good_header.clone();
        header[name] = value;
        token(&header, &good_claims)
    };
    let with_claim = |name: &str, value: Value| {
        let mut claims = good_claims.clone();
        claims[name] = value;
        token(&good_header, &claims)
    };
    let without = |name: &str| {
        let mut claims = good_claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        token(&good_header, &claims)
    };
    let good = token(&good_header, &good_claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let der = p256::ecdsa::Signature::from_slice(&bytes).unwrap().to_der();
    let mut flipped = bytes.clone();
    flipped[5] ^= 1;
    let doubled = good_claims.to_string().replacen('{', "{\"ref\":\"refs/heads/main\",", 1);
    let audience = good_claims["aud"].clone();
    let other = Token::audience_for(relay_protocol::Digest::of(b"another envelope"));
    vec![
        (
            "alg-none",
            no(
                "SIG-6",
                "The header says that there is no signature.",
                &format!("{}.{}.", part(header("none", "es256").to_string()), part(good_claims.to_string())),
            ),
        ),
        (
            "alg-hs256",
            no(
                "SIG-6",
                "A symmetric algorithm, for which the public key would be the secret.",
                &with_header("alg", json!("HS256")),
            ),
        ),
        (
            "alg-lower-case",
            no("SIG-6", "The name of the algorithm in lower case.", &with_header("alg", json!("es256"))),
        ),
        (
            "alg-of-another-key",
            no("SIG-6", "The algorithm is not the one of the key.", &with_header("alg", json!("ES384"))),
        ),
        ("crit", no("SIG-6", "A rule that the reader would have to know.", &with_header("crit", json!(["exp"])))),
        ("b64", no("SIG-6", "A payload that is not encoded.", &with_header("b64", json!(true)))),
        ("jwk-in-the-header", no("SIG-6", "The token brings its own key.", &with_header("jwk", key.jwk("es256")))),
        (
            "jku",
            no("SIG-6", "The token says where its key is.", &with_header("jku", json!("https://evil.example/jwks"))),
        ),
        ("x5c", no("SIG-6", "The token brings a certificate.", &with_header("x5c", json!([])))),
        ("kid-unknown", no("SIG-6, SIG-9", "A key that nobody knows.", &with_header("kid", json!("other")))),
        ("kid-empty", no("SIG-6", "The key has an empty name.", &with_header("kid", json!("")))),
        ("kid-number", no("SIG-6", "The name of the key is a number.", &with_header("kid", json!(1)))),
        ("header-array", no("SIG-6", "The header is an array.", &token(&json!(["ES256", "es256"]), &good_claims))),
        (
            "header-twice",
            no(
                "ENC-5, SIG-6",
                "A member of the header occurs twice.",
                &jws(&key, r#"{"alg":"ES256","kid":"es256","kid":"es256"}"#, &good_claims.to_string()),
            ),
        ),
        ("claim-twice", no("ENC-5, SIG-6", "A claim occurs twice.", &jws(&key, &good_header.to_string(), &doubled))),
        (
            "audience-of-another-envelope",
            no("SIG-5", "The token is for another envelope.", &with_claim("aud", json!(other))),
        ),
        (
            "audiences-two",
            no(
                "SIG-5",
                "The token is for two audiences.",
                &with_claim("aud", json!([audience, "https://other.example"])),
            ),
        ),
        (
            "audience-twice",
            no("SIG-5", "The token names its audience twice.", &with_claim("aud", json!([audience, audience]))),
        ),
        ("audience-none", no("SIG-5", "The list of audiences is empty.", &with_claim("aud", json!([])))),
        ("audience-missing", no("SIG-5", "The token has no audience.", &without("aud"))),
        (
            "audience-upper-case",
            no(
                "SIG-5",
                "The digest in upper case.",
                &with_claim("aud", json!(audience.as_str().unwrap().to_uppercase())),
            ),
        ),
        ("issuer-other", no("SIG-6", "Another issuer.", &with_claim("iss", json!("https://evil.example")))),
        (
            "issuer-with-slash",
            no("SIG-6", "The issuer's URL with a slash behind it.", &with_claim("iss", json!(format!("{URL}/")))),
        ),
        ("issuer-list", no("SIG-6", "The issuer is a list.", &with_claim("iss", json!([URL])))),
        ("iat-missing", no("SIG-6", "There is no time at which it was made.", &without("iat"))),
        ("exp-missing", no("SIG-6", "There is no end.", &without("exp"))),
        ("exp-text", no("SIG-6", "The end is a text.", &with_claim("exp", json!("1780315500")))),
        ("exp-fraction", no("SIG-6", "The end has a fraction.", &with_claim("exp", json!(1_780_315_500.5)))),
        (
            "exp-too-late",
            no("SIG-6", "The end is after the year 9999.", &with_claim("exp", json!(253_402_300_800_i64))),
        ),
        ("iat-negative", no("SIG-6", "It was made before 1970.", &with_claim("iat", json!(-1)))),
        ("nbf-null", no("SIG-6", "The beginning is null.", &with_claim("nbf", Value::Null))),
        ("signature-changed", no("SIG-6", "One bit of the signature.", &format!("{signed}.{}", part(flipped)))),
        ("signature-der", no("SIG-6", "The signature in DER.", &format!("{signed}.{}", part(der.as_bytes())))),
        ("signature-empty", no("SIG-6", "There is no signature.", &format!("{signed}."))),
        ("padded", no("SIG-6", "The signature is padded.", &format!("{good}=="))),
        (
            "trailing-bits",
            no(
                "SIG-6",
                "The last character has bits that mean nothing.",
                &format!("{}B", good.strip_suffix(|_| true).unwrap()),
            ),
        ),
        (
            "standard-base64",
            no(
                "SIG-6",
                "A part in the standard alphabet.",
                &with_claim("sub", json!("~~>>>???ÿÿÿ")).replace('-', "+").replace('_', "/"),
            ),
        ),
        ("four-parts", no("SIG-6", "A fourth part.", &format!("{good}.{}", part("more")))),
        ("two-parts", no("SIG-6", "Only two parts.", signed)),
        (
            "tags-too-long",
            no("SIG-7", "Names inside names, which repeat in every tag.", &{
                let inner: serde_json::Map<String, Value> = (0..30).map(|n| (n.to_string(), json!(n))).collect();
                with_claim(&"n".repeat(400), Value::Object(inner))
            }),
        ),
        (
            "too-long",
            base()
                .odd("LIM-4", "malformed-envelope", "The token is one character over the limit.")
                .body(with_token(unsigned(), &format!("{good}{}", "A".repeat(4_097 - good.len()))).to_json()),
        ),
        (
            "payload-replaced",
            base()
                .odd("SIG-5", "no-valid-signature", "The token of one request beside another request.")
                .body(with_token(keys::envelope(TYPE, good_with_other_image(), &[]), &good).to_json()),
        ),
        (
            "key-gone",
            no("SIG-9", "The key was no longer listed when the token was made.", &with_header("kid", json!("gone"))),
        ),
    ]
}

fn good_with_other_image() -> String {
    good().with("parameters", r#"{"image":"sha256:0000"}"#).json()
}

/// Good tokens that fit no entry.
fn unfitting() -> Cases {
    let no = |clause: &str, comment: &str, entry: Entry| {
        base().odd(clause, "no-valid-signature", comment).but(|v| v.entries = vec![entry])
    };
    let demands = |pointer: &str, value: &str| entry("main", &[(pointer, value)]);
    let only_rsa = main_branch();
    let only_rsa = Entry { issuer: Named { algorithms: vec!["RS256".into()], ..only_rsa.issuer.clone() }, ..only_rsa };
    let other_issuer = main_branch();
    let other_issuer =
        Entry { issuer: Named { url: "https://other.example".into(), ..other_issuer.issuer.clone() }, ..other_issuer };
    vec![
        ("entry-of-another-value", no("SIG-7", "The claim has another value.", demands("/repository_id", "75"))),
        ("entry-of-a-missing-claim", no("SIG-7", "There is no such claim.", demands("/environment", "production"))),
        ("entry-of-an-object", no("SIG-7", "The claim is an object.", demands("/https:~1~1sts.amazonaws.com~1", "{}"))),
        (
            "entry-of-request-tags",
            no(
                "SIG-7",
                "What the caller of STS chose is no tag.",
                demands("/https:~1~1sts.amazonaws.com~1/request_tags/team", "payments"),
            ),
        ),
        ("entry-with-other-algorithms", no("SIG-6", "The issuer may sign with RS256 only.", only_rsa)),
        ("entry-of-another-issuer", no("SIG-6", "The entry is for another issuer.", other_issuer)),
        (
            "no-keys",
            base()
                .odd("SIG-9", "no-valid-signature", "No key of the issuer is known.")
                .but(|v| v.issuer_keys = IssuerKeys::default().to_json()),
        ),
        (
            "keys-of-another-issuer",
            base().odd("SIG-9", "no-valid-signature", "The keys are another issuer's.").but(|v| {
                v.issuer_keys = v.issuer_keys.replace(URL, "https://other.example");
            }),
        ),
    ]
}

fn times() -> Cases {
    let at = ISSUED.parse::<Timestamp>().unwrap().unix();
    let key = p256_key();
    let made = |clause: &str, expect: &str, comment: &str, change: &dyn Fn(&mut Value), now: i64, stage: &str| {
        let mut all = claims(&unsigned());
        change(&mut all);
        let sig = jws(&key, &header("ES256", "es256").to_string(), &all.to_string());
        let vector = base().odd(clause, expect, comment).body(with_token(unsigned(), &sig).to_json());
        let vector = vector.but(|v| (v.now, v.stage) = (moment(ISSUED, now), stage.into()));
        if expect == "ok" { unfold(vector) } else { vector }
    };
    let same = |_: &mut Value| {};
    let moved = |by: i64| {
        move |claims: &mut Value| {
            for (name, offset) in [("iat", 0), ("nbf", 0), ("exp", 300)] {
                claims[name] = json!(at + by + offset);
            }
        }
    };
    let later_start = |claims: &mut Value| claims["nbf"] = json!(at + 61);
    vec![
        (
            "launcher-at-the-last-second",
            made("SIG-8", "ok", "The launcher, a skew after the end.", &same, 360, "launch"),
        ),
        ("launcher-too-late", made("SIG-8", "expired", "One second later.", &same, 361, "launch")),
        ("runner-after-the-end", made("SIG-8", "ok", "The runner, ten minutes after the end.", &same, 900, "run")),
        ("not-yet", made("SIG-8", "not-yet-valid", "It is valid from 61 s after now on.", &later_start, 0, "launch")),
        ("not-yet-at-the-runner", made("SIG-8", "not-yet-valid", "The runner too.", &later_start, 0, "run")),
        ("made-a-skew-before", made("SIG-8", "ok", "Made 60 s before the request.", &moved(-60), 0, "launch")),
        ("made-too-early", made("SIG-8", "expired", "Made 61 s before the request.", &moved(-61), 0, "launch")),
        ("made-too-late", made("SIG-8", "expired", "Made 61 s after the end of the request.", &moved(961), 900, "run")),
    ]
}

/// The objects with keys of issuers.
pub(super) fn objects() -> Vec<(&'static str, &'static str, &'static str, &'static str, String)> {
    let keys: Value = serde_json::from_str(&issuer_keys().to_json()).unwrap();
    let of = |kid: &str| keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap().clone();
    let (rsa, ec) = (of("rs256"), of("es256"));
    let with = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key.to_string()
    };
    let jwk = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key["jwk"][name] = value;
        key.to_string()
    };
    let weak = part([&[0x80][..], &[1; 127]].concat());
    let padded =
        part([&[0][..], &BASE64URL_NOPAD.decode(rsa["jwk"]["n"].as_str().unwrap().as_bytes()).unwrap()].concat());
    let no = "malformed-payload";
    vec![
        ("issuer-key-rsa", "issuer-key", "ok", "An RSA key.", rsa.to_string()),
        ("issuer-key-ec", "issuer-key", "ok", "A key on P-256.", ec.to_string()),
        ("issuer-key-gone", "issuer-key", "ok", "A key that the issuer lists no longer.", of("gone").to_string()),
        (
            "issuer-key-revoked",
            "issuer-key",
            "ok",
            "A revoked key has the same form.",
            with(&ec, "revoked", json!(true)),
        ),
        ("issuer-key-weak", "issuer-key", no, "An RSA key of 1,024 bits.", jwk(&rsa, "n", json!(weak))),
        (
            "issuer-key-leading-zero",
            "issuer-key",
            no,
            "A modulus with a zero byte before it.",
            jwk(&rsa, "n", json!(padded)),
        ),
        ("issuer-key-exponent", "issuer-key", no, "The exponent 3.", jwk(&rsa, "e", json!("Aw"))),
        ("issuer-key-curve", "issuer-key", no, "The coordinates of another curve.", jwk(&ec, "crv", json!("P-384"))),
        (
            "issuer-key-symmetric",
            "issuer-key",
            no,
            "A symmetric key.",
            with(&ec, "jwk", json!({"kty": "oct", "k": "AAAA"})),
        ),
        ("issuer-key-private", "issuer-key", no, "A private key.", jwk(&ec, "d", json!("AAAA"))),
        ("issuer-key-unknown-member", "issuer-key", no, "A member that nobody knows.", with(&ec, "more", json!(1))),
        ("issuer-keys", "issuer-keys", "ok", "Four keys.", keys.to_string()),
        (
            "issuer-keys-as-array",
            "issuer-keys",
            no,
            "The keys without the object around them.",
            keys["keys"].to_string(),
        ),
    ]
}
