//! Daemons elsewhere, of which this command line is a device.
//!
//! | module | owns |
//! |---|---|
//! | `store` | what is known of them, in a private directory |
//! | `path` | the ways to one, and their order |
//! | `reach` | going those ways until one leads there |
//! | `race` | several of them at once |

pub(crate) mod path;
mod race;
pub(crate) mod reach;
pub(crate) mod store;

pub(crate) use reach::Away;
pub(crate) use store::{Remote, Remotes};
