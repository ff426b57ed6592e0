//! Spans by either version of the OpenTelemetry crates: 0.14 for the agents that
//! write bincode, 0.17 for those that write JSON.

use std::collections::HashMap;

use tracing::Span;

use crate::export::Connection;
use crate::flags::{Encoding, Flags};

/// A ttrpc request's metadata.
pub type Metadata = HashMap<String, Vec<String>>;

/// What differs between the versions once one is installed.
#[derive(Clone, Copy)]
pub struct Telemetry {
    /// Makes the W3C context in the metadata the span's parent; without one the
    /// span is the root of a trace of its own.
    pub set_parent: fn(&Span, &Metadata),
    /// Sends what is left. All spans must be closed.
    pub shutdown: fn(),
}

/// Installs the version that the flags ask for, or none.
pub fn install(flags: &Flags) -> Telemetry {
    let Some(address) = flags.export.clone() else {
        return Telemetry {
            set_parent: |_, _| {},
            shutdown: || {},
        };
    };
    let connection = Connection::new(address, flags.lose.clone());
    match flags.encoding {
        Encoding::Bincode => bincode14::install(connection),
        Encoding::Json => json17::install(connection),
    }
}

mod bincode14 {
    use layer13 as layer;
    use otel14 as otel;
    use subscriber02 as subscriber;

    include!("otel.rs");

    fn encode(span: &SpanData) -> Vec<u8> {
        bincode::serialize(span).expect("bincode")
    }

    fn tracer(provider: &TracerProvider) -> Tracer {
        provider.get_tracer("kata-agent", None)
    }
}

mod json17 {
    use layer17 as layer;
    use otel17 as otel;
    use subscriber03 as subscriber;

    include!("otel.rs");

    fn encode(span: &SpanData) -> Vec<u8> {
        serde_json::to_vec(span).expect("serde_json")
    }

    fn tracer(provider: &TracerProvider) -> Tracer {
        provider.tracer("kata-agent")
    }
}
