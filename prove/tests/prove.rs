//! The shipped policies have the properties that they promise, and a broken one is found. Needs the
//! solver cvc5; `cargo xtask ci --integrations` says so where it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

fn run(arguments: &[&Path], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay-prove"));
    let output = command.args(arguments).envs(environment.iter().copied()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policies")
}

#[test]
fn the_shipped_policies_are_proved() {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recipes");
    let folders = entries(&recipes).into_iter().filter(|path| path.is_dir()).chain([policies()]);
    let files: Vec<PathBuf> = folders
        .flat_map(|folder| entries(&folder))
        .filter(|path| path.with_extension("properties.toml").is_file())
        .collect();
    assert!(files.len() > 4, "targets with properties are found: {files:?}");
    for file in files {
        let (code, said) = run(&[Path::new("prove"), &file], &[]);
        assert!(code == 0 && said.lines().count() >= 1, "{}: {said}", file.display());
        assert!(said.lines().all(|line| line.starts_with("proved    ")), "{said}");
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_does_not_hold_is_shown_by_a_request() {
    let folder = std::env::temp_dir().join(format!("relay-prove-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = policies().join("approved-production.toml");
    let properties = folder.join("p.toml");
    let write = |action: &str, always: &str| {
        let text = format!("[[property]]\nname = \"p\"\naction = \"{action}\"\nalways = '{always}'\n");
        std::fs::write(&properties, text).unwrap();
        run(&[Path::new("prove"), &file, Path::new("--properties"), &properties], &[])
    };
    let (code, said) = write("deploy", "context.approvals >= 2");
    assert!(code == 1 && said.starts_with("BROKEN    p: ") && said.contains("approvals: 1"), "{said}");
    let (code, said) = write("destroy", "true");
    assert!(code == 119 && said.contains("there is no action `destroy`"), "{said}");
    let (code, said) = write("deploy", "context.nothing == 1");
    assert!(code == 119 && said.contains("nothing"), "{said}");
    let (code, said) = run(&[Path::new("prove"), &file], &[("CVC5", "/nowhere/cvc5")]);
    assert!(code == 119 && said.contains("the solver cvc5 cannot be started"), "{said}");

    // A tighter version permits nothing new; the other way round, one request is shown.
    let text = std::fs::read_to_string(&file).unwrap();
    let looser = folder.join("looser.toml");
    std::fs::write(
        &looser,
        text.replace("context.approvals >= 1 && context.requester_known", "context.approvals >= 1"),
    )
    .unwrap();
    let diff = Path::new("diff");
    assert_eq!(run(&[diff, &looser, &file], &[]).0, 0);
    let (code, said) = run(&[diff, &file, &looser], &[]);
    assert!(code == 1 && said.contains("NEW       deploy: ") && said.contains("requester_known: false"), "{said}");
    std::fs::remove_dir_all(&folder).unwrap();
}
