//! Plans full of trouble, drawn from a seed: other budgets, limits, times, callers, servers, faults and operators for each.

use std::time::Duration;

use fastrand::Rng;
use tenantry_core::{FailureKind, Settings};

use super::chance::{Lasts, between, happens};
use super::plan::{Breakage, Bursts, Crowd, Fault, Limits, Pace, Plan, Retries, Server, Trouble, Whom};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

impl Plan {
    /// A plan full of trouble: zipf callers with bursts, a tenant that takes what it can, sweeps over everybody, pool leases;
    /// servers that are slow, fail, hang, are full and restart; callers that give up, operators that drain, remove, pause and
    /// change limits. Which of these, and how much of each, the seed says.
    #[must_use]
    pub fn chaos(seed: u64, tenants: u32, lasts: Duration) -> Self {
        let mut draw = Draw { rng: Rng::with_seed(seed), tenants, lasts };
        let budget = draw.budget();
        let mut plan = Self::new(draw.rng.u64(..), tenants, budget);
        plan.lasts = lasts;
        plan.settings = draw.settings(budget);
        plan.servers = draw.servers(budget);
        draw.limits(&mut plan);
        draw.crowds(&mut plan);
        draw.faults(&mut plan);
        plan.scheduling = Lasts::Mostly { usual: MS / 20, one_in: 100, rare: MS * 5 };
        if draw.rng.u32(0..3) == 0 {
            let every = SECOND * draw.rng.u32(1..30);
            plan.meddling = Some(Lasts::Around(every.min(lasts / 30)));
        }
        plan.closes_at_once = draw.rng.bool();
        plan.check_every = 0;
        plan.seed = seed;
        plan
    }
}

struct Draw {
    rng: Rng,
    tenants: u32,
    lasts: Duration,
}

