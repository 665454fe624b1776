//! What the supervisor opens by name while it runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::Config;

/// Read at start by the resolver.
const RESOLVER: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// Deepest a policy file lies below its folder.
const POLICY_DEPTH: usize = 2;

/// What the supervisor opens by name while it runs; what is not there any more is no error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// Folders where it makes, changes and removes files.
    pub writable: BTreeSet<PathBuf>,
    /// Folders in which it reads files. Folders, not files: who edits a file mostly replaces it.
    pub readable: BTreeSet<PathBuf>,
    /// Files that it reads.
    pub files: BTreeSet<PathBuf>,
    /// Folders from which it removes a file.
    pub removable: BTreeSet<PathBuf>,
}

impl Paths {
    /// Those of a configuration. Looks at the file system: a policy or configuration file behind a
    /// symbolic link is followed to where it leads now.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut paths = Self::default();
        paths.writable.insert(config.state.clone());
        paths.removable.extend(config.listen.admin_socket.parent().map(Path::to_owned));
        // Read again on SIGHUP.
        paths.readable_file(&config.path);
        if let Some(folder) = &config.egress.policy_dir {
            paths.readable.insert(folder.clone());
            paths.behind_links(folder, POLICY_DEPTH);
        }
        paths.files.extend(config.egress.extra_ca.clone());
        paths.files.extend(RESOLVER.map(PathBuf::from));
        paths
    }

    /// The folder of a file, and that of what it is a link to.
    fn readable_file(&mut self, file: &Path) {
        let real = file.canonicalize();
        for file in std::iter::once(file).chain(real.as_deref().ok()) {
            self.readable.extend(file.parent().map(Path::to_owned));
        }
    }

    /// Where symbolic links below `folder` lead.
    fn behind_links(&mut self, folder: &Path, depth: usize) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_symlink()
                && let Ok(real) = path.canonicalize()
            {
                if real.is_dir() {
                    self.readable.insert(real);
                } else {
                    self.readable_file(&path);
                }
            } else if kind.is_dir() && depth > 1 {
                self.behind_links(&path, depth - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_to_where_they_lead() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        for name in ["etc/egress/production", "managed", "whole"] {
            std::fs::create_dir_all(top.join(name)).unwrap();
        }
        std::fs::write(top.join("managed/a.toml"), "").unwrap();
        std::fs::write(top.join("managed/cloister.toml"), "").unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(top.join(to), top.join(at)).unwrap();
        link("managed/a.toml", "etc/egress/production/a.toml");
        link("whole", "etc/egress/other");
        link("managed/cloister.toml", "etc/cloister.toml");
        let text =
            "state = \"state\"\n[egress]\npolicy_dir = \"egress\"\n[listen]\nadmin_socket = \"run/s\"\n";
        let config = Config::parse(&top.join("etc/cloister.toml"), text).unwrap();
        let paths = Paths::of(&config);
        let folders = ["etc", "etc/egress", "etc/egress/production", "managed", "whole"];
        assert_eq!(paths.readable, folders.map(|name| top.join(name)).into());
        assert_eq!(paths.writable, [top.join("etc/state")].into());
        assert_eq!(paths.removable, [top.join("etc/run")].into());
    }
}
