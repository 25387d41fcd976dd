//! The arguments of `sandhold template`.

use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Build a template, here or on the server that the settings name, and follow the build to its end
    Build(Box<BuildArgs>),
    /// List the templates, the newest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a template: its builds, its layers, and what its sandboxes begin with
    Inspect {
        /// Its name or id
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete templates; of NAME:TAG only the tag goes. Sandboxes made of them live on
    Rm {
        /// Names or ids
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Read the layers on this machine and hold each against its name. Exit code 1 if one is damaged or missing
    Verify {
        /// Only those of this template [default: all]
        name: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("source").required(true)))]
pub(crate) struct BuildArgs {
    /// What to call it: NAME or NAME:TAG, of lower-case letters, digits, - and _. A name used again passes to this build
    pub(crate) name: String,
    /// The folder that COPY of the Dockerfile takes files from [default: the folder of the Dockerfile]
    #[arg(requires = "file")]
    pub(crate) context: Option<PathBuf>,
    /// Begin with an image of a registry: debian:12, ghcr.io/owner/image:tag. Who is logged in with `docker login` is here
    #[arg(long, group = "source", value_name = "IMAGE")]
    pub(crate) from_image: Option<String>,
    /// Begin with a template, or with base
    #[arg(long, group = "source", value_name = "TEMPLATE")]
    pub(crate) from_template: Option<String>,
    /// Do what a Dockerfile of one stage says
    #[arg(long, short = 'f', group = "source", value_name = "DOCKERFILE")]
    pub(crate) file: Option<PathBuf>,
    /// Begin with an image in files: a folder in the OCI layout, a tar of one, or what `docker save` writes. Of several
    /// images in it name one: oci:PATH:TAG, oci-archive:PATH:TAG, docker-archive:PATH:NAME
    #[arg(long, group = "source", value_name = "PATH")]
    pub(crate) from_oci: Option<String>,
    /// Begin with a new minimal Debian, which needs the program mmdebstrap [default: this machine's release, or stable]
    #[arg(long, group = "source", value_name = "SUITE", num_args = 0..=1)]
    pub(crate) debian: Option<Option<String>>,
    /// Packages to have in it
    #[arg(long, requires = "debian", value_name = "PACKAGE", value_delimiter = ',')]
    pub(crate) packages: Vec<String>,
    /// A command that runs in every sandbox of it from the start
    #[arg(long, value_name = "COMMAND")]
    pub(crate) start_cmd: Option<String>,
    /// A command that succeeds once the start command is ready
    #[arg(long, value_name = "COMMAND")]
    pub(crate) ready_cmd: Option<String>,
    /// A tag that the build gets; can be given several times [default: default]
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Processors of its sandboxes
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<f64>,
    /// Memory of its sandboxes in MiB
    #[arg(long, value_name = "MIB")]
    pub(crate) memory_mb: Option<u64>,
    /// A value for an ARG of the Dockerfile; can be given several times
    #[arg(long, requires = "file", value_name = "NAME=VALUE")]
    pub(crate) build_arg: Vec<String>,
    /// Do every step again, also those that were done before
    #[arg(long)]
    pub(crate) no_cache: bool,
}
