//! Each of AWS's partitions: what `init` writes and `target render` makes names that partition and
//! its domain, and no other. No name in the templates assumes the commercial partition.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::ffi::OsString;
use std::path::Path;

/// A region of each partition, the partition, and the host of S3 there. (botocore,
/// `data/partitions.json`)
const REGIONS: [(&str, &str, &str); 8] = [
    ("eu-west-1", "aws", "s3.eu-west-1.amazonaws.com"),
    ("cn-north-1", "aws-cn", "s3.cn-north-1.amazonaws.com.cn"),
    ("us-gov-west-1", "aws-us-gov", "s3.us-gov-west-1.amazonaws.com"),
    ("eusc-de-east-1", "aws-eusc", "s3.eusc-de-east-1.amazonaws.eu"),
    ("us-iso-east-1", "aws-iso", "s3.us-iso-east-1.c2s.ic.gov"),
    ("us-isob-east-1", "aws-iso-b", "s3.us-isob-east-1.sc2s.sgov.gov"),
    ("eu-isoe-west-1", "aws-iso-e", "s3.eu-isoe-west-1.cloud.adc-e.uk"),
    ("us-isof-south-1", "aws-iso-f", "s3.us-isof-south-1.csp.hci.ic.gov"),
];

fn run(arguments: &[&str]) -> String {
    let arguments = std::iter::once("relay-admin").chain(arguments.iter().copied()).map(OsString::from);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = relay_admin::run(arguments, &mut out, &mut err);
    assert_eq!(code, 0, "{}", String::from_utf8_lossy(&err));
    String::from_utf8(out).unwrap()
}

/// The texts of all files in a folder.
fn texts(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push_str(&texts(&path));
        } else {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
    all
}

/// The partitions of the ARNs in a text. An ARN may leave its partition to CloudFormation.
fn partitions(text: &str) -> Vec<&str> {
    let after = text.split("arn:").skip(1).filter_map(|rest| rest.split(':').next());
    after.filter(|partition| partition.starts_with("aws")).collect()
}

#[test]
fn a_target_of_each_partition_names_no_other() {
    for (region, partition, s3) in REGIONS {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        let next = run(&[
            "init",
            folder,
            "--target",
            "shop/production",
            "--region",
            region,
            "--target-account",
            "222222222222",
            "--ci-account",
            "111111111111",
            "--ci",
            "github",
            "--ci-source",
            "example/shop",
            "--code-bucket",
            "code",
            "--new-key",
        ]);
        let configuration = dir.path().join("targets/shop-production.toml");
        let policy = dir.path().join("targets/shop-production.policy.json");
        let image = format!("example/shop@sha256:{}", "0".repeat(64));
        let template = run(&[
            "target",
            "render",
            configuration.to_str().unwrap(),
            "--image",
            &image,
            "--deploy-policy",
            policy.to_str().unwrap(),
        ]);
        let all = [next, texts(dir.path()), template.clone()].concat();
        let found = partitions(&all);
        assert!(found.len() > 5 && found.iter().all(|one| *one == partition), "{region}: {found:?}");
        assert!(template.contains(s3), "{region}: the template does not name {s3}");
        // Principals of services end with amazonaws.com in other partitions too; hosts do not.
        let domain = s3.rsplit_once(&format!("{region}.")).unwrap().1;
        let in_host = format!(".{region}.");
        let mut hosts = template.split(&in_host).skip(1);
        assert!(hosts.all(|rest| rest.starts_with(domain)), "{region}: a host of another domain");
    }
}

#[test]
fn no_template_names_a_partition() {
    let infra = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra");
    for name in ["ci-account.yaml", "ci-pipeline.yaml", "foundation.yaml", "governance.yaml", "network.yaml"] {
        let text = std::fs::read_to_string(infra.join(name)).unwrap();
        // A pattern of a parameter says arn:aws[a-z-]*, and descriptions give examples.
        for line in text.lines().filter(|line| !line.contains("Pattern") && !line.contains("Description")) {
            let found = partitions(line);
            assert!(found.is_empty(), "{name} names {found:?}: {line}");
        }
    }
}
