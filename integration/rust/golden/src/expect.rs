// Included once for each version of the crate: what a decoder must make of a span.

mod read {
    use super::{flags_of, otel, span_hex, trace_hex};
    use crate::policy;
    use otel::sdk::export::trace::SpanData;
    use otel::trace::{SpanContext, SpanKind, StatusCode};
    use otel::{Array, Value};
    use serde_json::{json, Map, Value as Json};
    use std::time::{SystemTime, UNIX_EPOCH};

    /// Nanoseconds since 1970, at most the largest i64 (in the year 2262).
    fn nanos(t: SystemTime) -> u64 {
        let since = t
            .duration_since(UNIX_EPOCH)
            .expect("before 1970")
            .as_nanos();
        since.min(i64::MAX as u128) as u64
    }

    fn f64_bits(f: f64) -> Json {
        json!({ "double": format!("{:016x}", f.to_bits()) })
    }

    fn value(v: &Value) -> Json {
        match v {
            Value::Bool(b) => json!({ "bool": b }),
            Value::I64(i) => json!({ "int": i }),
            Value::F64(f) => f64_bits(*f),
            Value::String(s) => json!({ "string": s }),
            Value::Array(Array::Bool(a)) => {
                json!({ "array": a.iter().map(|b| json!({ "bool": b })).collect::<Vec<_>>() })
            }
            Value::Array(Array::I64(a)) => {
                json!({ "array": a.iter().map(|i| json!({ "int": i })).collect::<Vec<_>>() })
            }
            Value::Array(Array::F64(a)) => {
                json!({ "array": a.iter().map(|f| f64_bits(*f)).collect::<Vec<_>>() })
            }
            Value::Array(Array::String(a)) => {
                json!({ "array": a.iter().map(|s| json!({ "string": s })).collect::<Vec<_>>() })
            }
        }
    }

    fn size(v: &Value) -> usize {
        match v {
            Value::Bool(_) => 1,
            Value::I64(_) | Value::F64(_) => 8,
            Value::String(s) => s.len(),
            Value::Array(Array::Bool(a)) => a.len(),
            Value::Array(Array::I64(a)) => 8 * a.len(),
            Value::Array(Array::F64(a)) => 8 * a.len(),
            Value::Array(Array::String(a)) => a.iter().map(|s| s.len()).sum(),
        }
    }

    fn attributes<'a>(all: impl Iterator<Item = (&'a str, &'a Value)>, keep_all: bool) -> Json {
        let mut out = Map::new();
        for (key, v) in all {
            let keep = !policy::reserved(key) && (keep_all || policy::kept(key));
            if let ("req", Value::String(s)) = (key, v) {
                let (container, exec) = policy::ids(s);
                if let Some(id) = container {
                    out.insert("container.id".into(), json!({ "string": id }));
                }
                if let Some(id) = exec {
                    out.insert("shimtrace.exec.id".into(), json!({ "string": id }));
                }
                if !keep {
                    continue;
                }
            }
            if keep {
                out.insert(key.into(), value(v));
            } else {
                out.insert(format!("{key}.size"), json!({ "int": size(v) }));
            }
        }
        Json::Object(out)
    }

    fn context(c: &SpanContext) -> Json {
        json!({
            "trace_id": trace_hex(c.trace_id()),
            "span_id": span_hex(c.span_id()),
            "flags": flags_of(c),
            "remote": c.is_remote(),
            "trace_state": c.trace_state().header(),
        })
    }

    pub fn expect(s: &SpanData, keep_all: bool) -> Json {
        json!({
            "context": context(&s.span_context),
            "parent": span_hex(s.parent_span_id),
            "kind": match s.span_kind {
                SpanKind::Client => "client",
                SpanKind::Server => "server",
                SpanKind::Producer => "producer",
                SpanKind::Consumer => "consumer",
                SpanKind::Internal => "internal",
            },
            "name": s.name,
            "start": nanos(s.start_time),
            "end": nanos(s.end_time),
            "attributes": attributes(s.attributes.iter().map(|(k, v)| (k.as_str(), v)), keep_all),
            "dropped_attributes": s.attributes.dropped_count(),
            "events": s.events.iter().map(|e| json!({
                "name": e.name,
                "time": nanos(e.timestamp),
                "attributes": attributes(e.attributes.iter().map(|kv| (kv.key.as_str(), &kv.value)), keep_all),
                "dropped_attributes": e.dropped_attributes_count,
            })).collect::<Vec<_>>(),
            "dropped_events": s.events.dropped_count(),
            "links": s.links.iter().map(|l| json!({
                "context": context(l.span_context()),
                "attributes": attributes(l.attributes().iter().map(|kv| (kv.key.as_str(), &kv.value)), keep_all),
                "dropped_attributes": l.dropped_attributes_count(),
            })).collect::<Vec<_>>(),
            "dropped_links": s.links.dropped_count(),
            "status": match s.status_code {
                StatusCode::Unset => "unset",
                StatusCode::Ok => "ok",
                StatusCode::Error => "error",
            },
            "message": s.status_message,
        })
    }
}
pub use read::expect;
