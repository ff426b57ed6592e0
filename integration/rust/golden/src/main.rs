//! The Kata agent's span wire, by the crates the agent itself uses.
//!
//! `golden frames bincode|json` writes frames of hand-made spans to stdout;
//! `golden expect <file> [all]` decodes a file of frames and writes what a
//! decoder must make of each, a line of JSON a frame. `all` keeps every
//! attribute, as with redaction off. remake.sh runs both for the committed
//! test data.

mod policy;

use std::io::{self, Write};

/// The ways in which the two versions of the crate differ for this program.
mod bincode14 {
    use otel::trace::{SpanId, TraceId};
    use otel14 as otel;

    fn trace_id(n: u128) -> TraceId {
        TraceId::from_u128(n)
    }
    fn span_id(n: u64) -> SpanId {
        SpanId::from_u64(n)
    }
    fn trace_hex(id: TraceId) -> String {
        id.to_hex()
    }
    fn span_hex(id: SpanId) -> String {
        id.to_hex()
    }
    fn flags(n: u8) -> u8 {
        n
    }
    fn flags_of(c: &otel::trace::SpanContext) -> u8 {
        c.trace_flags()
    }

    include!("spans.rs");
    include!("expect.rs");

    pub fn encode(span: &SpanData) -> Vec<u8> {
        bincode::serialize(span).expect("bincode")
    }
    pub fn decode(payload: &[u8]) -> Result<SpanData, String> {
        bincode::deserialize(payload).map_err(|e| e.to_string())
    }
}

mod json17 {
    use otel::trace::{SpanId, TraceFlags, TraceId};
    use otel17 as otel;

    fn trace_id(n: u128) -> TraceId {
        TraceId::from_bytes(n.to_be_bytes())
    }
    fn span_id(n: u64) -> SpanId {
        SpanId::from_bytes(n.to_be_bytes())
    }
    fn trace_hex(id: TraceId) -> String {
        id.to_string()
    }
    fn span_hex(id: SpanId) -> String {
        id.to_string()
    }
    fn flags(n: u8) -> TraceFlags {
        TraceFlags::new(n)
    }
    fn flags_of(c: &otel::trace::SpanContext) -> u8 {
        c.trace_flags().to_u8()
    }

    include!("spans.rs");
    include!("expect.rs");

    pub fn encode(span: &SpanData) -> Vec<u8> {
        serde_json::to_vec(span).expect("serde_json")
    }
    pub fn decode(payload: &[u8]) -> Result<SpanData, String> {
        serde_json::from_slice(payload).map_err(|e| e.to_string())
    }
}

fn frame(out: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    out.write_all(&(payload.len() as u64).to_be_bytes())?;
    out.write_all(payload)
}

/// What is expected of one payload. A payload that the crate itself cannot read
/// back (serde_json writes a non-finite float as null) says so.
fn expect(payload: &[u8], keep_all: bool) -> serde_json::Value {
    let (encoding, expected) = if payload.starts_with(b"{\"span_context\":") {
        (
            "json",
            json17::decode(payload).map(|s| json17::expect(&s, keep_all)),
        )
    } else {
        (
            "bincode",
            bincode14::decode(payload).map(|s| bincode14::expect(&s, keep_all)),
        )
    };
    let mut line = expected.unwrap_or_else(|e| serde_json::json!({ "undecodable": e }));
    line["encoding"] = encoding.into();
    line
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut out = io::BufWriter::new(io::stdout().lock());
    match args.as_slice() {
        ["frames", "bincode"] => {
            for span in bincode14::spans() {
                frame(&mut out, &bincode14::encode(&span))?;
            }
        }
        ["frames", "json"] => {
            for span in json17::spans() {
                frame(&mut out, &json17::encode(&span))?;
            }
        }
        ["expect", file, rest @ ..] => {
            let data = std::fs::read(file)?;
            let mut rest_of_file = &data[..];
            while !rest_of_file.is_empty() {
                let (head, tail) = rest_of_file.split_at(8);
                let length = u64::from_be_bytes(head.try_into().unwrap()) as usize;
                let (payload, tail) = tail.split_at(length);
                writeln!(out, "{}", expect(payload, rest == ["all"]))?;
                rest_of_file = tail;
            }
        }
        _ => {
            eprintln!("usage: golden frames bincode|json, golden expect <file> [all]");
            std::process::exit(2);
        }
    }
    out.flush()
}
