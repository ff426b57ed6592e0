// Included once for each version of the crates: what the agent's tracer.rs and
// vsock-exporter do.

use std::collections::HashMap;

use async_trait::async_trait;
use layer::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use otel::global;
use otel::sdk::export::trace::{ExportResult, SpanData, SpanExporter};
use otel::sdk::propagation::TraceContextPropagator;
use otel::sdk::trace::{Tracer, TracerProvider};
use otel::trace::TracerProvider as _;
use subscriber::layer::SubscriberExt;
use subscriber::Registry;
use tracing::Span;

use super::{Metadata, Telemetry};
use crate::export::Connection;

#[derive(Debug)]
struct Exporter(Connection);

#[async_trait]
impl SpanExporter for Exporter {
    async fn export(&mut self, batch: Vec<SpanData>) -> ExportResult {
        let kept: Vec<_> = batch.iter().filter(|s| !self.0.loses(&s.name)).map(encode).collect();
        let spans = kept.len();
        // Blocks the exporter's own thread, as in the agent.
        self.0.send(kept.into_iter()).map_err(|e| {
            crate::log(&format!("export of {spans} spans: {e}"));
            e.to_string().into()
        })
    }

    fn shutdown(&mut self) {
        self.0.close();
    }
}

pub fn install(connection: Connection) -> Telemetry {
    let provider = TracerProvider::builder()
        .with_batch_exporter(Exporter(connection), otel::runtime::TokioCurrentThread)
        .build();
    let tracer = tracer(&provider);
    global::set_tracer_provider(provider);
    global::set_text_map_propagator(TraceContextPropagator::new());
    // The exporter has logged it.
    let _ = global::set_error_handler(|_| {});
    let subscriber = Registry::default().with(OpenTelemetryLayer::new(tracer));
    tracing::subscriber::set_global_default(subscriber).expect("a first subscriber");
    Telemetry { set_parent, shutdown: global::shutdown_tracer_provider }
}

fn set_parent(span: &Span, metadata: &Metadata) {
    let carrier: HashMap<String, String> =
        metadata.iter().map(|(k, v)| (k.clone(), v.join(","))).collect();
    span.set_parent(global::get_text_map_propagator(|p| p.extract(&carrier)));
}
