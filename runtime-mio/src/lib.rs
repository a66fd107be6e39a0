//! The eyes and hands of clawd.
