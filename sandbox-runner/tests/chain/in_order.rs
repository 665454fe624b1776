//! The twin of the programs beside it: every wall in its order. This one compiles.

use std::convert::Infallible;
use std::os::fd::AsFd;

use cloister_ipc::launch::{CgroupLimit, Failure, Spec, Start};
use cloister_sandbox_runner::walls::{Arguments, Entering, Given, Outside, Raising};
use cloister_sys::FreshChild;

fn in_order(
    child: FreshChild,
    (entering, limits, outside): (Entering, Vec<CgroupLimit>, Outside),
    (spec, start): (&Spec, &Start),
    (given, arguments): (Given, &Arguments),
) -> Result<Infallible, Failure> {
    let walls = Raising::new(child, &[], Vec::new());
    let walls = walls.enter_cgroup(entering, limits)?;
    let walls = walls.enter_namespaces(outside)?;
    let (walls, _app) = walls.enter_root(spec, &[])?;
    let (walls, _sockets) = walls.make_network(None)?;
    let walls = walls.limit_resources(spec)?;
    let walls = walls.drop_privileges(spec)?;
    let walls = walls.filter(&spec.base)?;
    let walls = walls.landlock(spec, start, given.binary.as_fd())?;
    let (walls, _socket) = walls.close_descriptors(given, start.files)?;
    walls.exec(&start.last, arguments)
}

fn main() {
    let _ = in_order;
}
