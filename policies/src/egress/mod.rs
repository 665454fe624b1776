//! The egress policy: a TOML file becomes a validated [`Policy`], which gives a [`Verdict`] on
//! what a Worker asks for. The format is described in docs/POLICY.md.
//!
//! Everything that is compared is first brought into one form ([`Host`], [`NormalPath`]), and what
//! has no one form is refused.

mod asked;
mod error;
mod header;
mod host;
mod path;
mod policy;
mod raw;
mod rule;
mod validate;

pub use asked::{Asked, Content, Scheme, Target, TargetError, split_authority};
pub use error::{PolicyError, Problem};
pub use header::{HeaderTemplate, HeaderTemplateError, is_reserved};
pub use host::{Host, HostError, HostPattern};
pub use path::{NormalPath, PathPattern, PathPatternError};
pub use policy::{DEFAULT_RULE, Decision, Mode, POLICY_BYTES, Policy, Refusal, Step, Verdict};
pub use rule::{Action, Mismatch, Rule};

#[cfg(test)]
mod tests;
