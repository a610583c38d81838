//! The CLI behind a proxy, with credentials from a program, and with an environment that would make
//! the SDK panic or print whole requests.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use relay_tests::{Options, Sandbox};

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options::default())
}

/// A proxy that wants a password. Returns its address.
fn closed_proxy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // The caller may have gone.
            drop(stream.read(&mut [0; 4096]));
            let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<html>no</html>";
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    address
}

#[test]
fn a_proxy_is_used_and_its_answer_is_not_taken_for_awss() {
    let (sandbox, proxy) = (sandbox(), closed_proxy());
    let call = || sandbox.shell("echo direct").env("HTTP_PROXY", &proxy).env("http_proxy", &proxy);
    let done = call().run().exits(125).says("HTTP status 407").says("the proxy wants other credentials");
    assert!(!done.err().contains("<html>"), "{}", done.err());
    assert_eq!(call().env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").run().exits(0).out(), "direct\n");
}

#[test]
fn credentials_may_come_from_a_program() {
    let sandbox = sandbox();
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    let value = |name: &str| sandbox.environment().get(name).cloned().unwrap_or_else(|| "x".to_owned());
    let call = sandbox.shell("echo by a program");
    let file = call.folder().join("config");
    let printed =
        format!(r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}"}}"#, value(keys[0]), value(keys[1]));
    std::fs::write(&file, format!("[profile ci]\ncredential_process = echo '{printed}'\n")).unwrap();
    let call = keys.iter().fold(call, |call, name| call.without(name));
    let done = call.env("AWS_CONFIG_FILE", file.to_str().unwrap()).env("AWS_PROFILE", "ci").run();
    assert_eq!(done.exits(0).out(), "by a program\n");
}

/// A proxy that connects every host to the sandbox's HTTPS port. Returns its address.
fn open_proxy(sandbox: &Sandbox) -> String {
    let (_, port) = sandbox.variable("RELAY_SANDBOX_HTTPS").rsplit_once(':').unwrap();
    let server = format!("127.0.0.1:{port}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut upstream)) = (client, TcpStream::connect(&server)) else { return };
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if client.read(&mut byte).is_ok_and(|read| read == 1) { asked.extend(byte) } else { break }
            }
            if asked.starts_with(b"CONNECT ")
                && client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").is_ok()
            {
                let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
                std::thread::spawn(move || drop(std::io::copy(&mut upstream, &mut client)));
            }
        }
    });
    address
}

#[test]
fn a_private_authority_is_trusted_if_it_is_named() {
    let sandbox = sandbox();
    let secure = sandbox.variable("RELAY_SANDBOX_HTTPS");
    let call = || sandbox.shell("echo over TLS").env("AWS_ENDPOINT_URL", secure);
    call().run().exits(125).says("certificate").says("AWS_CA_BUNDLE");
    assert_eq!(call().env("AWS_CA_BUNDLE", sandbox.variable("RELAY_SANDBOX_CA")).run().exits(0).out(), "over TLS\n");
}

/// The whole way of a person's profile: a sign-in that `aws sso login` left, the portal's own host
/// name, a proxy, and a private authority.
#[test]
fn credentials_may_come_from_a_sign_in_behind_a_proxy() {
    let sandbox = sandbox();
    let proxy = open_proxy(&sandbox);
    let call = sandbox.shell("echo signed in");
    let home = call.folder().to_owned();
    let config = home.join("config");
    std::fs::write(
        &config,
        "[profile person]\nsso_session = work\nsso_account_id = 111111111111\nsso_role_name = ci\n\
         [sso-session work]\nsso_region = eu-west-1\nsso_start_url = https://example.awsapps.com/start\n",
    )
    .unwrap();
    // The name is the SHA-1 of the session's name, as `aws sso login` writes it.
    let cache = home.join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::write(
        cache.join("e274eeff768c6396088ec6eb091f4bf4d47ab1e0.json"),
        r#"{"accessToken":"sandbox-sso-token","expiresAt":"2099-01-01T00:00:00Z","region":"eu-west-1"}"#,
    )
    .unwrap();
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    let call = keys.iter().fold(call, |call, name| call.without(name));
    let done = call
        .env("HOME", home.to_str().unwrap())
        .env("AWS_CONFIG_FILE", config.to_str().unwrap())
        .env("AWS_PROFILE", "person")
        .env("AWS_CA_BUNDLE", sandbox.variable("RELAY_SANDBOX_CA"))
        .env("AWS_ENDPOINT_URL", sandbox.variable("RELAY_SANDBOX_HTTPS"))
        .env("HTTPS_PROXY", &proxy)
        .run();
    assert_eq!(done.exits(0).out(), "signed in\n");
}

/// Nothing panics, nothing is published, no secret is printed, and the words name the variable or
/// what is wrong with it.
#[test]
fn what_the_sdk_cannot_use_is_named() {
    let sandbox = sandbox();
    let endpoint = format!("{}\n", sandbox.variable("AWS_ENDPOINT_URL"));
    let folder = tempfile::tempdir().unwrap();
    let garbage = folder.path().join("ca.pem");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for (name, value, words) in [
        ("AWS_SECRET_ACCESS_KEY", "hunter22\n", "the secret access key contains a line break"),
        ("AWS_ACCESS_KEY_ID", "AKIA\r", "the access key id contains a line break"),
        ("AWS_CA_BUNDLE", "/nowhere/ca.pem", "AWS_CA_BUNDLE=/nowhere/ca.pem"),
        ("AWS_CA_BUNDLE", garbage.to_str().unwrap(), "has no certificate, or one that cannot be read"),
        ("AWS_ENDPOINT_URL", &endpoint, "AWS_ENDPOINT_URL contains a blank or a line break"),
    ] {
        let done = sandbox.shell("echo x").env(name, value).run().exits(125).says(words);
        assert!(!done.err().contains("hunter22") && !done.err().contains("panicked"), "{}", done.err());
    }
}
