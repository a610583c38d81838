//! The texts that people see: the help of every command, the messages of typical mistakes, and the
//! files that `relay-admin` writes. Each is compared with its file in `snapshots/`.
//!
//! To accept changes: `INSTA_UPDATE=always cargo test --workspace --test e2e texts::`, then read
//! the difference that git shows.

use std::fmt::Write as _;
use std::path::Path;

use relay_tests::kit::sandbox::command;

/// A public key of CI, so that no text is random.
const KEY: &str = "MCowBQYDK2VwAyEArj2WjlzB3twt4y/ashvCcAHedxXWOQQzRjLLIf3o5eU=";

/// Appends what a command prints, with the folder's path left out.
fn append(text: &mut String, program: &str, arguments: &[&str], folder: &Path) {
    let output = command(program).args(arguments).current_dir(folder).output().unwrap();
    let code = output.status.code().unwrap_or(-1);
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let said = said.replace(&folder.display().to_string(), "[FOLDER]");
    writeln!(text, "$ {program} {}\n{said}[exit code {code}]\n", arguments.join(" ")).unwrap();
}

/// Appends the help of a command and of all that are below it.
fn help(text: &mut String, program: &str, above: &[&str]) {
    let arguments = [above, &["--help"]].concat();
    let output = command(program).args(&arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    writeln!(text, "$ {program} {}\n{said}", arguments.join(" ")).unwrap();
    let list = said.split("\nCommands:\n").nth(1).unwrap_or_default();
    let list = list.lines().take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  "));
    let names = list.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| *name != "help") {
        help(text, program, &[above, &[name]].concat());
    }
}

#[test]
fn the_help_of_every_command() {
    for program in ["relay", "relay-admin", "relay-sandbox"] {
        let mut text = String::new();
        help(&mut text, program, &[]);
        insta::assert_snapshot!(format!("help_{program}"), text);
    }
}

/// The string literals of a source file, without its unit tests.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
    let (mut found, mut chars) = (Vec::new(), source.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next_if(|c| *c != '\n').is_some() {},
            // A character, or a lifetime.
            '\'' => match (chars.next(), chars.peek()) {
                (Some('\\'), _) => while chars.next_if(|c| *c != '\'').is_some() {},
                (Some(_), Some('\'')) => drop(chars.next()),
                _ => {}
            },
            '"' => {
                let mut text = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    match (c, chars.peek()) {
                        // A line break in the source alone.
                        ('\\', Some('\n')) => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                        ('\\', Some(_)) => text.extend([c, chars.next().unwrap()]),
                        _ => text.push(c),
                    }
                }
                found.push(text);
            }
            _ => {}
        }
    }
    found
}

/// Everything that `relay` can say, in one place to be read. A text of three words is a message.
#[test]
fn every_message_of_relay() {
    let mut text = String::new();
    for crate_name in ["console", "trigger-cli"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(crate_name).join("src");
        let mut folders = vec![root.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    files.push(path);
                }
            }
        }
        files.sort();
        for file in files {
            let messages = literals(&std::fs::read_to_string(&file).unwrap());
            let name = format!("{crate_name}/{}", file.strip_prefix(&root).unwrap().display());
            for message in messages.iter().filter(|message| message.split_whitespace().count() > 2) {
                writeln!(text, "{name}: {message}").unwrap();
            }
        }
    }
    assert!(text.lines().count() > 300, "{text}");
    insta::assert_snapshot!("messages", text);
}

#[test]
fn the_messages_of_typical_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    file("bad.toml", "targets = 3\n");
    file("key.pem", "not a key\n");
    file("request.json", "{\"a\": 1}\n");
    file("target.toml", "target = \"a/b\"\n");
    let topic = "arn:aws:sns:eu-west-1:222222222222:relay";
    let mut text = String::new();
    let mistakes: &[(&str, &[&str])] = &[
        ("relay", &["deploy"]),
        ("relay", &["deploy", "shop"]),
        ("relay", &["deploy", "shop/production"]),
        ("relay", &["deploy", "shop/production", "--config", "bad.toml"]),
        ("relay", &["deploy", "shop/production", "--config", "missing.toml"]),
        ("relay", &["deploy", "shop/production", "--topic", "relay"]),
        ("relay", &["deploy", "shop/production", "--topic", topic]),
        ("relay", &["deploy", "shop/production", "--topic", topic, "--key", "key.pem"]),
        ("relay", &["deploy", "shop/production", "--topic", topic, "--key", "missing.pem"]),
        ("relay", &["deploy", "shop/production", "--topic", topic, "--param", "version"]),
        ("relay", &["deploy", "shop/production", "--topic", topic, "--timeout", "0s"]),
        ("relay", &["attach", "1"]),
        ("relay", &["inspect", "request.json"]),
        ("relay", &["inspect", "missing.json"]),
        ("relay", &["undeploy"]),
        ("relay-admin", &["target", "check", "target.toml"]),
        ("relay-admin", &["target", "check", "missing.toml"]),
        ("relay-admin", &["target", "test", "target.toml"]),
        ("relay-admin", &["init", "--target", "shop"]),
        ("relay-sandbox", &["exec"]),
        ("relay-sandbox", &["exec", "--option", "speed=9", "--", "true"]),
        ("relay-sandbox", &["exec", "--faults", "missing.toml", "--", "true"]),
        ("relay-sandbox", &["exec", "--target", "target.toml", "--", "true"]),
        ("relay-sandbox", &["exec", "--", "no-such-program"]),
    ];
    for (program, arguments) in mistakes {
        append(&mut text, program, arguments, folder.path());
    }
    insta::assert_snapshot!("mistakes", text);
}

#[test]
fn the_files_that_init_writes() {
    for (system, source) in
        [("github", "example/shop"), ("gitlab", "example/shop"), ("jenkins", "arn:aws:iam::111111111111:role/jenkins")]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut text = String::new();
        let flags = ["init", "--target", "shop/production", "--target-account", "222222222222", "--region"];
        let more = ["eu-west-1", "--ci-account", "111111111111", "--ci", system, "--ci-source", source];
        let last = ["--code-bucket", "example-code", "--signer-key", KEY];
        append(&mut text, "relay-admin", &[flags.as_slice(), &more, &last].concat(), folder.path());
        let mut files = Vec::new();
        walk(folder.path(), &mut files);
        files.sort();
        for file in files {
            let name = file.strip_prefix(folder.path()).unwrap();
            writeln!(text, "==> {}\n{}", name.display(), std::fs::read_to_string(&file).unwrap()).unwrap();
        }
        insta::assert_snapshot!(format!("init_{system}"), text);
    }
}

fn walk(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}

#[test]
fn the_template_that_a_target_becomes() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/examples");
    let render = |more: &[&str]| {
        let mut text = String::new();
        let own = ["target", "render", "payments-production.toml"];
        append(&mut text, "relay-admin", &[own.as_slice(), more].concat(), &examples);
        text
    };
    insta::assert_snapshot!("render", render(&["--deploy-policy", "payments-production.policy.json"]));
    insta::assert_snapshot!("render_without_a_role", render(&["--no-deploy-role", "--arm64"]));
}
