//! The command line.

use std::collections::HashMap;
use std::time::Duration;

pub const USAGE: &str = "usage: agent --listen unix:///path|vsock://:1024 [flags]
  --export unix:///path|vsock://2:10240   where spans go; without it there are none
  --boot-ms N                             do nothing for that long, as while the guest boots
  --encoding json|bincode                 json as since Kata 3.29 (default), or bincode
  --flush-ms N                            between two batches, 5000 as in Kata
  --lose NAME                             never send spans of that name
  --fail METHOD[,METHOD]                  answer these requests with an error
  --slow METHOD=MS[,METHOD=MS]            take that long for these requests, and say so on stderr
  --virtiofs-ms N                         have the sandbox mount the shared directory, which takes that long
  --stdout-bytes N                        what each process writes before it is read empty";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    Bincode,
    Json,
}

#[derive(Debug)]
pub struct Flags {
    pub listen: String,
    pub export: Option<String>,
    pub boot: Duration,
    pub encoding: Encoding,
    pub flush_ms: u64,
    pub lose: Option<String>,
    pub fail: Option<String>,
    pub slow: HashMap<String, Duration>,
    pub virtiofs: Option<Duration>,
    pub stdout_bytes: usize,
}

/// The largest output of a process: tests of throughput need no more.
const MAX_STDOUT: usize = 8 << 20;

fn delays(value: &str) -> Result<HashMap<String, Duration>, String> {
    let one = |part: &str| {
        let (method, ms) = part.split_once('=')?;
        Some((method.into(), Duration::from_millis(ms.parse().ok()?)))
    };
    value
        .split(',')
        .map(|part| one(part).ok_or(format!("--slow {value}: not METHOD=MS")))
        .collect()
}

pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Flags, String> {
    let mut flags = Flags {
        listen: String::new(),
        export: None,
        boot: Duration::ZERO,
        encoding: Encoding::Json,
        flush_ms: 5000,
        lose: None,
        fail: None,
        slow: HashMap::new(),
        virtiofs: None,
        stdout_bytes: 0,
    };
    while let Some(flag) = args.next() {
        let value = args.next().ok_or(format!("{flag} has no value"))?;
        let number = || {
            value
                .parse::<usize>()
                .map_err(|e| format!("{flag} {value}: {e}"))
        };
        match flag.as_str() {
            // Any CID is -1 to ttrpc.
            "--listen" => flags.listen = value.replace("vsock://:", "vsock://-1:"),
            "--export" => flags.export = Some(value),
            "--boot-ms" => flags.boot = Duration::from_millis(number()? as u64),
            "--encoding" => {
                flags.encoding = match value.as_str() {
                    "json" => Encoding::Json,
                    "bincode" => Encoding::Bincode,
                    _ => return Err(format!("--encoding {value}: not json or bincode")),
                }
            }
            "--flush-ms" => flags.flush_ms = number()? as u64,
            "--lose" => flags.lose = Some(value),
            "--fail" => flags.fail = Some(value),
            "--slow" => flags.slow = delays(&value)?,
            "--virtiofs-ms" => flags.virtiofs = Some(Duration::from_millis(number()? as u64)),
            "--stdout-bytes" => flags.stdout_bytes = number()?,
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    if flags.listen.is_empty() {
        return Err("--listen is missing".into());
    }
    if flags.flush_ms == 0 {
        return Err("--flush-ms must be at least 1".into());
    }
    if flags.stdout_bytes > MAX_STDOUT {
        return Err(format!("--stdout-bytes is at most {MAX_STDOUT}"));
    }
    Ok(flags)
}
