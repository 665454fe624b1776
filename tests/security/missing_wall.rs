//! A wall that the kernel can't raise stops the start, and is named.

use cloister_ipc::launch::Stage;
use cloister_supervisor::launch::{StartError, Wall};

use crate::cell::{Cell, launcher_with};

#[tokio::test]
#[ignore = "needs a kernel before 6.3: run by make test-vm"]
async fn refused_without_waiver() {
    let (launcher, _) = launcher_with(Vec::new()).unwrap();
    let error = Cell::new("listener").try_start_on(&launcher).await.unwrap_err();
    let StartError::Failed(failure) = &error else { panic!("{error}") };
    assert_eq!(failure.stage, Stage::Wall(Wall::MemoryDenyWriteExecute), "{error}");
    assert!(error.to_string().contains("6.3"), "{error}");
}
