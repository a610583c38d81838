//! The Lambda's entry point.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    relay_launcher::run().await
}
