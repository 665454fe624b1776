//! The data plane against Workers in threads of the test: the SDK's and hostile ones.

mod bodies;
mod chains;
mod double;
mod failures;
mod hostile;
mod pool;
