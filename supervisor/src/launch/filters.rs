//! Seccomp programs, compiled once for each profile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cloister_policies::seccomp;
use sha2::{Digest, Sha256};

use super::StartError;
pub(super) use cloister_policies::seccomp::{Contract, Profile};

/// The programs of a profile.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) base: Vec<u8>,
    pub(super) last: Vec<u8>,
    pub(super) sha256: [String; 2],
}

/// Programs by profile.
#[derive(Debug, Default)]
pub(super) struct Filters(Mutex<HashMap<Profile, Arc<Programs>>>);

impl Filters {
    pub(super) fn get(&self, profile: Profile) -> Result<Arc<Programs>, StartError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(programs) = known.get(&profile) {
            return Ok(Arc::clone(programs));
        }
        let compiled = seccomp::compile(&profile).map_err(|error| StartError::Filter(error.to_string()))?;
        let (base, last) = (compiled.base, compiled.last);
        let sha256 = [&base, &last].map(|program| hex::encode(Sha256::digest(program)));
        let programs = Arc::new(Programs { base, last, sha256 });
        known.insert(profile, Arc::clone(&programs));
        Ok(programs)
    }
}
