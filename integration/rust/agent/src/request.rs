//! Requests: the messages of Kata's agent.proto and oci.proto that are printed or
//! acted upon, with their field numbers. Their debug prints are those of the
//! agent's generated code, down to `special_fields`; fields that are not listed
//! here are not printed.

use protobuf::well_known_types::empty::Empty;
use protobuf::{Message, MessageField, SpecialFields, UnknownFields, UnknownValueRef};

/// A value that some fields of a message make up; the last one wins where there
/// can be one only, as protobuf has it.
pub trait Field: Default {
    fn merge(&mut self, value: UnknownValueRef);
}

impl Field for String {
    fn merge(&mut self, value: UnknownValueRef) {
        if let UnknownValueRef::LengthDelimited(bytes) = value {
            *self = String::from_utf8_lossy(bytes).into_owned();
        }
    }
}

impl Field for Vec<u8> {
    fn merge(&mut self, value: UnknownValueRef) {
        if let UnknownValueRef::LengthDelimited(bytes) = value {
            *self = bytes.to_vec();
        }
    }
}

macro_rules! varint {
    ($($type:ty: $from:expr),* $(,)?) => {$(
        impl Field for $type {
            fn merge(&mut self, value: UnknownValueRef) {
                if let UnknownValueRef::Varint(n) = value {
                    *self = $from(n);
                }
            }
        }
    )*};
}
varint!(u32: |n| n as u32, u64: |n| n, i32: |n| n as i32, i64: |n| n as i64, bool: |n| n != 0);

impl Field for Vec<String> {
    fn merge(&mut self, value: UnknownValueRef) {
        let mut one = String::new();
        one.merge(value);
        self.push(one);
    }
}

/// Decodes the bytes of a message. Bytes that are no protobuf give an empty one:
/// the agent's peer is a test.
pub trait Decode: Default {
    fn set(&mut self, fields: &UnknownFields);

    fn decode(bytes: &[u8]) -> Self {
        // A message without fields keeps all it is given.
        let all = Empty::parse_from_bytes(bytes).unwrap_or_default();
        let mut message = Self::default();
        message.set(all.special_fields.unknown_fields());
        message
    }
}

impl<T: Decode> Field for MessageField<T> {
    fn merge(&mut self, value: UnknownValueRef) {
        if let UnknownValueRef::LengthDelimited(bytes) = value {
            *self = MessageField::some(T::decode(bytes));
        }
    }
}

/// Declares messages: `number name: type` for each field.
macro_rules! messages {
    ($($message:ident { $($number:literal $field:ident: $type:ty),* $(,)? })*) => {$(
        #[allow(non_snake_case, dead_code)]
        #[derive(Clone, Debug, Default)]
        pub struct $message {
            $(pub $field: $type,)*
            pub special_fields: SpecialFields,
        }

        impl Decode for $message {
            #[allow(unused_variables)]
            fn set(&mut self, fields: &UnknownFields) {
                for (number, value) in fields.iter() {
                    match number {
                        $($number => self.$field.merge(value),)*
                        _ => {}
                    }
                }
            }
        }
    )*};
}

messages! {
    CreateSandboxRequest { 1 hostname: String, 2 dns: Vec<String>, 4 sandbox_pidns: bool, 5 sandbox_id: String, 6 guest_hook_path: String }
    DestroySandboxRequest {}
    CreateContainerRequest { 1 container_id: String, 2 exec_id: String, 6 OCI: MessageField<Spec>, 7 sandbox_pidns: bool }
    StartContainerRequest { 1 container_id: String }
    RemoveContainerRequest { 1 container_id: String, 2 timeout: u32 }
    ExecProcessRequest { 1 container_id: String, 2 exec_id: String, 4 process: MessageField<Process> }
    SignalProcessRequest { 1 container_id: String, 2 exec_id: String, 3 signal: u32 }
    WaitProcessRequest { 1 container_id: String, 2 exec_id: String }
    UpdateContainerRequest { 1 container_id: String }
    StatsContainerRequest { 1 container_id: String }
    PauseContainerRequest { 1 container_id: String }
    ResumeContainerRequest { 1 container_id: String }
    WriteStreamRequest { 1 container_id: String, 2 exec_id: String, 3 data: Vec<u8> }
    ReadStreamRequest { 1 container_id: String, 2 exec_id: String, 3 len: u32 }
    CloseStdinRequest { 1 container_id: String, 2 exec_id: String }
    TtyWinResizeRequest { 1 container_id: String, 2 exec_id: String, 3 row: u32, 4 column: u32 }
    UpdateInterfaceRequest { 1 interface: MessageField<Interface> }
    Interface { 1 device: String, 2 name: String, 4 mtu: u64, 5 hwAddr: String }
    GuestDetailsRequest { 1 mem_block_size: bool, 2 mem_hotplug_probe: bool }
    CopyFileRequest { 1 path: String, 2 file_size: i64, 3 file_mode: u32, 4 dir_mode: u32, 5 uid: i32, 6 gid: i32, 7 offset: i64 }
    OnlineCPUMemRequest { 1 wait: bool, 2 nb_cpus: u32, 3 cpu_only: bool }
    SetGuestDateTimeRequest { 1 Sec: i64, 2 Usec: i64 }
    OtherRequest {}

    Spec { 1 Version: String, 2 Process: MessageField<Process>, 3 Root: MessageField<Root>, 4 Hostname: String, 5 Mounts: Vec<Mount> }
    Process { 1 Terminal: bool, 3 User: MessageField<User>, 4 Args: Vec<String>, 5 Env: Environment, 6 Cwd: String, 9 NoNewPrivileges: bool, 10 ApparmorProfile: String, 11 OOMScoreAdj: i64, 12 SelinuxLabel: String }
    User { 1 UID: u32, 2 GID: u32, 4 Username: String }
    Root { 1 Path: String, 2 Readonly: bool }
    Mount { 1 destination: String, 2 source: String, 3 type_: String, 4 options: Vec<String> }
}

impl Field for Vec<Mount> {
    fn merge(&mut self, value: UnknownValueRef) {
        if let UnknownValueRef::LengthDelimited(bytes) = value {
            self.push(Mount::decode(bytes));
        }
    }
}

/// A process's environment, with a secret at its end.
#[derive(Clone)]
pub struct Environment(Vec<String>);

const SECRET: &str = "SECRET=hunter2";

impl Default for Environment {
    fn default() -> Self {
        Environment(vec![SECRET.into()])
    }
}

impl Field for Environment {
    fn merge(&mut self, value: UnknownValueRef) {
        let mut one = String::new();
        one.merge(value);
        self.0.insert(self.0.len() - 1, one);
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
