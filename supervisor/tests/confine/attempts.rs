//! What is tried.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

/// What must come of it behind the walls.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    Works,
    Refused(i32),
    Killed,
}

use Wanted::{Killed, Refused, Works};

/// What was made before the walls, as `cloister serve` makes its sockets.
pub(crate) enum Prepared {
    Nothing,
    Tcp(TcpListener),
    Abstract(UnixListener),
    Opened(File),
}

/// Something that is tried.
pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    pub(crate) wanted: Wanted,
    /// First landlock ABI that refuses it.
    pub(crate) abi: i32,
    /// The walls that are left out, where two stop the same.
    pub(crate) waived: &'static str,
    pub(crate) prepare: fn(&Place) -> Prepared,
    pub(crate) act: fn(&Place, Prepared) -> io::Result<()>,
}

/// The files of an imagined installation.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) config: PathBuf,
}

impl Place {
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), config: folder.join("etc/cloister.toml") }
    }

    pub(crate) fn make(folder: &Path) -> Self {
        let place = Self::at(folder);
        for name in ["etc/egress", "state/binaries", "state/staging", "run", "elsewhere"] {
            fs::create_dir_all(folder.join(name)).expect("a folder");
        }
        let text = "state = \"../state\"\n[listen]\nadmin_socket = \"../run/admin.sock\"\n[egress]\npolicy_dir = \"egress\"\n";
        fs::write(&place.config, text).expect("the configuration");
        for name in ["etc/egress/default.toml", "elsewhere/secret", "run/admin.sock", "state/staging/new"] {
            fs::write(folder.join(name), "version = 1\n").expect("a file");
        }
        place
    }

    /// After an attempt without walls, which may have removed something.
    pub(crate) fn make_again(folder: &Path) -> Self {
        for name in ["etc", "state", "run", "elsewhere"] {
            fs::remove_dir_all(folder.join(name)).expect("removing");
        }
        Self::make(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

const fn attempt(name: &'static str, wanted: Wanted, act: fn(&Place, Prepared) -> io::Result<()>) -> Attempt {
    Attempt { name, wanted, abi: 1, waived: "", prepare: |_| Prepared::Nothing, act }
}

const EACCES: i32 = libc::EACCES;
const EPERM: i32 = libc::EPERM;
const NO_FAMILY: i32 = libc::EAFNOSUPPORT;

fn read(path: impl AsRef<Path>) -> io::Result<()> {
    fs::read(path).map(drop)
}

fn read_some(path: &str) -> io::Result<()> {
    File::open(path)?.read_exact(&mut [0; 8])
}

fn abstract_name() -> SocketAddr {
    SocketAddr::from_abstract_name(format!("cloister-confine-{}", std::process::id())).expect("a name")
}

fn done<T>(result: nix::Result<T>) -> io::Result<()> {
    result.map(drop).map_err(io::Error::from)
}

/// Makes the kernel one without this system call, for this process.
pub(crate) fn take_away(call: libc::c_long) {
    let number = u32::try_from(call).expect("a small number");
    // Load the number; is it this one: ENOSYS; else allow (linux/filter.h).
    let program =
        [(0x20_u16, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x0005_0026), (0x06, 0, 0, 0x7fff_0000_u32)];
    let mut bytes = Vec::new();
    for (code, if_true, if_false, k) in program {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[if_true, if_false]);
        bytes.extend_from_slice(&k.to_ne_bytes());
    }
    cloister_sys::set_no_new_privs().expect("no_new_privs");
    cloister_sys::install_filter(&bytes).expect("a filter");
}

/// The landlock wall alone.
const ONLY_LANDLOCK: &str = "supervisor-seccomp";

pub(crate) const ATTEMPTS: &[Attempt] = &[
    // Files
    attempt("reads_shadow", Refused(EACCES), |_, _| read("/etc/shadow")),
    attempt("reads_passwd", Refused(EACCES), |_, _| read("/etc/passwd")),
    attempt("reads_a_file_elsewhere", Refused(EACCES), |place, _| read(place.file("elsewhere/secret"))),
    attempt("lists_the_root", Refused(EACCES), |_, _| fs::read_dir("/").map(drop)),
    attempt("lists_processes", Refused(EACCES), |_, _| fs::read_dir("/proc").map(drop)),
    attempt("writes_elsewhere", Refused(EACCES), |place, _| fs::write(place.file("elsewhere/new"), "x")),
    attempt("writes_its_configuration", Refused(EACCES), |place, _| {
        OpenOptions::new().append(true).open(&place.config)?.write_all(b"\n")
    }),
    attempt("writes_a_policy", Refused(EACCES), |place, _| {
        fs::write(place.file("etc/egress/default.toml"), "version = 1\n")
    }),
    attempt("writes_to_tmp", Refused(EACCES), |_, _| {
        let path = std::env::temp_dir().join(format!("cloister-confine-{}", std::process::id()));
        fs::write(&path, "x")?;
        fs::remove_file(path)
    }),
    attempt("removes_elsewhere", Refused(EACCES), |place, _| fs::remove_file(place.file("elsewhere/secret"))),
    attempt("moves_out_of_the_state", Refused(EACCES), |place, _| {
        fs::rename(place.file("state/staging/new"), place.file("elsewhere/new"))
    }),
    attempt("opens_a_device", Refused(EACCES), |_, _| read_some("/dev/zero")),
    Attempt {
        waived: ONLY_LANDLOCK,
        ..attempt("makes_a_socket_file", Refused(EACCES), |place, _| {
            UnixListener::bind(place.file("state/sock")).map(drop)
        })
    },
    // ... and their twins
    attempt("reads_its_configuration_again", Works, |place, _| read(&place.config)),
    attempt("reads_and_lists_policies", Works, |place, _| {
        read(place.file("etc/egress/default.toml"))?;
        fs::read_dir(place.file("etc/egress")).map(drop)
    }),
    attempt("publishes_a_binary", Works, |place, _| {
        let staged = place.file("state/staging/b");
        let file = File::create(&staged)?;
        file.set_len(10)?;
        file.sync_all()?;
        fs::set_permissions(&staged, std::os::unix::fs::PermissionsExt::from_mode(0o511))?;
        fs::rename(&staged, place.file("state/binaries/b"))?;
        fs::remove_file(place.file("state/binaries/b"))
    }),
    attempt("removes_the_admin_socket", Works, |place, _| fs::remove_file(place.file("run/admin.sock"))),
    attempt("reads_how_much_memory_a_process_has", Works, |_, _| {
        read(format!("/proc/{}/statm", std::process::id()))
    }),
    attempt("reads_random_bytes", Works, |_, _| read_some("/dev/urandom")),
    // Programs
    attempt("starts_a_process", Killed, |_, _| Command::new("/bin/true").status().map(drop)),
    attempt("forks", Killed, |_, _| Command::new("/bin/true").current_dir("/").status().map(drop)),
    Attempt {
        prepare: |_| Prepared::Opened(File::open("/bin/sh").expect("/bin/sh")),
        ..attempt("executes_what_was_open", Killed, |_, opened| {
            let Prepared::Opened(file) = opened else { panic!("no file") };
            let none: [&CStr; 0] = [];
            let flag = nix::fcntl::AtFlags::AT_EMPTY_PATH;
            let arguments = [c"sh", c"-c", c"exit 42"];
            nix::unistd::execveat(file, c"", &arguments, &none, flag).map(drop).map_err(io::Error::from)
        })
    },
    Attempt {
        waived: ONLY_LANDLOCK,
        ..attempt("executes_a_file", Refused(EACCES), |_, _| {
            // 42 is what a child says whose attempt worked.
            nix::unistd::execv(c"/bin/sh", &[c"sh", c"-c", c"exit 42"]).map(drop).map_err(io::Error::from)
        })
    },
    attempt("makes_a_file_of_memory", Killed, |_, _| {
        done(nix::sys::memfd::memfd_create(c"x", nix::sys::memfd::MFdFlags::empty()))
    }),
    attempt("starts_a_thread", Works, |_, _| {
        let thread = std::thread::Builder::new().name("twin".into()).spawn(|| ())?;
        thread.join().map_err(|_| io::Error::other("it panicked"))
    }),
    // Sockets
    Attempt {
        abi: 4,
        ..attempt("binds_a_tcp_port", Refused(EACCES), |_, _| TcpListener::bind("127.0.0.1:0").map(drop))
    },
    attempt("listens_without_binding", Refused(EPERM), |_, _| {
        // Landlock lets it pass: the kernel binds it by itself.
        let unbound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None)?;
        done(nix::sys::socket::listen(&unbound, nix::sys::socket::Backlog::MAXCONN))
    }),
    Attempt {
        abi: 6,
        waived: ONLY_LANDLOCK,
        prepare: |_| Prepared::Abstract(UnixListener::bind_addr(&abstract_name()).expect("a socket")),
        ..attempt("connects_to_an_abstract_socket", Refused(EPERM), |_, listener| {
            let Prepared::Abstract(_listening) = listener else { panic!("no listener") };
            UnixStream::connect_addr(&abstract_name()).map(drop)
        })
    },
    attempt("makes_a_unix_socket", Refused(NO_FAMILY), |_, _| {
        done(socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None))
    }),
    attempt("makes_a_raw_socket", Refused(NO_FAMILY), |_, _| {
        done(socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Icmp))
    }),
    attempt("makes_a_packet_socket", Refused(NO_FAMILY), |_, _| {
        done(socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None))
    }),
    Attempt {
        prepare: |_| Prepared::Tcp(TcpListener::bind("127.0.0.1:0").expect("a port")),
        ..attempt("connects_and_accepts", Works, |_, prepared| {
            let Prepared::Tcp(listener) = prepared else { panic!("no listener") };
            let client = TcpStream::connect(listener.local_addr()?)?;
            client.set_nodelay(true)?;
            let (mut server, _) = listener.accept()?;
            server.write_all(b"x")
        })
    },
    attempt("asks_by_udp", Works, |_, _| {
        UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", "127.0.0.1:9").map(drop)
    }),
    attempt("makes_a_pair", Works, |_, _| UnixStream::pair().map(drop)),
    attempt("lists_addresses", Works, |_, _| done(nix::ifaddrs::getifaddrs())),
    // The kernel
    attempt("unshares_a_namespace", Killed, |_, _| done(unshare(CloneFlags::CLONE_NEWUTS))),
    Attempt {
        prepare: |_| Prepared::Opened(File::open("/proc/self/ns/uts").expect("its namespace")),
        ..attempt("enters_a_namespace", Killed, |_, opened| {
            let Prepared::Opened(namespace) = opened else { panic!("no namespace") };
            done(setns(namespace, CloneFlags::CLONE_NEWUTS))
        })
    },
    attempt("unmounts", Killed, |_, _| match nix::mount::umount("/nonexistent") {
        Err(nix::errno::Errno::ENOENT) => Ok(()),
        other => done(other),
    }),
    attempt("changes_its_uid", Killed, |_, _| done(nix::unistd::setuid(nix::unistd::Uid::from_raw(65_534)))),
    attempt("changes_its_root", Killed, |place, _| done(nix::unistd::chroot(place.folder.as_path()))),
    Attempt {
        abi: 6,
        waived: ONLY_LANDLOCK,
        ..attempt("signals_another_process", Refused(EPERM), |_, _| {
            done(nix::sys::signal::kill(nix::unistd::getppid(), None))
        })
    },
    attempt("signals_at_all", Refused(EPERM), |_, _| {
        done(nix::sys::signal::kill(nix::unistd::getpid(), None))
    }),
];
