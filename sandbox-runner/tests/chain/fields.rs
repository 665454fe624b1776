//! Must not compile: a stage made up by its fields. (The compiler looks at these errors only where there
//! are no others.)

use std::marker::PhantomData;

use cloister_ipc::launch::Enforced;
use cloister_sandbox_runner::walls::{Raising, stage};
use cloister_sys::FreshChild;

fn by_its_fields(child: FreshChild) -> Raising<stage::Closed> {
    Raising {
        child, //~ E0451 `child`
        enforced: Enforced::default(),
        filters: Vec::new(),
        stage: PhantomData,
    }
}

fn the_child_out_of_it(walls: Raising<stage::Cloned>) -> FreshChild {
    let Raising { child, .. } = walls; //~ E0451 `child`
    child
}

fn main() {}
