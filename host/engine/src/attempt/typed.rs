//! Calls functions with types of their own: JSON goes into the guest's memory and comes out of it. Modules are in reading
//! order; each uses only those above it.

pub(crate) mod answer;
mod lower;
mod lift;
mod direct;
mod dynamic;
pub(crate) mod call;

#[cfg(test)]
mod tests;
