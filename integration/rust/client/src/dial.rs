//! Dials as runtime-rs does (src/runtime-rs/crates/agent/src/sock/hybrid_vsock.rs of
//! Kata 4.1): "connect PORT\n" in lower case, a line that has OK in it, and after any
//! failure the same again 10 ms later.

use std::os::unix::io::IntoRawFd;
use std::os::unix::net::UnixStream as Socket;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use ttrpc::r#async::Client;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

pub struct Dialer {
    socket: String,
    port: u32,
    patience: Duration,
}

pub struct Connection {
    pub client: Client,
    pub attempts: usize,
    socket: Socket,
}

impl Dialer {
    pub fn new(args: &[String]) -> Result<Dialer, Box<dyn std::error::Error>> {
        let patience: u64 = args.get(2).map_or(Ok(60_000), |p| p.parse())?;
        Ok(Dialer {
            socket: args
                .first()
                .ok_or("usage: client SOCKET [PORT [PATIENCE_MS]]")?
                .clone(),
            port: args.get(1).map_or(Ok(1024), |p| p.parse())?,
            patience: Duration::from_millis(patience),
        })
    }

    pub async fn connect(&self) -> Result<Connection, String> {
        let most = (self.patience.as_millis() / PAUSE.as_millis()) as usize;
        let mut why = String::new();
        for attempts in 1..=most {
            match self.attempt().await {
                Ok(stream) => return Connection::new(stream, attempts).map_err(|e| e.to_string()),
                Err(e) => why = e.to_string(),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!(
            "{most} attempts to connect to {}, the last: {why}",
            self.socket
        ))
    }

    async fn attempt(&self) -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        stream
            .write_all(format!("connect {}\n", self.port).as_bytes())
            .await?;
        let mut response = String::new();
        BufReader::new(&mut stream).read_line(&mut response).await?;
        if !response.contains("OK") {
            return Err(std::io::Error::other(format!(
                "malformed response {response:?}"
            )));
        }
        Ok(stream)
    }
}

impl Connection {
    fn new(stream: UnixStream, attempts: usize) -> std::io::Result<Connection> {
        let stream = stream.into_std()?;
        let socket = stream.try_clone()?;
        Ok(Connection {
            client: Client::new(stream.into_raw_fd()),
            attempts,
            socket,
        })
    }

    /// Ends the connection for both sides.
    pub fn close(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}
