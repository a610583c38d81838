//! The CLI behind a proxy, with credentials from a program, and with an environment that would make
//! the SDK panic or print whole requests.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
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
