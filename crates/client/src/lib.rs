//! A typed client of E2B's sandbox protocol.
//!
//! The same [`Client`] speaks to E2B's cloud or to `sandhold serve` over HTTP ([`Client::http`]), and to an engine in this
//! process through any tower service that answers the same requests ([`Client::in_process`]).
#![forbid(unsafe_code)]

mod answer;
mod client;
mod commands;
mod envd;
mod error;
mod files;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod limits;
mod sandbox;
mod services;
pub mod transport;

pub use client::{
    Back, BuildEvent, BuildStep, Client, CreateOptions, ListPage, ListQuery, SnapshotPage, SnapshotQuery, StepFiles,
    TemplateBuilding, TemplateSource, TemplateSpec,
};
pub use commands::{
    AttachedJob, CommandEvent, CommandRequest, CommandSelector, Commands, ExitStatus, JobSummary, Process,
    ProcessSummary, PtySize, SignalKind, job_tag,
};
pub use error::Error;
pub use files::{
    ArchiveEvent, ArchiveReport, ArchiveWork, Entry, EntryType, Files, PathList, ReadOptions, SearchMatch, SearchMode,
    SearchQuery, SearchResult, UnzipRequest, Watch, WatchEvent, WatchKind, WriteOptions, ZipRequest,
};
pub use sandbox::Sandbox;
pub use sandhold_wire::caps::{Cap, Caps, shown as shown_cap};
pub use sandhold_wire::procfs::{ProcessList, ProcessRow, Signal};
pub use sandhold_wire::rest::{
    BlockedConnection, ChangeKind, Checkpoint, EnvdMetrics, FileChange, FileKind, Isolation, LimitsReport,
    ListedSandbox, Network, NetworkState, SandboxChanges, SandboxDetail, SandboxMetric, SnapshotInfo, State,
    UpdateNetwork,
};
pub use sandhold_wire::services::{Busy, FailureKind, Listener, Ports, ProbeAnswer, ProbeFailure, Readiness};
pub use sandhold_wire::templates::{
    AssignedTemplateTags, BuildLogEntry, BuildReason, Template, TemplateAlias, TemplateBuild, TemplateBuildInfo,
    TemplateBuildStatus, TemplateRequested, TemplateSetup, TemplateTag, TemplateWithBuilds,
};
pub use services::{HttpRequest, ReadyQuery, Services};
pub use transport::HttpConfig;
