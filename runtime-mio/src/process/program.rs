//! Programs that may be run, and what they get to see.
//!
//! Owns the search for a program, the rules it must meet (security I2) and the environment it gets (I3); refuses to know
//! what programs there are.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clawd_protocol::{Env, Program, ProgramFault};

use crate::files::check_parents;

/// The program's canonical path, if it may be trusted: the owner's path if there is one, else the first in `PATH`, or what
/// is behind that.
pub(crate) fn find(program: &Program) -> Result<PathBuf, ProgramFault> {
    let found = named(program)?;
    let directory = found.parent().unwrap_or(Path::new("/"));
    let behind = program.behind.iter().find_map(|path| check(&directory.join(path), None).ok());
    Ok(behind.unwrap_or(found))
}

fn named(program: &Program) -> Result<PathBuf, ProgramFault> {
    if let Some(path) = &program.path {
        let path = Path::new(path);
        if !path.is_absolute() {
            let text = format!("{} is not an absolute path", path.display());
            return Err(ProgramFault::Unsafe(text));
        }
        return check(path, None);
    }
    let directories = absolute_path(env::var_os("PATH").unwrap_or_default());
    let is_program = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    };
    // The first one counts, as for a shell: passing over one that is unsafe would hide it.
    let found = directories.iter().map(|directory| directory.join(program.name)).find(is_program);
    check(&found.ok_or(ProgramFault::Missing)?, None)
}

/// Follows all links and looks whether anybody but the owner and root can change what is run, and that it is not part
/// of the repository that it is to work in.
pub(crate) fn check(path: &Path, repository: Option<&Path>) -> Result<PathBuf, ProgramFault> {
    let real = path.canonicalize().map_err(|_| ProgramFault::Missing)?;
    let found = fs::metadata(&real).map_err(|_| ProgramFault::Missing)?;
    let refuse = |rule: &str| Err(ProgramFault::Unsafe(format!("{} {rule}", real.display())));
    if !found.is_file() {
        return refuse("is not a regular file");
    }
    if found.mode() & 0o111 == 0 {
        return refuse("is not executable");
    }
    if !is_ours(&found) {
        return refuse("belongs to another user");
    }
    if found.mode() & 0o022 != 0 {
        return refuse("can be changed by others; type: chmod go-w on it");
    }
    // Its own directory gets no exception for the sticky bit: others could put files beside it that it loads.
    let directory = real.parent().unwrap_or(Path::new("/"));
    let beside = fs::metadata(directory).map_err(|_| ProgramFault::Missing)?;
    if !is_ours(&beside) || beside.mode() & 0o022 != 0 {
        return refuse("lies in a directory that others can change; type: chmod go-w on that");
    }
    check_parents(&real).map_err(|error| ProgramFault::Unsafe(error.to_string()))?;
    let repository = repository.and_then(|repository| repository.canonicalize().ok());
    if repository.is_some_and(|repository| real.starts_with(repository)) && !is_this(&real) {
        return refuse("lies in the repository that it would work in");
    }
    Ok(real)
}

/// The program that runs here already; one that was put in its place since is another one. The demo is a part of it, and
/// whoever builds clawd has it in the repository.
fn is_this(real: &Path) -> bool {
    env::current_exe().and_then(|own| own.canonicalize()).is_ok_and(|own| own == real)
}

fn is_ours(found: &fs::Metadata) -> bool {
    found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw()
}

/// The whole environment of a child: what is named, and no more. `PATH` keeps its absolute entries only, so that
/// nothing is ever found in the working directory.
pub(crate) fn environment(env: &Env) -> Vec<(OsString, OsString)> {
    let inherited = env.inherit.iter().filter_map(|name| {
        let value = env::var_os(name)?;
        let value = match *name {
            "PATH" => env::join_paths(absolute_path(value)).ok()?,
            _ => value,
        };
        Some((OsString::from(name), value))
    });
    let set = env.set.iter().map(|(name, value)| (name.into(), value.expose().into()));
    inherited.chain(set).collect()
}

fn absolute_path(path: OsString) -> Vec<PathBuf> {
    env::split_paths(&path).filter(|entry| entry.is_absolute()).collect()
}
