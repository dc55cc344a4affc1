//! How values are read and written by serde: numbers that may be text (all of the environment is), times in words. Their
//! errors never hold the value, which may be a secret in the wrong place.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// A number, or text that is one. `99.7`, `yes` and ` ` are none.
struct Number<N>(PhantomData<N>);

impl<N: TryFrom<u64>> Visitor<'_> for Number<N> {
    type Value = N;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<N, E> {
        N::try_from(number).map_err(|_| E::custom("a number that is too large"))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<N, E> {
        let number = u64::try_from(number).map_err(|_| E::custom("a number below zero"))?;
        self.visit_u64(number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<N, E> {
        // A sign is no part of a number here, though Rust would take a plus.
        let digits = text.trim();
        let number = if digits.starts_with('+') { None } else { digits.parse().ok() };
        self.visit_u64(number.ok_or_else(|| E::custom("not a whole number"))?)
    }
}

pub(super) mod number {
    use super::{Deserializer, Number, PhantomData};

    pub(in super::super) fn deserialize<'de, N: TryFrom<u64>, D: Deserializer<'de>>(from: D) -> Result<N, D::Error> {
        from.deserialize_any(Number(PhantomData))
    }
}

pub(super) mod maybe_number {
    use super::{Deserializer, number};

    pub(in super::super) fn deserialize<'de, N: TryFrom<u64>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<N>, D::Error> {
        number::deserialize(from).map(Some)
    }
}

/// `10m`, `1h 30m`, `500ms`. A number without a unit is none, but for 0.
struct Time;

impl Visitor<'_> for Time {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time with its unit, such as 10m")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text.trim()).map_err(|_| E::custom("not a time with its unit, such as 10m"))
    }
}

pub(super) mod time {
    use super::{Deserializer, Duration, Serializer, Time};

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_str(Time)
    }

    pub(in super::super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*time))
    }
}

pub(super) mod maybe_time {
    use super::{Deserializer, Duration, Serializer, time};

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        time::deserialize(from).map(Some)
    }

    pub(in super::super) fn serialize<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => time::serialize(time, to),
            None => to.serialize_none(),
        }
    }
}
