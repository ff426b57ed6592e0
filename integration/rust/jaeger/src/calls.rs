//! Calls, traced as RuntimeHandlerManager and below it trace them.

use opentelemetry::trace::TraceContextExt;
use tracing::{info, instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::tracer::ROOTSPAN;

// What is printed are the fields, by their debug print.
#[allow(dead_code)]
#[derive(Debug, Clone)]
pub enum TaskRequest {
    CreateContainer(ContainerConfig),
    StartProcess(ContainerProcess),
    StatsContainer(ContainerID),
}

#[allow(dead_code)]
#[derive(Debug, Clone)]
pub struct ContainerConfig {
    container_id: String,
    bundle: String,
}

#[derive(Debug, Clone)]
#[allow(dead_code)]
pub struct ContainerID {
    container_id: String,
}

#[allow(dead_code)]
#[derive(Debug, Clone)]
pub struct ContainerProcess {
    container_id: ContainerID,
    exec_id: String,
}

/// One call of the three in turn.
pub async fn make(sandbox: &str, n: usize) {
    let container_id = ContainerID { container_id: sandbox.to_string() };
    let req = match n % 3 {
        0 => TaskRequest::CreateContainer(ContainerConfig {
            container_id: sandbox.to_string(),
            bundle: "/run/bundle".to_string(),
        }),
        1 => TaskRequest::StartProcess(ContainerProcess { container_id, exec_id: format!("exec-{n}") }),
        _ => TaskRequest::StatsContainer(container_id),
    };
    handler_task_message(req).await;
}

#[instrument(parent = &*ROOTSPAN)]
async fn handler_task_message(req: TaskRequest) {
    say("handler_task_message");
    match &req {
        TaskRequest::CreateContainer(config) => {
            create_container(config, "SECRET=hunter2 and all else that is in a specification").await
        }
        _ => handler_task_request(req).await,
    }
}

#[instrument(parent = &*ROOTSPAN)]
async fn handler_task_request(req: TaskRequest) {
    say("handler_task_request");
    start_process(&req).await;
}

#[instrument]
async fn create_container(config: &ContainerConfig, spec: &str) {
    say("create_container");
    info!(stage = "SECRET=hunter2", "a stage");
}

#[instrument(skip_all)]
async fn start_process(_req: &TaskRequest) {
    say("start_process");
    tokio::task::yield_now().await;
}

/// A call to somebody else that fails, told as tracing-opentelemetry wants it.
#[instrument(fields(otel.kind = "client", otel.status_code = "ERROR", otel.status_message = "nobody there"))]
pub async fn fail() {
    say("fail");
}

fn say(name: &str) {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    println!("{} {} {name}", span.trace_id(), span.span_id());
}
