//! Must not compile: each function makes up a stage that it did not reach.

use std::marker::PhantomData;

use cloister_sandbox_runner::walls::{Raising, stage};
use cloister_sys::FreshChild;

fn by_the_first_step(child: FreshChild) -> Raising<stage::Closed> {
    Raising::<stage::Closed>::new(child, &[], Vec::new()) //~ E0599 no function or associated item named `new`
}

fn by_the_step_itself(walls: Raising<stage::Cloned>) -> Raising<stage::Closed> {
    walls.advance() //~ E0624 method `advance` is private
}

fn by_name(walls: Raising<stage::Filtered>) -> Raising<stage::Closed> {
    walls //~ E0308 mismatched types
}

fn by_a_copy(walls: &Raising<stage::Closed>) -> Raising<stage::Closed> {
    walls.clone() //~ E0308 mismatched types
}

fn by_default() -> Raising<stage::Closed> {
    Default::default() //~ E0277 `Raising<Closed>: Default` is not satisfied
}

fn what_was_waived(walls: &mut Raising<stage::Filtered>) {
    walls.enforced.waived.clear(); //~ E0616 field `enforced`
}

fn the_child() -> FreshChild {
    FreshChild(PhantomData) //~ E0423 cannot initialize a tuple struct which contains private fields
}

fn main() {}
