//! The ledger's tests: every command in every state (`cells`), the rules (`rules`), and anything in any order (`random`).
//! All of them go through [`rig::Rig`], which recounts the whole ledger after every step; `invariants` tests the recount.

mod cells;
mod cells_answers;
mod cells_callers;
mod cells_operators;
mod invariants;
mod random;
mod rig;
mod rules;
mod rules_background;
mod rules_closes;
mod rules_drops;
mod rules_failures;
mod rules_full;
mod rules_known;
mod rules_limits;
mod rules_moves;
mod rules_pace;
mod rules_pools;
mod rules_probes;
mod rules_reserves;
mod rules_told;
mod rules_turns;
mod rules_uncovered;
mod rules_watch;
