//! A Kata agent for tests: the agent's RPCs over ttrpc and its spans, by the
//! crates that it uses, without a VM, containers or processes.
//!
//! It runs as a process on the host (`--listen unix:///path`) or in a guest
//! (`--listen vsock://:1024`). What it answers is valid and mostly empty. What
//! it sends to `--export` has the real agent's shape: the same encodings, names,
//! attributes and life-long spans, children before parents, roots of their own
//! on threads of their own, and containers' environments all over the place.
//! Every environment ends with `SECRET=hunter2`, for tests to look for.
//!
//! It ends as the agent does: after DestroySandbox it closes its life-long
//! spans, sends what it has and exits.

mod export;
mod flags;
mod request;
mod rpc;
mod sandbox;
mod service;
mod telemetry;

use std::sync::Arc;

use sandbox::Sandbox;
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::watch;
use tracing::{info_span, instrument, Instrument};

fn main() {
    let flags = match flags::parse(std::env::args().skip(1)) {
        Ok(flags) => flags,
        Err(e) => {
            log(&format!("{e}\n{}", flags::USAGE));
            std::process::exit(2);
        }
    };
    std::thread::sleep(flags.boot);
    // Before there are threads: this is how both crates take their flush interval.
    std::env::set_var("OTEL_BSP_SCHEDULE_DELAY", flags.flush_ms.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("tokio runtime");
    let telemetry = {
        let _inside = runtime.enter(); // where the exporter's clock is
        telemetry::install(&flags)
    };
    let end = runtime.block_on(async {
        let root = info_span!("root-span");
        start_sandbox(&flags, telemetry).instrument(root).await
    });
    // While the runtime lives, by whose clock the exporter goes.
    (telemetry.shutdown)();
    if let Err(e) = end {
        log(&e.to_string());
        std::process::exit(1);
    }
}

/// The agent's whole life: from boot until the sandbox is destroyed.
#[instrument(skip(telemetry))]
async fn start_sandbox(
    config: &flags::Flags,
    telemetry: telemetry::Telemetry,
) -> Result<(), Box<dyn std::error::Error>> {
    let (end, mut ended) = watch::channel(false);
    let sandbox = Arc::new(Sandbox::new(config.stdout_bytes, end));
    let watcher = tokio::spawn(watch_uevents(ended.clone(), sandbox.clone()));

    if let Some(path) = config.listen.strip_prefix("unix://") {
        let _ = std::fs::remove_file(path); // of an agent that was killed
    }
    let mut server = ttrpc::r#async::Server::new()
        .bind(&config.listen)?
        .register_service(service::services(rpc::Agent {
            sandbox: sandbox.clone(),
            telemetry,
            fail: config.fail.clone().unwrap_or_default(),
            slow: config.slow.clone(),
            virtiofs: config.virtiofs,
        }));
    server.start().await?;

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = ended.wait_for(|ended| *ended) => {}
        _ = terminate.recv() => sandbox.end(),
    }
    // Answers what has come, then closes the connections.
    server.shutdown().await?;
    watcher.await?;
    Ok(())
}

/// Does nothing but last, as the agent's does on a quiet machine.
#[instrument(skip(ended))]
async fn watch_uevents(mut ended: watch::Receiver<bool>, sandbox: Arc<Sandbox>) {
    let _ = ended.wait_for(|ended| *ended).await;
}

/// Writes a line to stderr. Unlike eprintln it does not mind that nobody reads.
pub fn log(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "agent: {line}");
}
