//! Must not compile: each function leaves out one wall, or goes to exec from where it may not. Behind
//! `//~` stand the code and the words of the one error that its line must have.

use std::os::fd::AsFd;

use cloister_ipc::launch::{Failure, Spec, Start};
use cloister_sandbox_runner::walls::{Arguments, Entering, Given, Outside, Raising, stage};
use cloister_sys::FreshChild;

type Done = Result<(), Failure>;

fn without_cgroup(child: FreshChild, outside: Outside) -> Done {
    let walls = Raising::new(child, &[], Vec::new());
    walls.enter_namespaces(outside)?; //~ E0599 no method named `enter_namespaces`
    Ok(())
}

fn without_namespaces(walls: Raising<stage::Cloned>, spec: &Spec) -> Done {
    let walls = walls.enter_cgroup(Entering::Cloned, Vec::new())?;
    walls.enter_root(spec, &[])?; //~ E0599 no method named `enter_root`
    Ok(())
}

fn without_root(walls: Raising<stage::Limited>, outside: Outside) -> Done {
    let walls = walls.enter_namespaces(outside)?;
    walls.make_network(None)?; //~ E0599 no method named `make_network`
    Ok(())
}

fn without_network(walls: Raising<stage::Named>, spec: &Spec) -> Done {
    let (walls, _app) = walls.enter_root(spec, &[])?;
    walls.limit_resources(spec)?; //~ E0599 no method named `limit_resources`
    Ok(())
}

fn without_resource_limits(walls: Raising<stage::Rooted>, spec: &Spec) -> Done {
    let (walls, _sockets) = walls.make_network(None)?;
    walls.drop_privileges(spec)?; //~ E0599 no method named `drop_privileges`
    Ok(())
}

fn without_dropping_privileges(walls: Raising<stage::Networked>, spec: &Spec) -> Done {
    let walls = walls.limit_resources(spec)?;
    walls.filter(&spec.base)?; //~ E0599 `Raising<Bounded>` is not an iterator
    Ok(())
}

fn without_seccomp(walls: Raising<stage::Bounded>, spec: &Spec, start: &Start, given: Given) -> Done {
    let walls = walls.drop_privileges(spec)?;
    walls.landlock(spec, start, given.binary.as_fd())?; //~ E0599 no method named `landlock`
    Ok(())
}

fn without_landlock(walls: Raising<stage::Powerless>, spec: &Spec, given: Given) -> Done {
    let walls = walls.filter(&spec.base)?;
    walls.close_descriptors(given, false)?; //~ E0599 no method named `close_descriptors`
    Ok(())
}

fn without_descriptors(
    walls: Raising<stage::Filtered>,
    (spec, start): (&Spec, &Start),
    (given, arguments): (Given, &Arguments),
) -> Done {
    let walls = walls.landlock(spec, start, given.binary.as_fd())?;
    walls.exec(&start.last, arguments)?; //~ E0599 no method named `exec`
    Ok(())
}

fn exec_at_once(child: FreshChild, arguments: &Arguments) -> Done {
    let walls = Raising::new(child, &[], Vec::new());
    walls.exec(&[], arguments)?; //~ E0599 no method named `exec`
    Ok(())
}

fn exec_before_landlock(walls: Raising<stage::Powerless>, spec: &Spec, arguments: &Arguments) -> Done {
    let walls = walls.filter(&spec.base)?;
    walls.exec(&[], arguments)?; //~ E0599 no method named `exec`
    Ok(())
}

fn the_last_filter_instead_of_the_first(walls: Raising<stage::Powerless>, arguments: &Arguments) -> Done {
    walls.exec(&[], arguments)?; //~ E0599 no method named `exec`
    Ok(())
}

fn telling_before_all_is_enforced(walls: &Raising<stage::Landlocked>) {
    walls.report(&[]); //~ E0599 no method named `report`
}

fn main() {}
