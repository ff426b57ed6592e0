// Included once for each version of the crate: spans that use every field and
// every kind of value, at their ends and beyond what an agent sends.

mod write {
    use super::{flags, otel, span_id, trace_id};
    use otel::sdk::export::trace::SpanData;
    use otel::sdk::trace::{EvictedHashMap, EvictedQueue};
    use otel::sdk::{InstrumentationLibrary, Resource};
    use otel::trace::{Event, Link, SpanContext, SpanKind, StatusCode, TraceState};
    use otel::{Array, KeyValue, Value};
    use std::borrow::Cow;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    fn at(secs: u64, nanos: u32) -> SystemTime {
        UNIX_EPOCH + Duration::new(secs, nanos)
    }

    fn context(trace: u128, span: u64, f: u8, remote: bool, state: &[(&str, &str)]) -> SpanContext {
        let state = TraceState::from_key_value(state.iter().copied()).expect("trace state");
        SpanContext::new(trace_id(trace), span_id(span), flags(f), remote, state)
    }

    fn attr(key: &'static str, value: Value) -> KeyValue {
        KeyValue::new(key, value)
    }

    fn text(s: impl Into<String>) -> Value {
        Value::String(Cow::Owned(s.into()))
    }

    fn texts(all: &[&'static str]) -> Value {
        Value::Array(Array::String(
            all.iter().map(|s| Cow::Borrowed(*s)).collect(),
        ))
    }

    fn attributes(all: Vec<KeyValue>) -> EvictedHashMap {
        let mut map = EvictedHashMap::new(128, 0);
        for kv in all {
            map.insert(kv);
        }
        map
    }

    /// A span with nothing but what it must have.
    fn bare(n: u64, name: &'static str) -> SpanData {
        SpanData {
            span_context: context(7, n, 0, false, &[]),
            parent_span_id: span_id(0),
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: at(0, 0),
            end_time: at(0, 0),
            attributes: attributes(vec![]),
            events: EvictedQueue::new(128),
            links: EvictedQueue::new(128),
            status_code: StatusCode::Unset,
            status_message: "".into(),
            resource: None,
            instrumentation_lib: InstrumentationLibrary::default(),
        }
    }

    fn kinds() -> Vec<SpanData> {
        let all = vec![
            (SpanKind::Client, StatusCode::Unset, ""),
            (SpanKind::Server, StatusCode::Ok, ""),
            (SpanKind::Producer, StatusCode::Error, "no such container"),
            (SpanKind::Consumer, StatusCode::Error, ""),
            (SpanKind::Internal, StatusCode::Error, "tab\tquote\" 終"),
        ];
        all.into_iter()
            .enumerate()
            .map(|(i, (span_kind, status_code, message))| SpanData {
                span_kind,
                status_code,
                status_message: message.into(),
                ..bare(100 + i as u64, "kind")
            })
            .collect()
    }

    /// Every type of value, once under a key that is kept and once under one
    /// that is not.
    fn values() -> Vec<KeyValue> {
        let all: Vec<(&str, Value)> = vec![
            ("bool", Value::Bool(true)),
            ("no", Value::Bool(false)),
            ("int", Value::I64(-42)),
            ("min", Value::I64(i64::MIN)),
            ("max", Value::I64(i64::MAX)),
            ("zero", Value::I64(0)),
            ("tenth", Value::F64(0.1)),
            ("whole", Value::F64(3.0)),
            ("huge", Value::F64(f64::MAX)),
            ("low", Value::F64(f64::MIN)),
            ("tiny", Value::F64(5e-324)),
            ("negzero", Value::F64(-0.0)),
            ("exponent", Value::F64(1.5e300)),
            ("string", text("plain")),
            ("empty", text("")),
            ("bools", Value::Array(Array::Bool(vec![true, false]))),
            (
                "ints",
                Value::Array(Array::I64(vec![i64::MIN, 0, i64::MAX])),
            ),
            ("floats", Value::Array(Array::F64(vec![0.5, -1e-9]))),
            ("strings", texts(&["a", "", "é\"\\\n"])),
            ("nothing", Value::Array(Array::String(vec![]))),
            ("nobools", Value::Array(Array::Bool(vec![]))),
        ];
        all.into_iter()
            .flat_map(|(key, v)| {
                vec![
                    KeyValue::new(format!("code.{key}"), v.clone()),
                    KeyValue::new(key, v),
                ]
            })
            .collect()
    }

    fn full() -> SpanData {
        let mut events = EvictedQueue::new(2);
        events.extend(vec![
            Event::new("evicted", at(1, 0), vec![], 0),
            Event::new("log", at(1_700_000_000, 123_456_789), values(), 3),
            Event::new("", at(1_700_000_001, 0), vec![], u32::MAX),
        ]);
        let mut links = EvictedQueue::new(2);
        links.extend(vec![
            Link::new(context(1, 1, 0, false, &[]), vec![]),
            Link::new(
                context(u128::MAX, u64::MAX, 255, true, &[("a", "1")]),
                values(),
            ),
            Link::new(context(2, 3, 1, false, &[]), vec![]),
        ]);
        SpanData {
            span_context: context(
                0x0102030405060708090a0b0c0d0e0f10,
                0x1112131415161718,
                1,
                true,
                &[("kata", "agent"), ("vendor/1", "x y;z")],
            ),
            parent_span_id: span_id(0x2122232425262728),
            name: "every field".into(),
            start_time: at(1_700_000_000, 1),
            end_time: at(1_700_000_002, 999_999_999),
            attributes: attributes(values()),
            events,
            links,
            resource: Some(Arc::new(Resource::new(values()))),
            ..bare(1, "")
        }
    }

    /// Text that JSON must escape, and text that it need not.
    fn escapes() -> SpanData {
        let every: String = (0u8..0x80).map(char::from).collect();
        SpanData {
            name: "naïve \"name\" \\ / \u{0}\u{1f}\u{7f} 🦀 \u{2028}".into(),
            attributes: attributes(vec![
                attr("code.ascii", text(every.clone())),
                attr("ascii", text(every)),
                attr("code.wide", text("ß 終 🦀 e\u{301} \u{feff}\u{10ffff}")),
                attr("wide", text("ß 終 🦀 e\u{301} \u{feff}\u{10ffff}")),
                attr("code.\"quoted\" 🦀\n", text("key with escapes")),
                attr("\"quoted\" 🦀\n", text("key with escapes")),
                attr("code.ends", text("a backslash\\")),
                attr("ends", text("two backslashes\\\\")),
                attr("", text("no key")),
                attr("code.json", text("{\"String\":\"\\u0041\"}]}")),
            ]),
            ..bare(200, "")
        }
    }

    fn extremes() -> SpanData {
        SpanData {
            span_context: context(u128::MAX, u64::MAX, 255, true, &[]),
            parent_span_id: span_id(u64::MAX),
            start_time: at(18_446_744_073, 709_551_615),
            end_time: at(253_402_300_799, 999_999_999),
            ..bare(1, "extremes")
        }
    }

    fn large() -> SpanData {
        let quoted = "Env: [\"SECRET=hunter2\"], ".repeat(4096);
        SpanData {
            attributes: attributes(vec![
                attr("code.plain", text("x".repeat(100 << 10))),
                attr("code.quoted", text(quoted.clone())),
                attr("plain", text("x".repeat(100 << 10))),
                attr("self", text(quoted)),
            ]),
            ..bare(300, "large")
        }
    }

    fn crowded() -> SpanData {
        let all = (0..130).map(|i| KeyValue::new(format!("code.{i}"), i as i64));
        SpanData {
            attributes: attributes(all.collect()),
            ..bare(400, "crowded")
        }
    }

    fn not_finite() -> SpanData {
        SpanData {
            attributes: attributes(vec![
                attr("code.nan", Value::F64(f64::NAN)),
                attr("code.inf", Value::F64(f64::INFINITY)),
                attr("ninf", Value::F64(f64::NEG_INFINITY)),
                attr(
                    "code.all",
                    Value::Array(Array::F64(vec![f64::NAN, 1.0, f64::INFINITY])),
                ),
            ]),
            ..bare(500, "not finite")
        }
    }

    /// Requests as agents print them, and some that only look so.
    fn requests() -> Vec<SpanData> {
        let all = vec![
            "StartContainerRequest { container_id: \"c-1\", special_fields: SpecialFields { } }",
            "ExecProcessRequest { container_id: \"c-1\", exec_id: \"e_2\", process: None }",
            "WaitProcessRequest { container_id: \"c-1\", exec_id: \"c-1\", }",
            "SignalProcessRequest { container_id: \"c-1\", exec_id: \"\", signal: 9 }",
            "container_id: \"c-1\" exec_id: \"e_2\" signal: 9",
            "container_id: \"c-1\"",
            "DestroySandboxRequest { special_fields: SpecialFields { } }",
            "GetGuestDetails",
            "CopyFileRequest { path: \"/x\", data: \"container_id: \\\"c\\\"\" }",
            "StartContainerRequest { container_id: \"../c\", exec_id: \"e\" }",
            "StartContainerRequest { container_id: \"\", exec_id: \"e\" }",
            "StartContainerRequest { container_id: \"c\\\"d\", exec_id: \"e\" }",
            "StartContainerRequest { container_id: \"c",
            "",
        ];
        let mut spans: Vec<SpanData> = all
            .into_iter()
            .enumerate()
            .map(|(i, req)| SpanData {
                attributes: attributes(vec![attr("req", text(req))]),
                ..bare(600 + i as u64, "request")
            })
            .collect();
        spans.push(SpanData {
            attributes: attributes(vec![
                attr("req", Value::I64(1)),
                attr("container.id", text("spoofed")),
                attr("shimtrace.exec.id", text("spoofed")),
            ]),
            ..bare(650, "request of a liar")
        });
        spans
    }

    /// A trace id whose first bytes on the bincode wire are those of JSON.
    fn like_json() -> SpanData {
        SpanData {
            span_context: context(0x0102_227b, 700, 1, false, &[]),
            ..bare(1, "like json")
        }
    }

    pub fn spans() -> Vec<SpanData> {
        let mut all = vec![
            bare(99, ""),
            full(),
            escapes(),
            extremes(),
            large(),
            crowded(),
            not_finite(),
            like_json(),
        ];
        all.extend(kinds());
        all.extend(requests());
        all
    }
}
pub use otel::sdk::export::trace::SpanData;
pub use write::spans;
