//! A Worker as a process, started as the platform starts it: the control socket at descriptor 3.

use std::process::{Command, Stdio};

use cloister::{Body, Context, Env, Request, Response};
use cloister_ipc::control::{CONTROL_ENV, Control};

use crate::supervisor::{Supervisor, start_record};

/// Makes this program be a Worker.
const BE_WORKER: &str = "CLOISTER_TEST_BE_WORKER";

/// Not a test but the Worker that the others start: this program again, with this test alone.
#[test]
fn worker() {
    if std::env::var_os(BE_WORKER).is_some() {
        cloister::run(|_request: Request, _env: Env, _ctx: Context| async {
            Response::new(Body::from("hello"))
        })
        .unwrap();
    }
}

/// The command that starts the Worker, with its standard input as descriptor 3.
fn command() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" --exact entry::worker --nocapture 3<&0 </dev/null"]);
    command.arg(std::env::current_exe().unwrap());
    command.env(BE_WORKER, "1").env_remove(CONTROL_ENV).stdout(Stdio::null());
    command
}

#[test]
fn a_process_serves_on_descriptor_three_until_its_supervisor_leaves() {
    let (supervisor, control) = Supervisor::of_a_process();
    let mut process = command().env(CONTROL_ENV, "3").stdin(Stdio::from(control)).spawn().unwrap();
    supervisor.tell(&Control::Start(start_record()), &[]);
    let mut connection = supervisor.connect(0);
    let id = connection.get("/");
    assert_eq!(connection.response(id).text(), "hello");
    drop(supervisor);
    assert!(process.wait().unwrap().success());
}

#[test]
fn without_a_supervisor_a_worker_says_what_it_is() {
    for (value, expected) in [
        (None, "is a Cloister Worker"),
        (Some("nonsense"), "is a Cloister Worker"),
        (Some("0"), "is a Cloister Worker"),
        (Some("99"), "take the control socket"),
    ] {
        let mut command = command();
        if let Some(value) = value {
            command.env(CONTROL_ENV, value);
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}
