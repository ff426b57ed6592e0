//! What the agent knows of its sandbox: containers and processes. Nothing runs: a
//! process lives until SIGKILL or SIGTERM, or until the line `exit N` is written
//! to its standard input.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::request::Spec;

#[derive(Debug)]
pub struct Sandbox {
    state: Mutex<State>,
    stdout_bytes: usize,
    end: watch::Sender<bool>,
}

#[derive(Debug, Default)]
pub struct State {
    pub id: String,
    pub hostname: String,
    pub containers: HashMap<String, Container>,
}

#[derive(Debug)]
pub struct Container {
    pub id: String,
    #[allow(dead_code)] // it is printed
    pub spec: Spec,
    processes: HashMap<String, Arc<Process>>,
}

#[derive(Debug)]
pub struct Process {
    /// The exit status, once there is one.
    status: watch::Sender<Option<i32>>,
    /// How much there is still to read.
    /// Of its output, what there is still to read.
    stdout: Mutex<Range<usize>>,
}

/// What the peer did wrong, in words of the agent.
pub type Refusal = String;

impl Sandbox {
    pub fn new(stdout_bytes: usize, end: watch::Sender<bool>) -> Sandbox {
        Sandbox {
            state: Mutex::default(),
            stdout_bytes,
            end,
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Lets the agent end.
    pub fn end(&self) {
        self.end.send_replace(true);
    }

    /// Returns when the agent ends.
    pub async fn ended(&self) {
        let _ = self.end.subscribe().wait_for(|ended| *ended).await;
    }

    pub fn add_container(&self, id: &str, spec: Spec) {
        let first = HashMap::from([(id.to_string(), self.process())]);
        let container = Container {
            id: id.into(),
            spec,
            processes: first,
        };
        self.state().containers.insert(id.into(), container);
    }

    pub fn add_process(&self, container: &str, exec: &str) -> Result<(), Refusal> {
        let process = self.process();
        self.state()
            .container(container)?
            .processes
            .insert(exec.into(), process);
        Ok(())
    }

    fn process(&self) -> Arc<Process> {
        Arc::new(Process {
            status: watch::Sender::new(None),
            stdout: Mutex::new(0..self.stdout_bytes),
        })
    }

    pub fn find(&self, container: &str, exec: &str) -> Result<Arc<Process>, Refusal> {
        let key = if exec.is_empty() { container } else { exec };
        let mut state = self.state();
        let processes = &state.container(container)?.processes;
        processes
            .get(key)
            .cloned()
            .ok_or_else(|| format!("Invalid exec id: {key}"))
    }
}

impl State {
    pub fn container(&mut self, id: &str) -> Result<&mut Container, Refusal> {
        self.containers
            .get_mut(id)
            .ok_or_else(|| format!("Invalid container id: {id}"))
    }
}

impl Process {
    pub fn signal(&self, number: u32) {
        if number == 9 || number == 15 {
            self.exit(128 + number as i32);
        }
    }

    /// Takes what is written to the standard input.
    pub fn input(&self, data: &[u8]) {
        let line = String::from_utf8_lossy(data);
        if let Some(status) = line
            .trim()
            .strip_prefix("exit ")
            .and_then(|n| n.parse().ok())
        {
            self.exit(status);
        }
    }

    /// The first status stays.
    fn exit(&self, status: i32) {
        self.status.send_if_modified(|now| {
            let first = now.is_none();
            now.get_or_insert(status);
            first
        });
    }

    pub async fn wait(&self) -> i32 {
        let mut changes = self.status.subscribe();
        let exited = changes.wait_for(Option::is_some).await;
        exited.ok().and_then(|s| *s).unwrap_or_default()
    }

    /// At most `most` further bytes of standard output; none at its end, which comes
    /// with the exit. Byte i of a process's output is i ^ i>>8 ^ i>>16, cut to a byte.
    pub async fn read(&self, most: usize) -> Vec<u8> {
        {
            let mut left = self.stdout.lock().unwrap();
            let n = most.min(left.len());
            if n > 0 {
                let piece = left.start..left.start + n;
                left.start += n;
                return piece.map(|i| (i ^ i >> 8 ^ i >> 16) as u8).collect();
            }
        }
        self.wait().await;
        Vec::new()
    }
}
