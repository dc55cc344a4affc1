//! From the driver's rows to what diesel reads: [`MySqlRow`].

use std::borrow::Cow;
use std::ops::Range;

use diesel::mysql::data_types::{MysqlTime, MysqlTimestampType};
use diesel::mysql::{Mysql, MysqlType, MysqlValue};
use diesel::row::{Field, PartialRow, Row, RowIndex, RowSealed};
use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::{Column, Value};

/// A row of an answer, as [`MySqlConnection`](crate::MySqlConnection) gives it to diesel.
#[derive(Debug)]
pub struct MySqlRow(mysql_async::Row);

impl MySqlRow {
    pub(super) fn new(row: mysql_async::Row) -> Self {
        Self(row)
    }
}

impl RowSealed for MySqlRow {}

impl RowIndex<usize> for MySqlRow {
    fn idx(&self, at: usize) -> Option<usize> {
        (at < self.0.len()).then_some(at)
    }
}

impl<'a> RowIndex<&'a str> for MySqlRow {
    fn idx(&self, name: &'a str) -> Option<usize> {
        self.0.columns_ref().iter().position(|column| column.name_str() == name)
    }
}

impl<'a> Row<'a, Mysql> for MySqlRow {
    type Field<'f>
        = MySqlField<'f>
    where
        'a: 'f,
        Self: 'f;
    type InnerPartialRow = Self;

    fn field_count(&self) -> usize {
        self.0.len()
    }

    fn get<'f, I>(&'f self, index: I) -> Option<MySqlField<'f>>
    where
        'a: 'f,
        Self: RowIndex<I>,
    {
        let at = self.idx(index)?;
        let column = self.0.columns_ref().get(at)?;
        let kind = kind(column);
        Some(MySqlField { name: column.name_str(), kind, bytes: bytes(self.0.as_ref(at)?, kind) })
    }

    fn partial_row(&self, range: Range<usize>) -> PartialRow<'_, Self> {
        PartialRow::new(self, range)
    }
}

/// One value of a [`MySqlRow`].
#[derive(Debug)]
pub struct MySqlField<'a> {
    name: Cow<'a, str>,
    kind: MysqlType,
    bytes: Option<Cow<'a, [u8]>>,
}

impl Field<'_, Mysql> for MySqlField<'_> {
    fn field_name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn value(&self) -> Option<MysqlValue<'_>> {
        self.bytes.as_ref().map(|bytes| MysqlValue::new(bytes, self.kind))
    }
}

/// A value as MySQL's C library has it in memory, which is what diesel reads. Nothing for NULL.
fn bytes(value: &Value, kind: MysqlType) -> Option<Cow<'_, [u8]>> {
    Some(match *value {
        Value::NULL => return None,
        Value::Bytes(ref bytes) => Cow::Borrowed(bytes),
        Value::Int(number) => Cow::Owned(sized(number, kind)),
        // A number of the same bits; what is cut off below is more than its type holds.
        Value::UInt(number) => Cow::Owned(sized(number.cast_signed(), kind)),
        Value::Float(number) => Cow::Owned(number.to_ne_bytes().to_vec()),
        Value::Double(number) => Cow::Owned(number.to_ne_bytes().to_vec()),
        Value::Date(year, month, day, hour, minute, second, micros) => {
            let date = [year.into(), month.into(), day.into()];
            let kind = MysqlTimestampType::MYSQL_TIMESTAMP_DATETIME;
            Cow::Owned(time(date, [hour, minute, second], micros, false, kind))
        }
        Value::Time(negative, days, hour, minute, second, micros) => {
            let kind = MysqlTimestampType::MYSQL_TIMESTAMP_TIME;
            Cow::Owned(time([0, 0, days], [hour, minute, second], micros, negative, kind))
        }
    })
}

fn sized(number: i64, kind: MysqlType) -> Vec<u8> {
    match kind {
        MysqlType::Tiny | MysqlType::UnsignedTiny => (number as i8).to_ne_bytes().to_vec(),
        MysqlType::Short | MysqlType::UnsignedShort => (number as i16).to_ne_bytes().to_vec(),
        MysqlType::Long | MysqlType::UnsignedLong => (number as i32).to_ne_bytes().to_vec(),
        _ => number.to_ne_bytes().to_vec(),
    }
}

fn time(
    [year, month, day]: [u32; 3],
    clock: [u8; 3],
    micros: u32,
    negative: bool,
    kind: MysqlTimestampType,
) -> Vec<u8> {
    let [hour, minute, second] = clock.map(u32::from);
    MysqlTime::new(year, month, day, hour, minute, second, micros.into(), negative, kind, 0).serialize().to_vec()
}

/// diesel's word for a column's type.
fn kind(column: &Column) -> MysqlType {
    use ColumnType as Is;
    let has = |flag| column.flags().contains(flag);
    let unsigned = has(ColumnFlags::UNSIGNED_FLAG);
    match column.column_type() {
        Is::MYSQL_TYPE_TINY if unsigned => MysqlType::UnsignedTiny,
        Is::MYSQL_TYPE_TINY => MysqlType::Tiny,
        Is::MYSQL_TYPE_SHORT | Is::MYSQL_TYPE_YEAR if unsigned => MysqlType::UnsignedShort,
        Is::MYSQL_TYPE_SHORT | Is::MYSQL_TYPE_YEAR => MysqlType::Short,
        Is::MYSQL_TYPE_LONG | Is::MYSQL_TYPE_INT24 if unsigned => MysqlType::UnsignedLong,
        Is::MYSQL_TYPE_LONG | Is::MYSQL_TYPE_INT24 => MysqlType::Long,
        Is::MYSQL_TYPE_LONGLONG if unsigned => MysqlType::UnsignedLongLong,
        Is::MYSQL_TYPE_LONGLONG => MysqlType::LongLong,
        Is::MYSQL_TYPE_FLOAT => MysqlType::Float,
        Is::MYSQL_TYPE_DOUBLE => MysqlType::Double,
        Is::MYSQL_TYPE_DECIMAL | Is::MYSQL_TYPE_NEWDECIMAL => MysqlType::Numeric,
        Is::MYSQL_TYPE_TIMESTAMP | Is::MYSQL_TYPE_TIMESTAMP2 => MysqlType::Timestamp,
        Is::MYSQL_TYPE_DATETIME | Is::MYSQL_TYPE_DATETIME2 => MysqlType::DateTime,
        Is::MYSQL_TYPE_DATE | Is::MYSQL_TYPE_NEWDATE => MysqlType::Date,
        Is::MYSQL_TYPE_TIME | Is::MYSQL_TYPE_TIME2 => MysqlType::Time,
        Is::MYSQL_TYPE_BIT => MysqlType::Bit,
        // A text of one of the types of their own, told apart by flags.
        _ if has(ColumnFlags::ENUM_FLAG) => MysqlType::Enum,
        _ if has(ColumnFlags::SET_FLAG) => MysqlType::Set,
        Is::MYSQL_TYPE_JSON | Is::MYSQL_TYPE_NULL => MysqlType::String,
        // Bytes of whatever kind: a geometry is one, too.
        _ if has(ColumnFlags::BINARY_FLAG) => MysqlType::Blob,
        _ => MysqlType::String,
    }
}
