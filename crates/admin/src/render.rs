//! `target render`: writes the CloudFormation template of a target from its configuration.
//!
//! The text of the template is in `target.yaml`. Values are filled in as JSON, which is valid YAML,
//! so no text of a configuration can become structure. Equal configurations and flags give equal
//! bytes.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use relay_console::Failure;
use relay_policy::{Configuration, Image, Images, ParameterRule, Pin};
use relay_protocol::keys::Proof;
use relay_protocol::outcome::ExitCode;
use serde_json::{Value, json};

use crate::account::Account;
use crate::cli::Render;
use crate::install;
use crate::target::{self, unreadable};

const TEMPLATE: &str = include_str!("target.yaml");

/// Path of the runner in the tool's container.
const RUNNER: &str = "/relay/relay-runner";

/// Writes the template of the configuration `arguments.file`.
pub(crate) fn render(arguments: &Render, out: &mut impl Write, err: &mut impl Write) -> Result<u8, Failure> {
    let (text, configuration) = target::load(&arguments.file)?;
    if text.contains("{{resolve:") {
        let file = arguments.file.display();
        return Err(Failure::usage(format!(
            "{file} contains `{{{{resolve:`, which CloudFormation would replace: the configuration would no longer match its digest"
        )));
    }
    let (key, images) = (Key::of(&configuration)?, images(&configuration, arguments)?);
    let policy = arguments.deploy_policy.as_deref().map(policy).transpose()?;
    let role = configuration.role.as_deref().filter(|_| !arguments.no_deploy_role);
    let role = role.map(|arn| deploy_role(arn, &configuration)).transpose()?;
    if role.is_none() && (policy.is_some() || !arguments.managed_policies.is_empty()) {
        return Err(Failure::usage(
            "a policy was given for the deploy role, but this template creates none: set `role` in the configuration, and leave out --no-deploy-role".to_owned(),
        ));
    }
    if role.is_some() && policy.is_none() && arguments.managed_policies.is_empty() {
        writeln!(
            err,
            "note: the deploy role has no permissions: add them with --deploy-policy FILE or --managed-policy ARN"
        )?;
    }
    let (role, policy) = (role.as_ref(), policy.as_ref());
    let parts = Parts { text: &text, configuration: &configuration, key, images, role, policy };
    let template = template(&parts, arguments)?;
    if let Some(profile) = &arguments.profile {
        return diff(&configuration, &template, profile, out);
    }
    match &arguments.out {
        Some(path) => std::fs::write(path, template).map_err(|error| unreadable(path, &error))?,
        None => out.write_all(template.as_bytes())?,
    }
    Ok(0)
}

/// Prints how the template differs from the deployed one, as `diff -u` does.
fn diff(configuration: &Configuration, template: &str, profile: &str, out: &mut impl Write) -> Result<u8, Failure> {
    let topic = &configuration.topic;
    let account = Account::of_profile(profile, topic.region())?;
    if account.id != *topic.account() {
        let problem = format!("profile {profile} is of account {}, and the target of {}", account.id, topic.account());
        return Err(Failure::usage(problem));
    }
    let stack = install::stack_of(&configuration.target);
    let deployed = match account.call("cloudformation", "get-template", &json!({ "StackName": stack })) {
        Err(refused) if refused.is_no_stack() => {
            return Err(Failure::usage(format!("there is no stack {stack} in account {}", account.id)));
        }
        answer => answer?["TemplateBody"].as_str().unwrap_or_default().to_owned(),
    };
    if deployed.trim_end() == template.trim_end() {
        writeln!(out, "the stack {stack} has this template")?;
        return Ok(0);
    }
    let mut say = |what: &str, old: &str, new: &str| {
        let text = similar::TextDiff::from_lines(old, new);
        write!(
            out,
            "{}",
            text.unified_diff().header(&format!("{what} of {stack}, deployed"), &format!("{what}, rendered"))
        )
    };
    // In the template, the configuration is one long line.
    if let (Some(old), Some(new)) = (configuration_in(&deployed), configuration_in(template)) {
        say("configuration", &old, &new)?;
    }
    say("template", &deployed, template)?;
    Ok(ExitCode::No.code())
}

