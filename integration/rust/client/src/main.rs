//! A client of the Kata agent for tests, which dials as Kata's Rust runtime does and
//! uses the same ttrpc.
//!
//! `client SOCKET [PORT [PATIENCE_MS]]` connects to the agent's port through a hybrid
//! VSOCK socket and prints `connected ATTEMPTS`. Then it reads commands from standard
//! input, a line each, and prints one line for each:
//!
//!   call METHOD [N=TEXT | N:NUMBER]...   a request to grpc.AgentService, or to the
//!                                        service before a slash, with these fields:
//!                                        `ok LENGTH` or `error CODE MESSAGE`
//!   reconnect                            a new connection for the old one:
//!                                        `connected ATTEMPTS`
//!
//! It sends no context with its requests, as runtime-rs.

mod dial;

use std::fmt::Display;

use protobuf::CodedOutputStream;
use tokio::io::{AsyncBufReadExt, BufReader};
use ttrpc::proto::Request;

use dial::Dialer;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if let Err(e) = run(std::env::args().skip(1).collect()).await {
        eprintln!("client: {e}");
        std::process::exit(1);
    }
}

async fn run(args: Vec<String>) -> Result<(), String> {
    let dialer = Dialer::new(&args).map_err(text)?;
    let mut connection = dialer.connect().await?;
    println!("connected {}", connection.attempts);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.map_err(text)? {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["reconnect"] => {
                connection.close();
                connection = dialer.connect().await?;
                println!("connected {}", connection.attempts);
            }
            ["call", method, fields @ ..] => {
                match connection.client.request(request(method, fields)?).await {
                    Ok(answer) => println!("ok {}", answer.payload.len()),
                    Err(ttrpc::Error::RpcStatus(s)) => {
                        println!("error {} {}", s.code() as i32, s.message())
                    }
                    Err(e) => println!("error - {e}"),
                }
            }
            _ => return Err(format!("{line}: not call or reconnect")),
        }
    }
    Ok(())
}

/// Makes a request with these fields, in the order of their numbers as given.
fn request(method: &str, fields: &[&str]) -> Result<Request, String> {
    let (service, method) = method
        .split_once('/')
        .unwrap_or(("grpc.AgentService", method));
    let mut payload = Vec::new();
    let mut out = CodedOutputStream::vec(&mut payload);
    for field in fields {
        if let Some((number, value)) = field.split_once('=') {
            out.write_string(number.parse().map_err(text)?, value)
        } else if let Some((number, value)) = field.split_once(':') {
            out.write_uint64(number.parse().map_err(text)?, value.parse().map_err(text)?)
        } else {
            return Err(format!("{field}: not N=TEXT or N:NUMBER"));
        }
        .map_err(text)?;
    }
    out.flush().map_err(text)?;
    drop(out);
    Ok(Request {
        service: service.into(),
        method: method.into(),
        payload,
        ..Default::default()
    })
}

fn text(e: impl Display) -> String {
    e.to_string()
}
