//! The connection to the host on which spans go out, as Kata's vsock-exporter
//! keeps it: opened by the first batch, and for good.

use std::io::{self, Error, ErrorKind, Write};
use std::os::unix::net::UnixStream;

use vsock::VsockStream;

pub struct Connection {
    address: String,
    lose: Option<String>,
    stream: Option<Box<dyn Write + Send>>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.address)
    }
}

impl Connection {
    pub fn new(address: String, lose: Option<String>) -> Connection {
        Connection {
            address,
            lose,
            stream: None,
        }
    }

    /// Whether spans of that name are to be lost.
    pub fn loses(&self, name: &str) -> bool {
        self.lose.as_deref() == Some(name)
    }

    /// Sends a batch's payloads, each after its length. A batch that meets no
    /// listener is lost and the next one connects again; once connected, nothing
    /// but NotConnected makes it connect again: a connection that was reset stays
    /// in use, and every later batch is lost.
    pub fn send(&mut self, payloads: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
        if self.stream.is_none() {
            self.stream = Some(dial(&self.address)?);
        }
        let stream = self.stream.as_mut().unwrap();
        for payload in payloads {
            let sent = stream
                .write_all(&(payload.len() as u64).to_be_bytes())
                .and_then(|()| stream.write_all(&payload));
            if let Err(e) = sent {
                if e.kind() == ErrorKind::NotConnected {
                    self.stream = None;
                }
                return Err(e);
            }
        }
        Ok(())
    }

    pub fn close(&mut self) {
        self.stream = None;
    }
}

fn dial(address: &str) -> io::Result<Box<dyn Write + Send>> {
    if let Some(path) = address.strip_prefix("unix://") {
        return Ok(Box::new(UnixStream::connect(path)?));
    }
    let invalid = || {
        Error::new(
            ErrorKind::InvalidInput,
            format!("--export {address}: not unix:// or vsock://CID:PORT"),
        )
    };
    let (cid, port) = address
        .strip_prefix("vsock://")
        .and_then(|a| a.split_once(':'))
        .ok_or_else(invalid)?;
    let cid = cid.parse().map_err(|_| invalid())?;
    let port = port.parse().map_err(|_| invalid())?;
    // The kernel gives the host two seconds, in which an emulated guest on a busy machine may get
    // nothing done.
    for _ in 0..30 {
        match VsockStream::connect_with_cid_port(cid, port) {
            Err(e) if e.kind() == ErrorKind::TimedOut => {}
            stream => return Ok(Box::new(stream?)),
        }
    }
    Err(ErrorKind::TimedOut.into())
}