/// The text of the configuration that a rendered template carries.
fn configuration_in(template: &str) -> Option<String> {
    let (_, rest) = template.split_once("- Name: RELAY_CONFIGURATION\n")?;
    serde_json::from_str(rest.lines().next()?.trim_start().strip_prefix("Value: ")?).ok()
}

/// The template as a text; notes about it go to `err`.
pub(crate) fn text(arguments: &Render, err: &mut impl Write) -> Result<String, Failure> {
    let mut template = Vec::new();
    render(arguments, &mut template, err)?;
    Ok(String::from_utf8_lossy(&template).into_owned())
}

/// The target key: the one that this template makes, or one that other targets share.
enum Key {
    /// The template makes it, under the alias that the configuration names.
    Own,
    /// Its ARN.
    Shared(String),
}

impl Key {
    fn of(configuration: &Configuration) -> Result<Self, Failure> {
        let (key, alias) = (&configuration.target_key, configuration.target.key_alias());
        match key {
            key if *key == alias => Ok(Self::Own),
            key if key.starts_with("arn:") && key.contains(":key/") => Ok(Self::Shared(key.clone())),
            _ => Err(Failure::usage(format!(
                "`target_key` is {key}: name the key that this template makes, {alias}, or the ARN of a key that this target shares"
            ))),
        }
    }

    /// The key in an IAM policy, as YAML.
    fn arn(&self) -> String {
        match self {
            Self::Own => "!GetAtt TargetKey.Arn".to_owned(),
            Self::Shared(arn) => json!(arn).to_string(),
        }
    }

    /// The key in a command, inside `Fn::Sub`.
    fn id(&self) -> &str {
        match self {
            Self::Own => "${TargetKey}",
            Self::Shared(arn) => arn,
        }
    }
}

/// What a template is made of, beside the flags.
struct Parts<'a> {
    text: &'a str,
    configuration: &'a Configuration,
    key: Key,
    images: Images,
    role: Option<&'a DeployRole>,
    policy: Option<&'a Value>,
}

/// The images of the configuration, or of the flags.
fn images(configuration: &Configuration, arguments: &Render) -> Result<Images, Failure> {
    match (&configuration.images, &arguments.image) {
        (Some(images), None) => Ok(images.clone()),
        (None, Some(tool)) => Ok(Images { tool: tool.clone(), runner: arguments.runner_image.clone() }),
        (Some(_), Some(_)) => Err(Failure::usage("the configuration names its `images`: leave out --image".to_owned())),
        (None, None) => Err(Failure::usage(
            "no image: name it in the configuration, `images = { tool = \"NAME@sha256:…\" }`, or with --image"
                .to_owned(),
        )),
    }
}

/// The deploy role that this template creates.
struct DeployRole {
    path: String,
    name: String,
    arn: String,
}

fn deploy_role(arn: &str, configuration: &Configuration) -> Result<DeployRole, Failure> {
    let home = format!("arn:{}:iam::{}:role/relay-deploy/", partition(configuration), configuration.topic.account());
    let inner = arn.strip_prefix(&home).filter(|inner| !inner.is_empty()).ok_or_else(|| {
        Failure::usage(format!(
            "`role` is {arn}, but deploy roles begin with {home}: rename it, or create it elsewhere and pass --no-deploy-role"
        ))
    })?;
    let (folders, name) = inner.rsplit_once('/').map_or(("", inner), |(folders, name)| (folders, name));
    let path = if folders.is_empty() { "/relay-deploy/".to_owned() } else { format!("/relay-deploy/{folders}/") };
    Ok(DeployRole { path, name: name.to_owned(), arn: arn.to_owned() })
}

fn partition(configuration: &Configuration) -> &str {
    configuration.topic.as_str().split(':').nth(1).unwrap_or("aws")
}