impl Draw {
    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(0..of.len())]
    }

    fn time(&mut self, least: Duration, most: Duration) -> Duration {
        between(&mut self.rng, least, most)
    }

    fn budget(&mut self) -> u32 {
        // Many tenants on few connections take long to say anything.
        let (least, most) = if self.tenants >= 10_000 { (5, 8) } else { (1, 6) };
        let power = self.rng.u32(least..=most);
        self.rng.u32(1 << power..2 << power)
    }

    fn settings(&mut self, budget: u32) -> Settings {
        let mut settings = Settings::new(budget);
        settings.max_connections_per_tenant = self.rng.u32(1..=budget.min(8));
        settings.max_connecting = self.rng.bool().then(|| self.rng.u32(1..=budget));
        settings.max_waiters = self.one_of(&[budget, 10 * budget, 10_000]);
        settings.max_waiters_per_tenant = settings.max_waiters.min(self.one_of(&[2, 50, 1_000]));
        settings.handover_bound = self.one_of(&[None, Some(Duration::ZERO), Some(MS * 10), Some(MS * 200)]);
        settings.validate_after_idle = self.one_of(&[Duration::ZERO, MS * 100, MS * 500, SECOND * 30]);
        settings.idle_timeout = self.one_of(&[SECOND, SECOND * 20, SECOND * 300]);
        settings.max_lifetime = self.one_of(&[SECOND * 5, SECOND * 60, SECOND * 1_800]);
        settings.connect_timeout = self.one_of(&[MS * 100, SECOND, SECOND * 5]);
        settings.close_timeout = self.one_of(&[MS * 100, SECOND, SECOND * 5]);
        settings.recycle_timeout = self.one_of(&[MS * 50, SECOND * 2]);
        settings.forget_after = self.one_of(&[SECOND, SECOND * 30, SECOND * 3_600]);
        settings.background_share = self.one_of(&[None, Some(1), Some(budget)]);
        settings.background_steals_after = self.one_of(&[Duration::ZERO, MS * 200, SECOND * 10]);
        settings.tombstone_ttl = self.one_of(&[SECOND, SECOND * 60]);
        settings.max_known_tenants = self.one_of(&[self.tenants.div_ceil(4), 100_000]);
        settings
    }

    fn servers(&mut self, budget: u32) -> Vec<Server> {
        let trouble = self.one_of(&[0.0, 0.001, 0.02]);
        let count = self.one_of(&[1, 1, 2, 4]);
        let mut server = || {
            let cap = self.rng.bool().then(|| self.rng.u32(budget.div_ceil(3)..=budget));
            Server {
                cap,
                takes: if self.rng.u32(0..4) == 0 { cap.unwrap_or(budget) * 3 / 4 + 1 } else { u32::MAX },
                connect: Lasts::Mostly { usual: self.time(MS, MS * 20), one_in: 200, rare: MS * 400 },
                close: Lasts::Mostly { usual: MS, one_in: 100, rare: MS * 100 },
                recycle: Lasts::Mostly { usual: MS / 5, one_in: 100, rare: MS * 30 },
                lingers: if self.rng.bool() { Lasts::Around(MS) } else { Lasts::NONE },
                connects_fail: trouble,
                connects_hang: trouble / 10.0,
                connects_panic: trouble / 10.0,
                recycles_fail: trouble,
                recycles_hang: trouble / 10.0,
                closes_hang: trouble / 4.0,
                sees_closed: self.rng.bool(),
            }
        };
        (0..count).map(|_| server()).collect()
    }

    /// A few tenants with a reserve, a weight or a cap of their own.
    fn limits(&mut self, plan: &mut Plan) {
        let budget = plan.settings.max_connections;
        let mut left = plan.servers.iter().map(|server| server.cap.unwrap_or(budget) / 2).min().unwrap_or_default();
        left = left.min(budget / 2);
        for _ in 0..self.rng.u32(0..4) {
            let tenant = self.rng.u32(0..self.tenants.min(20));
            let max = self.rng.bool().then(|| self.rng.u32(1..=budget));
            let most = max.unwrap_or(plan.settings.max_connections_per_tenant).min(left);
            let reserve = if self.rng.bool() { self.rng.u32(0..=most) } else { 0 };
            if plan.limits.contains_key(&tenant) {
                continue;
            }
            left -= reserve;
            plan.limits.insert(tenant, Limits { max, reserve, weight: self.rng.u32(1..5) });
        }
    }

    fn crowds(&mut self, plan: &mut Plan) {
        let (budget, all) = (plan.settings.max_connections, 0..self.tenants);
        // How much of the budget is asked for; where it is more than there is, the lines grow until they are full.
        let load = self.one_of(&[0.3, 0.7, 0.95, 1.3]);
        let per_second = self.one_of(&[20.0, 100.0, 300.0]);
        let hold = Duration::from_secs_f64(load * f64::from(budget) / per_second);
        let every = (SECOND * 20).min(self.lasts / 4);
        let bursts = Bursts { every: Lasts::Around(every), last: Lasts::Around(every / 10), times: 8.0 };
        let pace = Pace::Arrivals { per_second, bursts: self.rng.bool().then_some(bursts) };
        let exponent = self.one_of(&[0.0, 0.8, 1.1]);
        plan.crowds.push(Crowd::new("web", Whom::Zipf(all.clone(), exponent), pace, Lasts::Around(hold)));
        if self.rng.bool() {
            let pace = Pace::Loop { callers: self.rng.u32(1..=budget), think: Lasts::NONE };
            let tenant = self.rng.u32(all.clone());
            plan.crowds.push(Crowd::new("greedy", Whom::One(tenant), pace, Lasts::Around(hold)));
        }
        if self.rng.bool() {
            let pace = Pace::Loop { callers: self.rng.u32(1..=4), think: Lasts::Around(SECOND / 10) };
            let mut crowd = Crowd::new("sweep", Whom::Any(all.clone()), pace, Lasts::Around(hold / 4));
            crowd.background = self.rng.u32(0..3) > 0;
            plan.crowds.push(crowd);
        }
        if self.rng.bool() {
            let pace = Pace::Loop { callers: self.rng.u32(1..=3), think: Lasts::Around(SECOND * 3) };
            let few = 0..self.tenants.min(10);
            let mut crowd = Crowd::new("pools", Whom::Any(few), pace, Lasts::Around(hold * 5));
            crowd.pools = (0.8, budget.min(6));
            plan.crowds.push(crowd);
        }
        let harm = self.one_of(&[0.0, 0.01, 0.2]);
        for crowd in &mut plan.crowds {
            crowd.timeout = self.one_of(&[MS * 50, MS * 500, SECOND * 5]);
            crowd.cancels = self.one_of(&[0.0, 0.05, 0.4]);
            crowd.glances = self.one_of(&[0.0, 0.1]);
            crowd.nests = self.one_of(&[0.0, 0.0, 0.05]);
            crowd.retries = self.one_of(&[Retries::Never, Retries::AsTold(1), Retries::AsTold(10)]);
            (crowd.dirty, crowd.broken, crowd.lost) = (harm, harm / 4.0, harm / 20.0);
        }
    }

    fn faults(&mut self, plan: &mut Plan) {
        // A short run has its trouble as well.
        let every = self.one_of(&[SECOND * 20, SECOND * 60, SECOND * 600]).min(self.lasts / 3);
        let mut at = Duration::ZERO;
        loop {
            at += Lasts::Around(every).draw(&mut self.rng) + MS;
            if at >= self.lasts {
                return;
            }
            let server = self.rng.usize(0..plan.servers.len());
            let tenant = self.rng.u32(0..self.tenants.min(20));
            let how = self.one_of(&[
                Breakage::Hangs,
                Breakage::Panics,
                Breakage::Fails(FailureKind::Auth),
                Breakage::Fails(FailureKind::NoSuchTenant),
                Breakage::Fails(FailureKind::Unreachable),
                Breakage::Fails(FailureKind::ServerFull),
            ]);
            let what = match self.rng.u32(0..10) {
                0 | 1 => Trouble::Down { server, hangs: happens(&mut self.rng, 0.3) },
                2 | 3 => Trouble::Slow { server, times: 1.0 + self.rng.f64() * 30.0 },
                4 | 5 => Trouble::Strangers { server, places: plan.settings.max_connections / 2 },
                _ => Trouble::Tenant { tenant, how },
            };
            let lasts = if self.rng.bool() { self.time(MS, SECOND) } else { self.time(SECOND, SECOND * 15) };
            plan.faults.push(Fault { at, lasts: lasts.min(self.lasts / 4), what });
        }
    }
}
