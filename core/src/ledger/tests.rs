//! The ledger's tests: every command in every state (`cells`), the rules (`rules`), and anything in any order (`random`).
//! All of them go through [`rig::Rig`], which recounts the whole ledger after every step.

mod random;
mod rig;