fn policy(file: &Path) -> Result<Value, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    let policy: Value =
        serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{name} is not JSON: {error}")))?;
    if policy.get("Statement").is_some_and(Value::is_array) {
        return Ok(policy);
    }
    Err(Failure::usage(format!("{name} is not an IAM policy: it has no list `Statement`")))
}

/// Returns a container's log configuration. It is non-blocking, so a stuck log driver cannot hold
/// up a deployment.
fn logs(prefix: &str) -> String {
    format!(
        "            LogDriver: awslogs\n            Options:\n              awslogs-group: !ImportValue\n                Fn::Sub: ${{Foundation}}-TaskLogGroup\n              awslogs-region: !Ref AWS::Region\n              awslogs-stream-prefix: {}\n              mode: non-blocking\n              max-buffer-size: 4m",
        json!(prefix)
    )
}

/// Returns the container that copies the runner into the volume of the tool's container.
fn install_container(image: &Image, log_prefix: &str) -> String {
    [
        "# Copies the runner into the volume, so that the tool's image need not contain relay.".to_owned(),
        "- Name: install".to_owned(),
        format!("  Image: {}", json!(image.name())),
        "  Essential: false".to_owned(),
        r#"  EntryPoint: ["/relay-runner", "install", "/relay"]"#.to_owned(),
        r#"  User: "0""#.to_owned(),
        "  ReadonlyRootFilesystem: true".to_owned(),
        "  StopTimeout: 120".to_owned(),
        "  LinuxParameters: { InitProcessEnabled: true, Capabilities: { Drop: [ALL] } }".to_owned(),
        "  MountPoints: [{ SourceVolume: relay, ContainerPath: /relay, ReadOnly: false }]".to_owned(),
        format!("  LogConfiguration:\n{}", logs(log_prefix)),
        String::new(),
    ]
    .join("\n        ")
}

fn template(parts: &Parts<'_>, arguments: &Render) -> Result<String, Failure> {
    let Parts { text, configuration, key, images, role, policy } = parts;
    let (role, policy) = (*role, *policy);
    let target = &configuration.target;
    let (account, region) = (configuration.topic.account(), configuration.topic.region());
    let partition = partition(configuration);
    let (install, mount_relay, depends_on) = match &images.runner {
        Some(image) => (
            install_container(image, &format!("{}-install", target.family())),
            "- { SourceVolume: relay, ContainerPath: /relay, ReadOnly: true }\n            ",
            "\n          DependsOn: [{ ContainerName: install, Condition: SUCCESS }]",
        ),
        None => (String::new(), "", ""),
    };
    let allow = |sid: &str, actions: Value, resources: &str| {
        format!("              - {{ Sid: {sid}, Effect: Allow, Action: {actions}, Resource: {resources} }}\n")
    };
    let statements: String = statements(configuration, partition, role, &arguments.secrets_keys)
        .iter()
        .map(|(sid, actions, resources)| allow(sid, json!(actions), &json!(resources).to_string()))
        .chain([allow("Sign", json!(["kms:Sign", "kms:GetPublicKey"]), &key.arn())])
        .collect();
    let (deploy_role, deploy_output) = role.map_or_else(Default::default, |role| {
        (
            deploy_role_resource(role, configuration, policy, &arguments.managed_policies),
            "  DeployRoleArn: { Description: The role of the tool., Value: !GetAtt DeployRole.Arn }".to_owned(),
        )
    });
    fill(&[
        ("description", json!(format!("relay: the target {target}")).to_string()),
        ("target", json!(target.as_str()).to_string()),
        ("family", json!(target.family()).to_string()),
        (
            "compatibility",
            if parts.configuration.capacity.is_some() { "MANAGED_INSTANCES" } else { "FARGATE" }.to_owned(),
        ),
        ("cpu", json!(arguments.cpu.to_string()).to_string()),
        ("memory", json!(arguments.memory.to_string()).to_string()),
        ("architecture", if arguments.arm64 { "ARM64" } else { "X86_64" }.to_owned()),
        ("install", install),
        ("image", json!(images.tool.name()).to_string()),
        ("entry_point", json!(Pin::of(target, text).entry_point(RUNNER)).to_string()),
        ("configuration", json!(text).to_string()),
        ("mount_relay", mount_relay.to_owned()),
        ("workspace", json!(configuration.workspace).to_string()),
        ("depends_on", depends_on.to_owned()),
        ("logs", logs(&target.family())),
        ("runner_role", json!(configuration.runner_role).to_string()),
        ("runner_description", json!(format!("relay: the role of {target}'s runner, not of its tool")).to_string()),
        ("account", json!(account.as_str()).to_string()),
        ("source_arn", json!(format!("arn:{partition}:ecs:{region}:{account}:*")).to_string()),
        ("statements", statements),
        ("via_s3", json!(format!("s3.{region}.{}", region.domain())).to_string()),
        ("target_key", target_key(key, configuration, partition)),
        ("relay_toml", relay_toml(key, configuration)),
        ("deploy_role", deploy_role),
        ("deploy_output", deploy_output),
        ("group_description", json!(format!("relay: the tasks of {target}")).to_string()),
    ])
}

