//! What a stranger's server may answer: an issuer is one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use relay_aws::fetch::{Fetch, FetchError};

/// A server that answers every request with these bytes, and then hangs up. Returns its URL.
fn serving(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/keys?secret=1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            drop(stream.read(&mut [0; 4_096]));
            drop(stream.write_all(answer));
        }
    });
    url
}

async fn get(url: &str) -> Result<Vec<u8>, FetchError> {
    Fetch::from_environment().unwrap().get(url, &[("accept", "application/json".to_owned())], 1_000).await
}

#[tokio::test]
async fn an_answer_is_taken_only_as_it_should_be() {
    assert_eq!(get(&serving(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")).await, Ok(b"{}".to_vec()));
    let redirect =
        get(&serving(b"HTTP/1.1 302 Found\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n")).await;
    let redirect = redirect.unwrap_err().to_string();
    assert!(redirect.ends_with("answers with the HTTP status 302, and redirects are not followed"), "{redirect}");
    assert!(!redirect.contains("secret"), "{redirect}");
    assert!(matches!(
        get(&serving(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")).await,
        Err(FetchError::Status { status: 404, .. })
    ));
    assert!(matches!(get(&serving(b"hello")).await, Err(FetchError::Unreachable { .. })), "no HTTP");
    let cut = get(&serving(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}")).await;
    assert!(matches!(cut, Err(FetchError::Unreachable { .. })), "cut off: {cut:?}");
    let long: &'static [u8] =
        Box::leak([b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1_001]].concat().into_boxed_slice());
    assert!(matches!(get(&serving(long)).await, Err(FetchError::TooLarge { max: 1_000, .. })));
    assert!(matches!(get("http://issuer.example/").await, Err(FetchError::Url(_))), "plain HTTP");
}

/// Takes the ten seconds that it is about.
#[tokio::test]
async fn a_server_that_never_answers_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let answer = get(&url).await.unwrap_err().to_string();
    assert!(answer.ends_with("there was no whole answer within 10 s"), "{answer}");
}
