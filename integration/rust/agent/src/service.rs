//! The RPCs by their names on the wire, grpc.AgentService and grpc.Health of
//! Kata's agent.proto and health.proto, and the span that goes with each.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::{info_span, Instrument, Span};
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};
use ttrpc::{get_status, Code, Request, Response};

use crate::request::*;
use crate::rpc::{Agent, Answer};

/// One RPC of the agent.
struct Rpc {
    agent: Arc<Agent>,
    method: &'static str,
}

/// Declares the RPCs: `Method(Request) => function "span"`. Those without a
/// function answer an empty message; the agent traces those with a span's name.
macro_rules! rpcs {
    ($($service:literal {
        $($method:ident($request:ident) $(=> $function:ident)? $(as $span:literal)?;)*
    })*) => {
        const SERVICES: &[(&str, &[&str])] = &[$(($service, &[$(stringify!($method)),*])),*];

        impl Rpc {
            async fn call(&self, ctx: &TtrpcContext, payload: &[u8]) -> Answer {
                match self.method {
                    $($(stringify!($method) => {
                        let req = $request::decode(payload);
                        #[allow(unused_mut, unused_assignments)]
                        let mut span = Span::none();
                        $(span = info_span!($span, "mod" = "rpc.rs", req = ?req);
                        (self.agent.telemetry.set_parent)(&span, &ctx.metadata);)?
                        let work = rpcs!(@work self, req $(, $function)?);
                        traced(span, self.wait(), work).await
                    })*)*
                    other => Err((Code::UNIMPLEMENTED, other.into())),
                }
            }
        }
    };
    (@work $self:ident, $req:ident, $function:ident) => { $self.agent.$function($req) };
    (@work $self:ident, $req:ident) => { async move { drop($req); Answer::Ok(Vec::new()) } };
}

async fn traced(
    span: Span,
    wait: impl Future<Output = ()>,
    work: impl Future<Output = Answer>,
) -> Answer {
    async {
        wait.await;
        work.await
    }
    .instrument(span)
    .await
}

impl Rpc {
    /// Takes as long as the method is told to.
    async fn wait(&self) {
        if let Some(time) = self.agent.slow.get(self.method) {
            crate::log(&format!("{} takes {time:?}", self.method));
            tokio::time::sleep(*time).await;
        }
    }
}

rpcs! {
    "grpc.AgentService" {
        CreateSandbox(CreateSandboxRequest) => create_sandbox as "create_sandbox";
        DestroySandbox(DestroySandboxRequest) => destroy_sandbox as "destroy_sandbox";
        CreateContainer(CreateContainerRequest) => create_container as "create_container";
        StartContainer(StartContainerRequest) => start_container as "start_container";
        RemoveContainer(RemoveContainerRequest) => remove_container as "remove_container";
        ExecProcess(ExecProcessRequest) => exec_process as "exec_process";
        SignalProcess(SignalProcessRequest) => signal_process as "signal_process";
        WaitProcess(WaitProcessRequest) => wait_process as "wait_process";
        UpdateContainer(UpdateContainerRequest) as "update_container";
        StatsContainer(StatsContainerRequest) => stats_container as "stats_container";
        PauseContainer(PauseContainerRequest) as "pause_container";
        ResumeContainer(ResumeContainerRequest) as "resume_container";
        RemoveStaleVirtiofsShareMounts(OtherRequest) as "remove_stale_virtiofs_share_mounts";
        WriteStdin(WriteStreamRequest) => write_stdin;
        ReadStdout(ReadStreamRequest) => read_stdout;
        ReadStderr(ReadStreamRequest) => read_stderr;
        CloseStdin(CloseStdinRequest) as "close_stdin";
        TtyWinResize(TtyWinResizeRequest) as "tty_win_resize";
        UpdateInterface(UpdateInterfaceRequest) as "update_interface";
        UpdateRoutes(OtherRequest) as "update_routes";
        UpdateEphemeralMounts(OtherRequest) as "update_mounts";
        ListInterfaces(OtherRequest) as "list_interfaces";
        ListRoutes(OtherRequest) as "list_routes";
        AddARPNeighbors(OtherRequest) as "add_arp_neighbors";
        GetIPTables(OtherRequest) as "get_iptables";
        SetIPTables(OtherRequest) as "set_iptables";
        GetMetrics(OtherRequest) => get_metrics as "get_metrics";
        OnlineCPUMem(OnlineCPUMemRequest) as "online_cpu_mem";
        ReseedRandomDev(OtherRequest) as "reseed_random_dev";
        GetGuestDetails(GuestDetailsRequest) => get_guest_details as "get_guest_details";
        MemHotplugByProbe(OtherRequest) as "mem_hotplug_by_probe";
        SetGuestDateTime(SetGuestDateTimeRequest) as "set_guest_date_time";
        CopyFile(CopyFileRequest) as "copy_file";
        GetOOMEvent(OtherRequest) => get_oom_event;
        GetVolumeStats(OtherRequest) as "get_volume_stats";
        ResizeVolume(OtherRequest) as "resize_volume";
        AddSwap(OtherRequest) as "add_swap";
        SetPolicy(OtherRequest) as "set_policy";
    }
    "grpc.Health" {
        Check(OtherRequest) => check;
        Version(OtherRequest) => version;
    }
}

#[async_trait]
impl MethodHandler for Rpc {
    async fn handler(&self, ctx: TtrpcContext, req: Request) -> ttrpc::Result<Response> {
        let mut response = Response::new();
        let mut answer = self.call(&ctx, &req.payload).await;
        if self.agent.fail.split(',').any(|m| m == self.method) {
            answer = Err((Code::INTERNAL, format!("{} is told to fail", self.method)));
        }
        match answer {
            Ok(payload) => {
                response.set_status(get_status(Code::OK, ""));
                response.payload = payload;
            }
            Err((code, why)) => response.set_status(get_status(code, why)),
        }
        Ok(response)
    }
}

/// The agent's services, for a ttrpc server.
pub fn services(agent: Agent) -> HashMap<String, Service> {
    let agent = Arc::new(agent);
    let handler = |method: &'static str| -> (String, Box<dyn MethodHandler + Send + Sync>) {
        (
            method.into(),
            Box::new(Rpc {
                agent: agent.clone(),
                method,
            }),
        )
    };
    let service = |methods: &&'static [&'static str]| Service {
        methods: methods.iter().map(|m| handler(m)).collect(),
        streams: HashMap::new(),
    };
    SERVICES
        .iter()
        .map(|(name, methods)| (name.to_string(), service(methods)))
        .collect()
}