/// Returns what the runner may do, one statement per purpose: Sid, actions, resources.
fn statements(
    configuration: &Configuration,
    partition: &str,
    role: Option<&DeployRole>,
    secrets_keys: &[String],
) -> Vec<(String, Vec<&'static str>, Vec<String>)> {
    let (account, region) = (configuration.topic.account(), configuration.topic.region());
    let target = &configuration.target;
    let bucket = format!("arn:{partition}:s3:::{}", configuration.bucket);
    let evidence = format!("arn:{partition}:s3:::{}", configuration.evidence);
    // Only this target's: another target's runner must not claim its deployments.
    let own = format!("{evidence}/deployments/{target}");
    let ci: BTreeSet<&str> = configuration
        .roots
        .signers()
        .iter()
        .flat_map(|signer| &signer.ci_accounts)
        .map(relay_protocol::AccountId::as_str)
        .collect();
    let queues = |suffix: &str| {
        // A fixed queue carries replies only: cancels go through the topic then.
        let fixed = configuration.fixed_queues.iter().filter(|_| suffix == "reply");
        let fixed =
            fixed.map(|queue| format!("arn:{partition}:sqs:{}:{}:{}", queue.region(), queue.account(), queue.name()));
        ci.iter().map(|ci| format!("arn:{partition}:sqs:{region}:{ci}:relay-*-{suffix}")).chain(fixed).collect()
    };
    let sid = |name: &str| name.to_owned();
    let by_tokens = configuration.roots.signers().iter().any(|signer| matches!(signer.proof, Proof::Token(_)));
    let mut request = vec![format!("{own}/*/request.json")];
    if by_tokens {
        request.extend([format!("{own}/*/issuer-keys.json"), format!("{bucket}/jwks/*")]);
    }
    let mut all = vec![
        (sid("Answer"), vec!["sqs:SendMessage"], queues("reply")),
        (sid("Control"), vec!["sqs:ReceiveMessage", "sqs:DeleteMessage"], queues("control")),
        (sid("Request"), vec!["s3:GetObject"], request),
        (
            sid("Claim"),
            vec!["s3:GetObject", "s3:PutObject"],
            vec![format!("{own}/*/claim"), format!("{own}/tickets/*")],
        ),
        (sid("Evidence"), vec!["s3:PutObject"], vec![format!("{own}/*/runner/*")]),
        (sid("Lock"), vec!["s3:GetObject", "s3:PutObject"], vec![format!("{bucket}/locks/{target}/*")]),
        // Without ListBucket, S3 answers 403 for a missing object, as for a forbidden one.
        (sid("Missing"), vec!["s3:ListBucket"], vec![bucket.clone(), evidence.clone()]),
        // Its own images, and the holder of the lock.
        (
            sid("SeeTasks"),
            vec!["ecs:DescribeTasks"],
            vec![format!("arn:{partition}:ecs:{region}:{account}:task/relay/*")],
        ),
    ];
    let saves = configuration.steps.iter().chain(&configuration.rollback).any(|step| !step.save.is_empty());
    if saves {
        let places = vec![format!("{bucket}/saved/{target}/*"), format!("{own}/saved/*")];
        all.push((sid("Save"), vec!["s3:PutObject"], places));
    }
    for (name, rule) in &configuration.parameters {
        let resources = match rule {
            ParameterRule::Text { .. } => continue,
            ParameterRule::Artifact { location, .. } => {
                vec![format!("arn:{partition}:s3:::{}/{}*", location.bucket, location.prefix)]
            }
            ParameterRule::SavedBy { target, .. } => vec![
                format!("{bucket}/saved/{target}/*"),
                format!("{evidence}/deployments/{target}/saved/*"),
                format!("{evidence}/deployments/{target}/*/runner/record.json"),
            ],
        };
        let mut name: String = name.as_str().chars().filter(char::is_ascii_alphanumeric).collect();
        name.get_mut(..1).map(str::make_ascii_uppercase);
        all.push((format!("Artifact{name}"), vec!["s3:GetObject"], resources));
    }
    let secrets = |service: &str| -> Vec<String> {
        let arns = configuration.secrets.values().map(|secret| secret.arn.clone());
        arns.filter(|arn| arn.contains(&format!(":{service}:"))).collect::<BTreeSet<_>>().into_iter().collect()
    };
    for (name, service, action) in [
        ("Secrets", "secretsmanager", "secretsmanager:GetSecretValue"),
        ("SecretParameters", "ssm", "ssm:GetParameter"),
    ] {
        let arns = secrets(service);
        if !arns.is_empty() {
            all.push((sid(name), vec![action], arns));
        }
    }
    if !secrets_keys.is_empty() {
        all.push((sid("SecretsKeys"), vec!["kms:Decrypt"], secrets_keys.to_vec()));
    }
    if let Some(arn) = role.map(|role| role.arn.clone()).or_else(|| configuration.role.clone()) {
        all.push((sid("BecomeTheTool"), vec!["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"], vec![arn]));
    }
    all
}

