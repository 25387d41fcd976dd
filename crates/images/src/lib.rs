//! Where images come from, and what is in them. Nothing is unpacked here.
//!
//! A [`Source`] is what a person writes: an image of a registry (`debian:12`), a folder or an archive (`oci:`,
//! `oci-archive:`, `docker-archive:`, a path). [`Images::open`] finds the [`Image`] for a [`Platform`]: how it wants to be
//! run, and its layers. [`Images::fetch`] writes one layer, which is compressed as [`LayerBlob::compression`] says, to a
//! file, and holds it against its digest. [`debian`] makes an image of one layer with the program mmdebstrap.
//!
//! [`dockerfile`] turns a Dockerfile into the steps of a template build, and [`context`] packs the files that its `COPY`
//! names: both as E2B's SDKs do.
//!
//! Everything that a registry or an archive says is untrusted. Documents have a largest size, layers have the size and the
//! SHA-256 that their manifest says, and no name out of an archive is used as a path. The crate reads no environment.
#![forbid(unsafe_code)]

pub mod context;
mod credentials;
#[cfg(unix)]
pub mod debian;
mod digest;
pub mod dockerfile;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz;
mod ignore;
mod image;
mod images;
mod layout;
pub mod limits;
mod manifest;
mod pattern;
mod reach;
mod reference;
mod registry;
mod source;

pub use credentials::{Credentials, DockerConfig, Secret};
pub use digest::Digest;
pub use error::ImageError;
pub use ignore::{Ignore, IgnoreError};
pub use image::{Config, Image, LayerBlob, Platform};
pub use images::{Images, Progress, Report, Settings};
pub use reach::{OutOfReach, Reach};
pub use reference::{Reference, ReferenceError};
pub use source::Source;
