//! What is to be known of a server before a service relies on it: run this beside your service, with its URL and the
//! names of its caches. It ends with 1 if something is critical, so a deployment can stop at it.
//!
//! ```text
//! cargo run --example doctor -- redis://127.0.0.1:6379 users prices
//! ```

use std::process::ExitCode;

use nearfar::{Nearfar, Severity};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((url, namespaces)) = arguments.split_first() else {
        eprintln!("usage: doctor URL [NAMESPACE]...");
        return ExitCode::from(2);
    };
    let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();

    let diagnosis = Nearfar::builder().doctor(url, &namespaces).await;

    // For people. A program reads `diagnosis.findings()`: each has a kind, a severity, what was seen, and a remedy.
    print!("{diagnosis}");
    if diagnosis.worst() == Some(Severity::Critical) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
