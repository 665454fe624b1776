//! The programs under test and the programs they run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A program to deploy.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Where it lies.
    pub path: PathBuf,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder")
}

/// Runs a command of the build; only one at a time on this machine.
fn build(command: &mut Command) -> Vec<u8> {
    let lock = File::create(std::env::temp_dir().join("cloister-test-build.lock")).expect("a lock file");
    lock.lock().expect("the build lock");
    let output = command.current_dir(root()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Path of `cloister` or `sandbox-runner`: from the folder in `CLOISTER_TEST_BIN`, else built first.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os("CLOISTER_TEST_BIN") {
            return folder.into();
        }
        let packages = ["-p", "cloister-supervisor", "-p", "cloister-sandbox-runner"];
        build(Command::new(env!("CARGO")).args(["build", "--quiet", "--bins"]).args(packages));
        // target/<profile>/deps/<test> is this program.
        let exe = std::env::current_exe().expect("the path of this program");
        let folder = exe.ancestors().find(|folder| folder.join("cloister").is_file());
        folder.unwrap_or_else(|| panic!("cloister is not beside {}", exe.display())).to_path_buf()
    });
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not there", path.display());
    path
}

/// A tenant of the package `cloister-tenants`, linked statically: from the folder in
/// `CLOISTER_TEST_TENANTS`, else built first.
#[must_use]
pub fn tenant(name: &str) -> Tenant {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| match std::env::var_os("CLOISTER_TEST_TENANTS") {
        Some(folder) => folder.into(),
        None => {
            let said = build(&mut Command::new(root().join("scripts/tenants.sh")));
            PathBuf::from(String::from_utf8(said).expect("a path").trim_end())
        }
    });
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not there", path.display());
    Tenant { path }
}

/// Compiles a C source (path below `tests/tenants`) to a static program, once per content.
#[must_use]
pub fn compile_c(source: &str) -> Tenant {
    compile(source, "", &["-static"])
}

/// As [`compile_c`], linked dynamically.
#[must_use]
pub fn compile_c_dynamic(source: &str) -> Tenant {
    compile(source, "-dynamic", &[])
}

fn compile(source: &str, suffix: &str, flags: &[&str]) -> Tenant {
    let source = root().join("tests/tenants").join(source);
    let folder = root().join("target/tenants/c");
    std::fs::create_dir_all(&folder).expect("a folder for C tenants");
    let stem = source.file_stem().expect("a file name").to_string_lossy();
    let path = folder.join(format!("{stem}{suffix}"));
    let age = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    // Headers lie beside the sources.
    let beside =
        std::fs::read_dir(source.parent().expect("a folder")).expect("the folder of tenants").flatten();
    let headers =
        beside.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "h"));
    let newest = headers.chain([source.clone()]).filter_map(|path| age(&path)).max();
    if age(&path).is_none_or(|built| newest.is_none_or(|written| written >= built)) {
        // To a name of its own first: another test may be about to run the one that is there.
        let fresh = path.with_extension(std::process::id().to_string());
        build(
            Command::new("gcc")
                .args(flags)
                .args(["-O1", "-pthread", "-Wall", "-Werror", "-o"])
                .args([&fresh, &source]),
        );
        std::fs::rename(&fresh, &path).expect("renaming a fresh program");
    }
    Tenant { path }
}

/// A program of this machine's Debian.
impl From<&str> for Tenant {
    fn from(path: &str) -> Self {
        assert!(Path::new(path).is_file(), "{path} is not there: run scripts/setup.sh");
        Self { path: path.into() }
    }
}
