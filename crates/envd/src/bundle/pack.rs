//! A folder into an archive: written beside its place and renamed when it is whole.

use std::fs::{File, OpenOptions};
use std::io::BufWriter;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::deflate::Pool;
use super::targz::TarGz;
use super::walk::{Options, walk};
use super::zip::Zip;
use super::{Format, Report, Work, parent_of};
use crate::filesystem::error::{FsError, Kind};
use crate::filesystem::{ensure_dir, sibling};
use crate::limits::BUNDLE_PIECE;
use crate::users::User;

/// Removed unless it took its place.
struct Beside {
    file: File,
    path: Option<PathBuf>,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The failure before it is the one that is told.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Packs the folder `src` into the archive `dest`, whose name says of which kind it is.
pub(super) fn pack(src: &Path, dest: &Path, leave_out: bool, user: &User, work: &Work) -> Result<Report, FsError> {
    let format = Format::of(dest)?;
    match std::fs::metadata(src) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(FsError::invalid(format!("path '{}' is not a directory", src.display()))),
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Err(FsError::new(
                Kind::NotFound,
                format!("path '{}' does not exist", src.display()),
            ));
        }
        Err(e) => return Err(FsError::io(format!("error opening folder '{}'", src.display()), e)),
    }
    let failed = |e| FsError::io(format!("error writing '{}'", dest.display()), e);
    ensure_dir(&parent_of(dest), user)?;
    let old = std::fs::symlink_metadata(dest).ok();
    if old.as_ref().is_some_and(std::fs::Metadata::is_dir) {
        return Err(FsError::invalid(format!("path is a directory: {}", dest.display())));
    }
    let temporary = sibling(dest);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&temporary)
        .map_err(|e| FsError::io(format!("error creating a file beside '{}'", dest.display()), e))?;
    let mut beside = Beside {
        file,
        path: Some(temporary.clone()),
    };
    let own = beside.file.metadata().map_err(failed)?;
    let options = Options {
        src,
        leave_out,
        not: old.iter().chain([&own]).map(|meta| (meta.dev(), meta.ino())).collect(),
    };
    let mut report = Report {
        path: dest.to_string_lossy().into_owned(),
        ..Report::default()
    };
    let out = BufWriter::with_capacity(BUNDLE_PIECE, &beside.file);
    let shown = dest.display().to_string();
    let out = Pool::run(user, |pool| match format {
        Format::Zip => {
            let mut zip = Zip::new(out, pool, work, shown);
            walk(&options, &mut report, work, &mut zip)?;
            zip.finish(&mut report)
        }
        Format::TarGz => {
            let mut tar = TarGz::new(out, pool, work, shown)?;
            walk(&options, &mut report, work, &mut tar)?;
            tar.finish()
        }
    })?;
    out.into_inner().map_err(|e| failed(e.into_error()))?;
    work.go_on()?;
    report.size = beside.file.metadata().map_err(failed)?.len();
    std::fs::rename(&temporary, dest).map_err(|e| FsError::io(format!("error replacing '{}'", dest.display()), e))?;
    beside.path = None;
    Ok(report)
}
