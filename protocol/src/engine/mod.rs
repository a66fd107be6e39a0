//! What every machine here needs: deadlines, chance, and names for operations in flight.

pub(crate) mod entropy;
pub(crate) mod timers;
