//! From what diesel binds to a statement to what the driver sends: [`params`].

use diesel::QueryResult;
use diesel::deserialize::FromSql;
use diesel::mysql::data_types::MysqlTime;
use diesel::mysql::{Mysql, MysqlType, MysqlValue};
use diesel::result::Error;
use diesel::sql_types::{Time, Timestamp};
use mysql_async::{Params, Value};

/// The values of a statement's placeholders, in order. diesel writes them as MySQL's C library has them in memory.
pub(super) fn params(kinds: Vec<MysqlType>, binds: Vec<Option<Vec<u8>>>) -> QueryResult<Params> {
    let values =
        kinds.into_iter().zip(binds).map(|(kind, bind)| bind.map_or(Ok(Value::NULL), |bind| value(kind, bind)));
    let values: Vec<_> = values.collect::<QueryResult<_>>()?;
    Ok(if values.is_empty() { Params::Empty } else { Params::Positional(values) })
}

fn value(kind: MysqlType, bind: Vec<u8>) -> QueryResult<Value> {
    Ok(match kind {
        MysqlType::Tiny => Value::Int(i8::from_ne_bytes(first(&bind)?).into()),
        MysqlType::Short => Value::Int(i16::from_ne_bytes(first(&bind)?).into()),
        MysqlType::Long => Value::Int(i32::from_ne_bytes(first(&bind)?).into()),
        MysqlType::LongLong => Value::Int(i64::from_ne_bytes(first(&bind)?)),
        MysqlType::UnsignedTiny => Value::UInt(u8::from_ne_bytes(first(&bind)?).into()),
        MysqlType::UnsignedShort => Value::UInt(u16::from_ne_bytes(first(&bind)?).into()),
        MysqlType::UnsignedLong => Value::UInt(u32::from_ne_bytes(first(&bind)?).into()),
        MysqlType::UnsignedLongLong => Value::UInt(u64::from_ne_bytes(first(&bind)?)),
        MysqlType::Float => Value::Float(f32::from_ne_bytes(first(&bind)?)),
        MysqlType::Double => Value::Double(f64::from_ne_bytes(first(&bind)?)),
        MysqlType::Time => time(<MysqlTime as FromSql<Time, Mysql>>::from_sql(MysqlValue::new(&bind, kind)))?,
        MysqlType::Date | MysqlType::DateTime | MysqlType::Timestamp => {
            date(<MysqlTime as FromSql<Timestamp, Mysql>>::from_sql(MysqlValue::new(&bind, kind)))?
        }
        // Texts, and what is text to the protocol.
        _ => Value::Bytes(bind),
    })
}

/// A `bool` is four bytes for a type of one.
fn first<const N: usize>(bind: &[u8]) -> QueryResult<[u8; N]> {
    let bytes = bind.first_chunk().ok_or_else(|| format!("{} bytes were bound where {N} are needed", bind.len()));
    bytes.copied().map_err(|error| Error::SerializationError(error.into()))
}

fn date(time: diesel::deserialize::Result<MysqlTime>) -> QueryResult<Value> {
    let time = time.map_err(Error::SerializationError)?;
    let year = u16::try_from(time.year).map_err(|error| Error::SerializationError(error.into()))?;
    let (month, day) = (small(time.month)?, small(time.day)?);
    Ok(Value::Date(year, month, day, small(time.hour)?, small(time.minute)?, small(time.second)?, micros(&time)?))
}

fn time(time: diesel::deserialize::Result<MysqlTime>) -> QueryResult<Value> {
    let time = time.map_err(Error::SerializationError)?;
    let (hour, minute) = (small(time.hour)?, small(time.minute)?);
    Ok(Value::Time(time.neg, time.day, hour, minute, small(time.second)?, micros(&time)?))
}

fn small(part: u32) -> QueryResult<u8> {
    u8::try_from(part).map_err(|error| Error::SerializationError(error.into()))
}

fn micros(time: &MysqlTime) -> QueryResult<u32> {
    u32::try_from(time.second_part).map_err(|error| Error::SerializationError(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_that_is_too_short_is_an_error_and_no_panic() {
        assert!(matches!(params(vec![MysqlType::Long], vec![Some(vec![1, 2])]), Err(Error::SerializationError(_))));
        let params = params(vec![MysqlType::Tiny, MysqlType::Long], vec![Some(vec![1, 0, 0, 0]), None]);
        assert_eq!(params.expect("good binds"), Params::Positional(vec![Value::Int(1), Value::NULL]));
    }
}
