//! A budget of 8, one tenant with 64 callers and 63 with one each, under virtual time: what each gets, beside one line for all.

use std::time::Duration;

use tenantry_testkit::sim::{Crowd, Lasts, Pace, Plan, Report, Whom};

use crate::table::{Table, number};

const MS: Duration = Duration::from_millis(1);

fn plan() -> Plan {
    let mut plan = Plan::new(1, 64, 8);
    let hold = Lasts::Exactly(MS * 100);
    let pace = |callers| Pace::Loop { callers, think: Lasts::NONE };
    plan.crowds =
        vec![Crowd::new("noisy", Whom::One(0), pace(64), hold), Crowd::new("quiet", Whom::Each(1..64), pace(63), hold)];
    for crowd in &mut plan.crowds {
        crowd.timeout = Duration::from_secs(600);
    }
    plan.settings.max_connections_per_tenant = 8;
    plan.settings.max_connecting = Some(8);
    plan.lasts = Duration::from_secs(40);
    plan.measured_from = 64;
    plan.check_every = 100_000;
    plan
}

pub fn fairness() -> String {
    let (plan, mut table) = (
        plan(),
        Table::new(&["", "share of the noisy one, %", "grants", "to one line", "p99 wait of a quiet one, ms"]),
    );
    let fair = plan.run().unwrap_or_else(|violation| panic!("{violation}"));
    let line = plan.run_in_one_line().unwrap_or_else(|violation| panic!("{violation}"));
    let mut row = |name: &str, report: &Report| {
        let ratio = report.granted() as f64 / line.granted() as f64;
        let p99 = report.crowd("quiet").p99().as_secs_f64() * 1e3;
        let share = report.share("noisy") * 100.0;
        table.row([name.to_owned(), number(share), number(report.granted() as f64), number(ratio), number(p99)]);
    };
    row("tenantry", &fair);
    row("one line for all", &line);
    table.text()
}
