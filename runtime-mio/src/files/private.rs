//! Files that only their owner may read or write.
//!
//! Owns the rules for opening (security A3) and making (A2) them; refuses to know what is in them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
use rustix::fs::RenameFlags;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::FileError;

const STICKY: u32 = 0o1000;

/// A verified private directory, kept open: what happens to its name later does not matter.
#[derive(Debug, Clone)]
pub(crate) struct PrivateDir {
    path: PathBuf,
    fd: Arc<OwnedFd>,
}

impl PrivateDir {
    /// Makes the directory, and parents that are missing, with mode 0700; then as [`Self::open`].
    pub(crate) fn open_or_make(path: &Path) -> Result<Self, FileError> {
        let path = std::path::absolute(path).map_err(FileError::failed("find", path))?;
        // Only below parents that are safe already: no file of ours is made where others can move it.
        let is_missing = |path: &&Path| path.symlink_metadata().is_err();
        let first_made = path.ancestors().take_while(is_missing).last();
        check_parents(first_made.unwrap_or(&path))?;
        let make = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        make.map_err(FileError::failed("make the directory", &path))?;
        Self::open(&path)
    }

    /// Opens the directory: it is its owner's alone, and nobody else can exchange it or a parent.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let given = std::path::absolute(path).map_err(FileError::failed("find", path))?;
        // The path as given says who can lead us elsewhere; the real one, who can exchange what we found.
        check_parents(&given)?;
        let path = given.canonicalize().map_err(FileError::failed("find", &given))?;
        check_parents(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|error| FileError::failed("open", &path)(error.into()))?;
        let file = File::from(fd);
        let found = file.metadata().map_err(FileError::failed("look at", &path))?;
        check_owner(&path, &found)?;
        check_mode(&path, &found, "700")?;
        Ok(Self { path, fd: Arc::new(file.into()) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn metadata(&self) -> io::Result<fs::Metadata> {
        File::from(self.fd.try_clone()?).metadata()
    }

    /// Opens a file that must be private; `None` if there is none. `NONBLOCK` keeps a planted FIFO from holding us.
    pub(crate) fn open_file(&self, name: &str, access: OFlags) -> Result<Option<File>, FileError> {
        open_checked(&*self.fd, Path::new(name), &self.path.join(name), access)
    }

    /// As [`Self::open_file`] for reading and writing; makes an empty file if there is none.
    pub(crate) fn open_or_make_file(&self, name: &str, access: OFlags) -> Result<File, FileError> {
        // Two steps, because a plain O_CREAT would also open what somebody put there in between.
        loop {
            if let Some(file) = self.open_file(name, access)? {
                return Ok(file);
            }
            match self.make(name, access) {
                Ok(file) => {
                    self.sync()?;
                    return Ok(file);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(FileError::failed("make", &self.path.join(name))(error)),
            }
        }
    }

    /// All of a private file; `None` if there is none.
    pub(crate) fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, FileError> {
        let Some(file) = self.open_file(name, OFlags::RDONLY)? else { return Ok(None) };
        read_capped(&file, &self.path.join(name), bytes_max).map(Some)
    }

    /// Writes and syncs a new file beside `name`, for [`Staged`] to put in its place.
    pub(crate) fn stage(&self, name: &'static str, parts: &[&[u8]]) -> Result<Staged, FileError> {
        let path = self.path.join(name);
        let unique = getrandom::u64()
            .map_err(|error| FileError::failed("find randomness for", &path)(error.into()))?;
        let temp = format!(".{name}.{unique:016x}");
        let mut file =
            self.make(&temp, OFlags::WRONLY).map_err(FileError::failed("make", &path))?;
        let staged = Staged { dir: self.clone(), temp, name };
        let write = parts.iter().try_for_each(|part| file.write_all(part));
        write.and_then(|()| file.sync_all()).map_err(FileError::failed("write", &path))?;
        Ok(staged)
    }

    /// Removes what a crash left of [`Self::stage`]; only for the holder of the directory's lock.
    pub(crate) fn sweep(&self, name: &str) -> Result<(), FileError> {
        let failed = || FileError::failed("clean up", &self.path);
        let prefix = format!(".{name}.");
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let file = entry.map_err(failed())?.file_name();
            if file.to_str().is_some_and(|file| file.starts_with(&prefix)) {
                rustix::fs::unlinkat(&*self.fd, &file, AtFlags::empty())
                    .map_err(|error| failed()(error.into()))?;
            }
        }
        Ok(())
    }

    /// Gives a file another name; what had that name is gone. It lasts once [`Self::sync`] went well.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        rustix::fs::renameat(&*self.fd, from, &*self.fd, to)
            .map_err(|error| FileError::failed("rename", &self.path.join(from))(error.into()))
    }

    /// Makes the directory's own entries survive a loss of power.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        rustix::fs::fsync(&*self.fd)
            .map_err(|error| FileError::failed("sync", &self.path)(error.into()))
    }

    fn make(&self, name: &str, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*self.fd, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }
}

