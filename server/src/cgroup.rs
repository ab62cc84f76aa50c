//! Where the limits of this process's cgroups stand.
//!
//! Knows: versions 1 and 2, and that a group is bound by those above it. Must not know: which limits
//! there are, or what follows from them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The directories of the groups that bind this process in one controller, its own first.
pub fn directories(controller: &str) -> Vec<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    directories_in(Path::new("/sys/fs/cgroup"), &groups, controller)
}

/// `groups` is `/proc/self/cgroup`: lines of `0::/path` (v2) or `4:cpu,cpuacct:/path` (v1). In a
/// container the path may be one of the host's that is not to be seen here; then the mount's root is
/// the group.
pub fn directories_in(mount: &Path, groups: &str, controller: &str) -> Vec<PathBuf> {
    let bound = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':');
        let fields = (fields.next(), fields.next(), fields.next());
        let (roots, path): (Vec<&str>, _) = match fields {
            (Some("0"), Some(""), Some(path)) => (vec!["", "unified"], path),
            // Controllers that are mounted together have a directory named after all of them.
            (_, Some(listed), Some(path)) if listed.split(',').any(|name| name == controller) => {
                let mut roots = vec![controller];
                if controller == "cpu" {
                    roots.push("cpu,cpuacct");
                }
                (roots, path)
            }
            _ => (Vec::new(), ""),
        };
        roots.into_iter().flat_map(move |root| up(&mount.join(root), path))
    });
    bound.collect()
}

fn up(root: &Path, path: &str) -> Vec<PathBuf> {
    let here = root.join(path.trim_start_matches('/'));
    here.ancestors().take_while(|group| group.starts_with(root)).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(groups: &str, controller: &str) -> Vec<String> {
        let mount = Path::new("/m");
        let found = directories_in(mount, groups, controller);
        found.iter().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_group_is_bound_by_those_above_it() {
        assert_eq!(
            names("0::/a/b\n", "memory"),
            ["/m/a/b", "/m/a", "/m", "/m/unified/a/b", "/m/unified/a", "/m/unified"]
        );
    }

    #[test]
    fn of_version_1_the_controller_counts() {
        let groups = "9:memory:/box\n4:cpu,cpuacct:/\n";
        assert_eq!(names(groups, "memory"), ["/m/memory/box", "/m/memory"]);
        assert_eq!(names(groups, "cpu"), ["/m/cpu/", "/m/cpu,cpuacct/"]);
        assert!(names(groups, "pids").is_empty() && names("rubbish\n\n1:\n", "cpu").is_empty());
    }
}
