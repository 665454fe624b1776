//! Walls that the kernel can't raise stop the start, each by its name.

use std::collections::BTreeSet;

use cloister_ipc::launch::Stage;
use cloister_supervisor::launch::{StartError, Wall};

use crate::cell::{Cell, launcher_with, waived};

/// Waives what is missing, wall after wall, until a start succeeds: what it took is exactly what the
/// tester says that this kernel lacks.
#[tokio::test]
#[ignore = "needs a kernel that lacks walls: run by make test-vm"]
async fn refused_without_waiver() {
    let mut missing = BTreeSet::new();
    loop {
        let waived: Vec<Wall> = missing.iter().copied().collect();
        let error = match launcher_with(waived) {
            Err(error) => error,
            Ok((launcher, _)) => match Cell::new("listener").try_start_on(&launcher).await {
                Ok(_) => break,
                Err(error) => error,
            },
        };
        let StartError::Failed(failure) = &error else { panic!("{error}") };
        let Stage::Wall(wall) = failure.stage else { panic!("{error}") };
        assert!(error.to_string().contains(&format!("waive `{wall}`")), "no way out is named: {error}");
        assert!(missing.insert(wall), "waived, and still missing: {error}");
    }
    assert_eq!(missing, BTreeSet::from_iter(waived()), "what this kernel lacks");
    assert!(!missing.is_empty());
}