/// A file that is written and synced, and not yet in its place. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Staged {
    dir: PrivateDir,
    temp: String,
    name: &'static str,
}

impl Staged {
    /// Puts it in its place, whatever is there.
    pub(crate) fn replace(self) -> Result<(), FileError> {
        let fd = &*self.dir.fd;
        rustix::fs::renameat(fd, &self.temp, fd, self.name).map_err(|error| {
            FileError::failed("replace", &self.dir.path.join(self.name))(error.into())
        })?;
        self.dir.sync()
    }

    /// Puts it in its place if nothing is there; what is there stays.
    pub(crate) fn create(self) -> Result<(), FileError> {
        match self.take_place() {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                let path = self.dir.path.join(self.name);
                return Err(FileError::failed("make", &path)(error.into()));
            }
        }
        let dir = self.dir.clone();
        drop(self);
        dir.sync()
    }

    /// A rename that does not clobber, since a link would give the file two names for a moment, which a reader must
    /// refuse. Only a file system that cannot do it gets the link.
    fn take_place(&self) -> Result<(), Errno> {
        let fd = &*self.dir.fd;
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        match rustix::fs::renameat_with(fd, &self.temp, fd, self.name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return done,
        }
        rustix::fs::linkat(fd, &self.temp, fd, self.name, AtFlags::empty())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = rustix::fs::unlinkat(&*self.dir.fd, &self.temp, AtFlags::empty());
    }
}

/// Reads a private file anywhere; `None` if there is none.
pub(super) fn read(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, FileError> {
    let path = std::path::absolute(path).map_err(FileError::failed("find", path))?;
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    check_parents(&path)?;
    let Some(file) = open_checked(rustix::fs::CWD, &path, &path, OFlags::RDONLY)? else {
        return Ok(None);
    };
    read_capped(&file, &path, bytes_max).map(Some)
}

/// Nobody but the owner and root can exchange `path`: that is, rename or relink any directory above it.
pub(crate) fn check_parents(path: &Path) -> Result<(), FileError> {
    for parent in path.ancestors().skip(1) {
        let found = fs::symlink_metadata(parent).map_err(FileError::failed("look at", parent))?;
        check_owner_or_root(parent, &found)?;
        // The permission bits of a symbolic link mean nothing; its owner does. In a sticky directory nobody moves what
        // belongs to others, and all on our way belongs to us or root.
        let others_write = found.mode() & 0o022 != 0 && found.mode() & STICKY == 0;
        if others_write && !found.is_symlink() {
            let mode = found.mode() & 0o7777;
            let reason = format!("others can write in it (mode {mode:04o})");
            return Err(FileError::refused(
                parent,
                reason,
                format!("chmod go-w {}", quoted(parent)),
            ));
        }
    }
    Ok(())
}

fn open_checked(
    dir: impl AsFd,
    name: &Path,
    path: &Path,
    access: OFlags,
) -> Result<Option<File>, FileError> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let remove = || format!("rm {}", quoted(path));
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::MLINK) => {
            return Err(FileError::refused(path, "it is a symbolic link", remove()));
        }
        // A FIFO without a reader, or a socket.
        Err(Errno::NXIO) => {
            return Err(FileError::refused(path, "it is not a regular file", remove()));
        }
        Err(error) => return Err(FileError::failed("open", path)(error.into())),
    };
    let found = file.metadata().map_err(FileError::failed("look at", path))?;
    if !found.is_file() {
        return Err(FileError::refused(path, "it is not a regular file", remove()));
    }
    check_owner(path, &found)?;
    check_mode(path, &found, "600")?;
    if found.nlink() != 1 {
        let reason = format!("it has {} names (hard links)", found.nlink());
        return Err(FileError::refused(path, reason, remove()));
    }
    Ok(Some(file))
}

fn read_capped(file: &File, path: &Path, bytes_max: usize) -> Result<Vec<u8>, FileError> {
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(FileError::failed("read", path))?;
    if bytes.len() > bytes_max {
        let reason = format!("it is longer than {bytes_max} bytes");
        return Err(FileError::refused(path, reason, format!("rm {}", quoted(path))));
    }
    Ok(bytes)
}

fn check_owner(path: &Path, found: &fs::Metadata) -> Result<(), FileError> {
    if found.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(owned_by_another(path, found))
}

fn check_owner_or_root(path: &Path, found: &fs::Metadata) -> Result<(), FileError> {
    if found.uid() == 0 { Ok(()) } else { check_owner(path, found) }
}

fn owned_by_another(path: &Path, found: &fs::Metadata) -> FileError {
    let reason = format!("it belongs to another user (uid {})", found.uid());
    FileError::refused(path, reason, format!("sudo chown \"$(id -u)\" {}", quoted(path)))
}

fn check_mode(path: &Path, found: &fs::Metadata, wanted: &str) -> Result<(), FileError> {
    let mode = found.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let reason = format!("others may use it (mode {mode:04o})");
    Err(FileError::refused(path, reason, format!("chmod {wanted} {}", quoted(path))))
}

/// A path as a shell reads it back.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
