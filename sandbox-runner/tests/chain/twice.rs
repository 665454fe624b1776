//! Must not compile: each function uses a stage, or a proof, that it gave away.

use std::os::fd::AsFd;

use cloister_ipc::launch::{Failure, Spec, Start};
use cloister_sandbox_runner::walls::{Arguments, Given, Outside, Raising, stage};
use cloister_sys::FreshChild;

fn a_stage(walls: Raising<stage::Limited>, outside: Outside, again: Outside) -> Result<(), Failure> {
    let _first = walls.enter_namespaces(outside)?;
    let _second = walls.enter_namespaces(again)?; //~ E0382 use of moved value: `walls`
    Ok(())
}

/// To go on from a wall before the last one that was raised, and so without it.
fn an_older_stage(
    walls: Raising<stage::Filtered>,
    (spec, start): (&Spec, &Start),
    given: &Given,
) -> Result<(), Failure> {
    let _strict = walls.landlock(spec, start, given.binary.as_fd())?;
    let _lax = walls.landlock(spec, start, given.binary.as_fd())?; //~ E0382 use of moved value: `walls`
    Ok(())
}

fn exec(walls: Raising<stage::Closed>, arguments: &Arguments) -> Result<(), Failure> {
    let failed = walls.exec(&[], arguments).err();
    walls.exec(&[], arguments)?; //~ E0382 use of moved value: `walls`
    failed.map_or(Ok(()), Err)
}

fn a_child(child: FreshChild) {
    let _first = Raising::new(child, &[], Vec::new());
    let _second = Raising::new(child, &[], Vec::new()); //~ E0382 use of moved value: `child`
}

fn main() {}
