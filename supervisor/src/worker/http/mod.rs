//! The supervisor's side of the `http` contract.
