//! Traces itself as Kata's Rust runtime does and posts the spans to a Jaeger endpoint,
//! with the crates, the versions and the set-up that runtime-rs has up to Kata 4.1
//! (src/runtime-rs/crates/runtimes/src/{tracer,manager}.rs).
//!
//! `jaeger ENDPOINT SANDBOX CALLS` makes that many calls in a sandbox and prints a line
//! for each span of its own as it begins, `TRACE_ID SPAN_ID NAME`, then `done`. It ends
//! when its standard input does. Until then the exporter posts, every
//! OTEL_BSP_SCHEDULE_DELAY milliseconds: shutting down does not wait for what is left
//! if the exporter happens to trace itself at that moment, here as in runtime-rs.

mod calls;
mod tracer;

use std::time::Duration;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, sandbox, calls] = &args[..] else {
        eprintln!("usage: jaeger ENDPOINT SANDBOX CALLS");
        std::process::exit(2);
    };
    let calls: usize = calls.parse().expect("CALLS must be a number");
    let tracer = tracer::start(endpoint, sandbox);
    for n in 0..calls {
        calls::make(sandbox, n).await;
        // The exporter drops what is more than its queue.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    calls::fail().await;
    println!("done");
    let wait = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    tokio::task::spawn_blocking(wait).await.expect("wait").expect("read standard input");
    tokio::task::spawn_blocking(move || tracer.end()).await.expect("end the tracer");
}
