//! The tracer, as KataTracer sets it up.

use std::sync::{Arc, LazyLock};

use opentelemetry::{global, runtime::Tokio};
use tracing::{span, Span, Subscriber};
use tracing_subscriber::{prelude::*, Registry};

/// Parent of what is called from outside; it lasts as long as the sandbox.
pub static ROOTSPAN: LazyLock<Span> = LazyLock::new(|| span!(tracing::Level::TRACE, "root-span"));

pub struct Tracer(Arc<dyn Subscriber + Send + Sync>);

pub fn start(endpoint: &str, sandbox: &str) -> Tracer {
    let tracer = opentelemetry_jaeger::new_collector_pipeline()
        .with_service_name(format!("kata-sb-{}", &sandbox[0..8.min(sandbox.len())]))
        .with_endpoint(endpoint)
        .with_username("")
        .with_password("")
        .with_hyper()
        .install_batch(Tokio)
        .expect("set up the exporter");
    // No filter: everything is traced that uses the tracing crate, the exporter too.
    let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    let subscriber = Arc::new(Registry::default().with(layer));
    tracing::subscriber::set_global_default(subscriber.clone()).expect("set the subscriber");
    let tracer = Tracer(subscriber);
    tracer.0.enter(&ROOTSPAN.id().expect("an id"));
    tracer
}

impl Tracer {
    pub fn end(&self) {
        self.0.exit(&ROOTSPAN.id().expect("an id"));
        global::shutdown_tracer_provider();
    }
}
