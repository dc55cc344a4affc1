//! How pictures are serialized: what `stats.rs` says, with the sums that are methods there.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Counters, ServerStats, Stats, TenantStats};
use crate::LimitScope;

/// A duration as a number of seconds.
pub(crate) mod seconds {
    use super::{Duration, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }
}

/// An instant as seconds since 1970.
pub(crate) mod unix {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::{Duration, Serializer};

    pub(crate) fn serialize<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(at.duration_since(UNIX_EPOCH).map_or(0.0, |since: Duration| since.as_secs_f64()))
    }
}

/// A duration that may be missing.
pub(crate) mod maybe_seconds {
    use super::{Duration, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
    }
}

/// A map of the named fields under their own names, and of what follows. Each field of the type has to be named, or the
/// compiler says which is not.
macro_rules! map_of {
    ($type:ident { $($field:ident),* $(,)? } $($other:ident)* => $self:ident: $($name:literal = $value:expr),* $(,)?) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let $self = self;
                let Self { $($field,)* $($other: _,)* } = self;
                let mut map = serializer.serialize_map(None)?;
                $(map.serialize_entry(stringify!($field), $field)?;)*
                $(map.serialize_entry($name, &$value)?;)*
                map.end()
            }
        }
    };
}

map_of!(Counters {
    connects, connect_failures, server_full, warm_hits, waits, hand_overs, recycles, evictions, closed_evict, closed_idle,
    closed_lifetime, closed_broken, closed_ended, unavailable, timeouts,
} waited refusals => counters:
    "waited_seconds" = counters.waited.as_secs_f64(),
    "refusals" = Refusals(counters),
);

map_of!(Stats {
    max, opening, idle, in_use, closing, pool_leased, overdue, background, background_share, waiting, tenants, unavailable,
    closed, totals, servers,
} => stats:
    "open" = stats.open(),
    "saturation" = stats.saturation(),
);

map_of!(ServerStats {
    server, max, effective_max, open, opening, idle, in_use, closing, pool_leased, waiting, paused, epoch, connects,
    connect_failures, server_full,
} full connect_time => stats:
    "full_seconds" = stats.full.map(|full| full.as_secs_f64()),
    "connect_time_seconds" = stats.connect_time.map(|time| time.as_secs_f64()),
    "saturation" = stats.saturation(),
);

map_of!(TenantStats {
    tenant, server, max, reserve, weight, opening, idle, in_use, closing, pool_leased, waiting, draining, removed, circuit,
    totals,
} => stats:
    "open" = stats.open(),
    "saturation" = stats.saturation(),
);

/// Refusals by the name of their scope.
struct Refusals<'a>(&'a Counters);

impl Serialize for Refusals<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(LimitScope::ALL.map(|scope| (scope, self.0.refused(scope))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::stats::CircuitState;
    use crate::{Counters, FailureKind, LimitScope, ServerId, TenantId};

    #[test]
    fn a_duration_is_seconds_and_refusals_are_named() {
        let mut counters = Counters { waited: Duration::from_millis(1_500), ..Counters::default() };
        counters.refusals[LimitScope::Queue as usize] = 3;
        let json = serde_json::to_value(counters).unwrap();
        assert_eq!(json["waited_seconds"], 1.5);
        let refusals = serde_json::json!({ "tenant": 0, "server": 0, "total": 0, "queue": 3, "background": 0 });
        assert_eq!(json["refusals"], refusals);
    }

    #[test]
    fn a_circuit_says_its_state_and_the_time_to_its_probe() {
        let open = CircuitState::Open { kind: FailureKind::NoSuchTenant, retry_after: Duration::from_millis(250) };
        let json = serde_json::json!({ "state": "open", "kind": "no_such_tenant", "retry_after_seconds": 0.25 });
        assert_eq!(serde_json::to_value(open).unwrap(), json);
        assert_eq!(serde_json::to_value(CircuitState::Closed).unwrap(), serde_json::json!({ "state": "closed" }));
    }

    #[test]
    fn a_name_is_checked_when_it_is_read() {
        let tenant: TenantId = serde_json::from_str(r#""acme""#).unwrap();
        assert_eq!(serde_json::to_string(&tenant).unwrap(), r#""acme""#);
        for bad in [r#""""#, r#""a\u0000b""#, r#""\u0001maintenance ""#] {
            assert!(serde_json::from_str::<TenantId>(bad).is_err(), "{bad}");
        }
        for server in ["", "east"] {
            let server = ServerId::from(server);
            assert_eq!(serde_json::from_str::<ServerId>(&serde_json::to_string(&server).unwrap()).unwrap(), server);
        }
    }
}
