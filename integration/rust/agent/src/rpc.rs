//! What each RPC does and answers, and the spans inside it. They are named and
//! nested as the agent's own functions are.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use protobuf::CodedOutputStream;
use tracing::{info_span, instrument};
use ttrpc::Code;

use crate::request::*;
use crate::sandbox::{Container, Refusal, Sandbox};
use crate::telemetry::Telemetry;

pub struct Agent {
    pub sandbox: Arc<Sandbox>,
    pub telemetry: Telemetry,
    /// The methods that fail, with commas between them.
    pub fail: String,
    /// How long these methods take.
    pub slow: HashMap<String, Duration>,
    /// How long it takes to mount the shared directory; none: it is not mounted.
    pub virtiofs: Option<Duration>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentService")
            .field("sandbox", &self.sandbox)
            .finish()
    }
}

/// An answer's payload.
pub type Answer = Result<Vec<u8>, (Code, String)>;

fn done(result: Result<(), Refusal>) -> Answer {
    result.map(|()| Vec::new()).map_err(|e| (Code::INTERNAL, e))
}

fn message(write: impl Fn(&mut CodedOutputStream) -> protobuf::Result<()>) -> Answer {
    let mut payload = Vec::new();
    let mut out = CodedOutputStream::vec(&mut payload);
    write(&mut out)
        .and_then(|()| out.flush())
        .map_err(|e| (Code::INTERNAL, e.to_string()))?;
    drop(out);
    Ok(payload)
}

/// The longest piece of output in one answer; a ttrpc message has 4 MiB at most.
const MAX_READ: usize = 1 << 20;

impl Agent {
    pub async fn create_sandbox(&self, req: CreateSandboxRequest) -> Answer {
        {
            let mut state = self.sandbox.state();
            state.id = req.sandbox_id;
            state.hostname = req.hostname;
        }
        self.setup_shared_namespaces();
        add_storages(None, &self.sandbox);
        if let Some(time) = self.virtiofs {
            mount_shared(time);
        }
        done(Ok(()))
    }

    #[instrument]
    fn setup_shared_namespaces(&self) {
        for namespace in ["ipc", "uts"] {
            setup(namespace);
        }
    }

    pub async fn destroy_sandbox(&self, _: DestroySandboxRequest) -> Answer {
        self.destroy();
        done(Ok(()))
    }

    #[instrument]
    fn destroy(&self) {
        self.sandbox.state().containers.clear();
        self.sandbox.end();
    }

    pub async fn create_container(&self, req: CreateContainerRequest) -> Answer {
        self.do_create_container(&req);
        done(Ok(()))
    }

    #[instrument]
    fn do_create_container(&self, req: &CreateContainerRequest) {
        let spec = req.OCI.clone().unwrap_or_default();
        let cid = req.container_id.as_str();
        add_devices(cid, &spec, &self.sandbox);
        add_storages(Some(cid), &self.sandbox);
        let rootfs = format!("/run/kata-containers/shared/containers/{cid}/rootfs");
        baremount(
            &rootfs,
            &format!("/run/kata-containers/{cid}/rootfs"),
            "bind",
            "MsFlags(MS_BIND)",
            "",
        );
        self.sandbox.add_container(cid, spec);
        if let Ok(c) = self.sandbox.state().container(cid) {
            update_shared_pidns(c);
        }
    }

    pub async fn start_container(&self, req: StartContainerRequest) -> Answer {
        done(self.do_start_container(&req))
    }

    #[instrument]
    fn do_start_container(&self, req: &StartContainerRequest) -> Result<(), Refusal> {
        let mut state = self.sandbox.state();
        let of_sandbox = state.id == req.container_id;
        let container = state.container(&req.container_id)?;
        if !of_sandbox {
            run_oom_event_monitor(&container.id);
        }
        Ok(())
    }

    pub async fn remove_container(&self, req: RemoveContainerRequest) -> Answer {
        done(self.do_remove_container(&req))
    }

    #[instrument]
    fn do_remove_container(&self, req: &RemoveContainerRequest) -> Result<(), Refusal> {
        let mut state = self.sandbox.state();
        state.container(&req.container_id)?;
        state.containers.remove(&req.container_id);
        Ok(())
    }

    pub async fn exec_process(&self, req: ExecProcessRequest) -> Answer {
        done(self.do_exec_process(&req))
    }

    #[instrument]
    fn do_exec_process(&self, req: &ExecProcessRequest) -> Result<(), Refusal> {
        let env = req
            .process
            .as_ref()
            .map(|p| p.Env.clone())
            .unwrap_or_default();
        update_env_pci(&req.container_id, &env);
        self.sandbox.add_process(&req.container_id, &req.exec_id)
    }

    pub async fn signal_process(&self, req: SignalProcessRequest) -> Answer {
        done(self.do_signal_process(&req))
    }

    #[instrument]
    fn do_signal_process(&self, req: &SignalProcessRequest) -> Result<(), Refusal> {
        self.sandbox
            .find(&req.container_id, &req.exec_id)?
            .signal(req.signal);
        Ok(())
    }

