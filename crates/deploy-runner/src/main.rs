//! The container's entry point.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    relay_runner::main(&arguments, |name| std::env::var(name).ok()).await
}