/// The target's own key, if the template makes one.
fn target_key(key: &Key, configuration: &Configuration, partition: &str) -> String {
    if let Key::Shared(_) = key {
        return String::new();
    }
    let (target, account) = (&configuration.target, configuration.topic.account());
    let root = json!(format!("arn:{partition}:iam::{account}:root"));
    let runner = json!(format!("arn:{partition}:iam::{account}:role/relay/runner/{}", configuration.runner_role));
    let tools = json!(format!("arn:{partition}:iam::{account}:role/relay-deploy/*"));
    format!(
        r#"  # Vouches for the key of each of this target's runners, and signs their records. It is kept when
  # the stack goes: relay.toml pins it, and old records are checked with it.
  TargetKey:
    Type: AWS::KMS::Key
    DeletionPolicy: Retain
    UpdateReplacePolicy: Retain
    Properties:
      Description: {description}
      KeySpec: ECC_NIST_P256
      KeyUsage: SIGN_VERIFY
      KeyPolicy:
        Version: "2012-10-17"
        Statement:
          - Sid: AccountAdministers
            Effect: Allow
            Principal: {{ AWS: {root} }}
            # Each action is named: kms:* would include Sign and CreateGrant.
            Action: ["kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey", "kms:EnableKey", "kms:GetKeyPolicy", "kms:ListGrants", "kms:ListKeyPolicies", "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:RevokeGrant", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource", "kms:UpdateAlias", "kms:UpdateKeyDescription"]
            Resource: "*"
          - Sid: AccountReadsThePublicHalf
            Effect: Allow
            Principal: {{ AWS: {root} }}
            Action: ["kms:GetPublicKey", "kms:Verify"]
            Resource: "*"
          - Sid: TheRunnerOfThisTargetSigns
            Effect: Allow
            Principal: {{ AWS: {root} }}
            Action: kms:Sign
            Resource: "*"
            Condition:
              ArnEquals: {{ "aws:PrincipalArn": {runner} }}
          # This denies administrators too, until they change this policy, which only the SCPs keep
          # them from. It denies grants as well, which would be a way round it.
          - Sid: NobodyElseSigns
            Effect: Deny
            Principal: "*"
            Action: ["kms:CreateGrant", "kms:Sign"]
            Resource: "*"
            Condition:
              ArnNotEquals: {{ "aws:PrincipalArn": {runner} }}
          # A tool with administrator rights must not give itself access to the key. For the roles
          # that it creates, its boundary says the same.
          - Sid: NoDeployRoleAdministers
            Effect: Deny
            Principal: "*"
            Action: ["kms:DisableKey", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion"]
            Resource: "*"
            Condition:
              ArnLike: {{ "aws:PrincipalArn": {tools} }}
  TargetKeyAlias:
    Type: AWS::KMS::Alias
    Properties:
      AliasName: {alias}
      TargetKeyId: !Ref TargetKey
"#,
        description = json!(format!("relay: the target key of {target}")),
        alias = json!(target.key_alias()),
    )
}

/// A command that prints the target's section for relay.toml, with both pins.
fn relay_toml(key: &Key, configuration: &Configuration) -> String {
    let print = |id: &str| {
        format!("$(aws kms get-public-key --region ${{AWS::Region}} --key-id {id} --query PublicKey --output text)")
    };
    let section = format!(
        "printf '%s\\n' '[targets.\"{target}\"]' 'topic = \"{topic}\"' \"target_key = \\\"{target_key}\\\"\" \"answer_key = \\\"{answer_key}\\\"\"",
        target = configuration.target,
        topic = configuration.topic,
        target_key = print(key.id()),
        answer_key = print("alias/relay-answer"),
    );
    json!(section).to_string()
}

fn deploy_role_resource(
    role: &DeployRole,
    configuration: &Configuration,
    policy: Option<&Value>,
    managed: &[String],
) -> String {
    let mut text = format!(
        "  DeployRole:
    Type: AWS::IAM::Role
    Properties:
      RoleName: {}
      Path: {}
      Description: {}
      # Whatever its policies allow: nothing of relay, and no role without this boundary.
      PermissionsBoundary: !ImportValue
        Fn::Sub: ${{Foundation}}-DeployBoundaryArn
      # Only this target's runner, which names the deployment in each session.
      AssumeRolePolicyDocument:
        Version: \"2012-10-17\"
        Statement:
          - Sid: TheRunnerOfThisTarget
            Effect: Allow
            Principal: {{ AWS: !GetAtt RunnerRole.Arn }}
            Action: [\"sts:AssumeRole\", \"sts:SetSourceIdentity\"]
            Condition:
              \"Null\": {{ \"sts:SourceIdentity\": \"false\" }}
          - Sid: ItTagsTheSession
            Effect: Allow
            Principal: {{ AWS: !GetAtt RunnerRole.Arn }}
            Action: \"sts:TagSession\"
",
        json!(role.name),
        json!(role.path),
        json!(format!("relay: what the tool of {} may do", configuration.target)),
    );
    if let Some(policy) = policy {
        text.push_str(&format!("      Policies:\n        - {{ PolicyName: deploy, PolicyDocument: {policy} }}\n"));
    }
    if !managed.is_empty() {
        text.push_str(&format!("      ManagedPolicyArns: {}\n", json!(managed)));
    }
    text
}

/// Fills the template's holes in one pass, so that a value that was filled in is never searched.
fn fill(values: &[(&str, String)]) -> Result<String, Failure> {
    let mut out = String::with_capacity(TEMPLATE.len() * 2);
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once('@') {
        let hole = after
            .split_once('@')
            .and_then(|(name, after)| values.iter().find(|(known, _)| *known == name).map(|(_, value)| (value, after)));
        let Some((value, after)) = hole else {
            return Err(Failure::usage("the built-in template has a placeholder without a value".to_owned()));
        };
        out.push_str(before);
        out.push_str(value);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}
