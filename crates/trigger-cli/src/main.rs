//! The `relay` program. The library does the work.

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    relay_trigger_cli::main().await
}
