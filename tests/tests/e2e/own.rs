//! Platform teams can run their own target files on the sandbox without changing them.

use std::path::Path;
use std::process::Output;

use relay_tests::kit::sandbox::command;

/// Runs `relay-sandbox exec` with `flags` in `folder`, and in it `script` as a shell command.
fn exec(folder: &Path, flags: &[&str], script: &str) -> (i32, String, String) {
    let mut sandbox = command("relay-sandbox");
    let output = sandbox.arg("exec").args(flags).args(["--", "sh", "-ec", script]).current_dir(folder).output();
    said(&output.unwrap())
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Runs `relay-admin init` for accounts and a region other than the sandbox's.
fn init(folder: &Path) {
    let flags = [
        ("--target", "shop/staging"),
        ("--target-account", "333333333333"),
        ("--region", "eu-central-1"),
        ("--ci-account", "444444444444"),
        ("--ci", "github"),
        ("--ci-source", "example/shop"),
        ("--code-bucket", "example-code"),
    ];
    let mut admin = command("relay-admin");
    admin.arg("init").args(flags.iter().flat_map(|(name, value)| [name, value])).arg("--new-key");
    let (code, _, err) = said(&admin.current_dir(folder).output().unwrap());
    assert_eq!(code, 0, "{err}");
}

const WITH_SECRETS: &str = r#"
[secrets]
TOKEN = "arn:aws:secretsmanager:eu-central-1:333333333333:secret:shop/token-AbCdEf"
OTHER = "arn:aws:ssm:eu-central-1:333333333333:parameter/shop/other"

[[signers]]
"#;

#[test]
fn the_files_of_init_run_and_two_targets_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path());
    let (staging, production) = ("targets/shop-staging.toml", "targets/shop-production.toml");
    let text = std::fs::read_to_string(folder.path().join(staging)).unwrap();
    let lengths = r#"["sh", "-c", "printf %s $TOKEN | wc -c; echo $OTHER"]"#;
    let other = text
        .replace("shop/staging", "shop/production")
        .replace("relay-shop-staging", "relay-shop-production")
        .replacen("[[signers]]\n", WITH_SECRETS, 1)
        .replace(r#"["echo", "deploying {version}"]"#, lengths);
    assert!(other.contains(lengths) && other.contains("[secrets]"));
    std::fs::write(folder.path().join(production), other).unwrap();
    std::fs::write(folder.path().join("secrets.toml"), "TOKEN = \"four\"\n").unwrap();

    let flags = ["--target", staging, "--target", production, "--secrets", "secrets.toml"];
    let script = "relay deploy shop/staging --param version=1\nrelay deploy shop/production --param version=2";
    let (code, out, err) = exec(folder.path(), &flags, script);
    assert_eq!((code, out.as_str()), (0, "deploying 1\n4\n***\n"), "{err}");
    assert!(err.contains("the signer `ci`"), "{err}");
    let made_up: Vec<&str> = err.lines().filter(|line| line.contains("made up")).collect();
    assert!(made_up.len() == 1 && made_up[0].contains("OTHER"), "{err}");
}

#[test]
fn what_cannot_run_is_refused_before_the_sandbox_starts() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path());
    let target = "targets/shop-staging.toml";
    let text = std::fs::read_to_string(folder.path().join(target)).unwrap();
    let refused = |name: &str, text: &str, words: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        let flags =
            if name == "secrets.toml" { vec!["--target", target, "--secrets", name] } else { vec!["--target", name] };
        let (code, out, err) = exec(folder.path(), &flags, "echo ran");
        assert!(code == 119 && out.is_empty() && err.contains(name) && err.contains(words), "{name}: {code} {err}");
    };
    refused("field.toml", &text.replace("pattern", "patern"), "unknown field `patern`");
    refused("secrets.toml", "TOKN = \"x\"\n", "TOKN");
    refused("secrets.toml", "TOKEN = 1\n", "NAME = \"value\"");
    let (code, _, err) = exec(folder.path(), &["--target", target, "--target", target], "echo ran");
    assert!(code == 119 && err.contains("shop/staging") && err.contains("two files"), "{err}");
    let (code, _, err) = exec(folder.path(), &["--target", "none.toml"], "echo ran");
    assert!(code == 119 && err.contains("none.toml"), "{err}");

    // A person may be the only signer.
    let people = text.replace("name = \"ci\"", "name = \"ci\"\nkind = \"person\"");
    std::fs::write(folder.path().join("people.toml"), people).unwrap();
    let (code, out, err) = exec(folder.path(), &["--target", "people.toml"], "echo ran");
    assert!(code == 0 && out == "ran\n", "{out} {err}");
}