    pub async fn wait_process(&self, req: WaitProcessRequest) -> Answer {
        let status = self
            .do_wait_process(&req)
            .await
            .map_err(|e| (Code::INTERNAL, e))?;
        message(|out| out.write_int32(1, status))
    }

    #[instrument]
    async fn do_wait_process(&self, req: &WaitProcessRequest) -> Result<i32, Refusal> {
        let process = self.sandbox.find(&req.container_id, &req.exec_id)?;
        Ok(process.wait().await)
    }

    pub async fn stats_container(&self, req: StatsContainerRequest) -> Answer {
        done(
            self.sandbox
                .state()
                .container(&req.container_id)
                .map(|_| ()),
        )
    }

    pub async fn write_stdin(&self, req: WriteStreamRequest) -> Answer {
        let process = self.sandbox.find(&req.container_id, &req.exec_id);
        process.map_err(|e| (Code::INTERNAL, e))?.input(&req.data);
        message(|out| out.write_uint32(1, req.data.len() as u32))
    }

    pub async fn read_stdout(&self, req: ReadStreamRequest) -> Answer {
        let process = self.sandbox.find(&req.container_id, &req.exec_id);
        let process = process.map_err(|e| (Code::INTERNAL, e))?;
        match process.read(MAX_READ.min(req.len as usize)).await {
            piece if piece.is_empty() => Err((Code::INVALID_ARGUMENT, "read meet eof".into())),
            piece => message(|out| out.write_bytes(1, &piece)),
        }
    }

    /// Empty, and at its end when the process exits.
    pub async fn read_stderr(&self, req: ReadStreamRequest) -> Answer {
        let process = self.sandbox.find(&req.container_id, &req.exec_id);
        process.map_err(|e| (Code::INTERNAL, e))?.wait().await;
        Err((Code::INVALID_ARGUMENT, "read meet eof".into()))
    }

    /// There never is one.
    pub async fn get_oom_event(&self, _: OtherRequest) -> Answer {
        self.sandbox.ended().await;
        Err((Code::INTERNAL, "the sandbox has ended".into()))
    }

    pub async fn get_guest_details(&self, _: GuestDetailsRequest) -> Answer {
        let agent = message(|out| out.write_string(1, VERSION))?;
        message(|out| {
            out.write_uint64(1, 128 << 20)?;
            out.write_bytes(2, &agent)
        })
    }

    pub async fn get_metrics(&self, _: OtherRequest) -> Answer {
        message(|out| {
            out.write_string(
                1,
                "# HELP kata_agent_io_stat Agent process IO statistics.\n",
            )
        })
    }

    pub async fn check(&self, _: OtherRequest) -> Answer {
        message(|out| out.write_enum(1, 1)) // SERVING
    }

    pub async fn version(&self, _: OtherRequest) -> Answer {
        message(|out| {
            out.write_string(1, "0.0.1")?;
            out.write_string(2, VERSION)
        })
    }
}

const VERSION: &str = "4.1.0";

#[instrument]
fn add_devices(cid: &str, spec: &Spec, sandbox: &Sandbox) {
    let env = spec
        .Process
        .as_ref()
        .map(|p| p.Env.clone())
        .unwrap_or_default();
    update_env_pci(cid, &env);
}

#[instrument]
fn update_env_pci(cid: &str, env: &Environment) {}

#[instrument]
fn add_storages(cid: Option<&str>, sandbox: &Sandbox) {
    if cid.is_none() {
        baremount(
            "shm",
            "/run/kata-containers/sandbox/shm",
            "tmpfs",
            "MsFlags(0x0)",
            "",
        );
    }
}

#[instrument]
fn update_shared_pidns(c: &Container) {}

#[instrument]
fn run_oom_event_monitor(container_id: &str) {}

/// A namespace is made on a thread of its own, so the spans in it are roots.
#[instrument]
fn setup(ns_type: &'static str) {
    let made = thread::spawn(move || {
        let path = get_current_thread_ns_path(ns_type);
        baremount(
            &path,
            &format!("/var/run/sandbox-ns/{ns_type}"),
            "none",
            "MsFlags(MS_BIND | MS_REC)",
            "",
        );
    });
    made.join().expect("no panic");
}

#[instrument]
fn get_current_thread_ns_path(ns_type: &str) -> String {
    format!("/proc/1/task/107/ns/{ns_type}")
}

/// Waits for virtiofsd, as a mount does.
fn mount_shared(time: Duration) {
    mounted(
        "kataShared",
        "/run/kata-containers/shared/containers/",
        "virtiofs",
        "MsFlags(0x0)",
        "",
        || thread::sleep(time),
    );
}

fn baremount(source: &str, destination: &str, fs_type: &str, flags: &str, options: &str) {
    mounted(source, destination, fs_type, flags, options, || {});
}

fn mounted(
    source: &str,
    destination: &str,
    fs_type: &str,
    flags: &str,
    options: &str,
    wait: impl FnOnce(),
) {
    // The agent prints paths in quotes and flags without.
    info_span!("baremount", source = ?source, destination = ?destination, fs_type, flags, options)
        .in_scope(wait);
}
