//! A tool that calls AWS. Recipes run it in tests of the tool's credentials.
//!
//! `aws-caller COUNT MILLISECONDS` asks STS for its identity COUNT times, with a pause of
//! MILLISECONDS, and prints each answer. `aws-caller knock` calls its credentials endpoint with a
//! wrong token and prints the status line.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a tool of the tests prints, and fails by panicking"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use relay_aws::Sdk;
use relay_aws::sessions::Sessions;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["knock"] => knock(),
        [count, pause] => call(count.parse().unwrap(), Duration::from_millis(pause.parse().unwrap())),
        _ => panic!("usage: aws-caller COUNT MILLISECONDS, or aws-caller knock"),
    }
}

fn call(count: u32, pause: Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sessions = Sessions::new(&Sdk::from_environment(None).await);
        for _ in 0..count {
            match sessions.identity().await {
                Ok(identity) => println!("{}", identity.arn),
                Err(error) => {
                    println!("{error}");
                    panic!("{error}");
                }
            }
            tokio::time::sleep(pause).await;
        }
    });
}

fn knock() {
    let uri = std::env::var("AWS_CONTAINER_CREDENTIALS_FULL_URI").unwrap();
    let (address, path) = uri.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: wrong\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    print!("{line}");
}
