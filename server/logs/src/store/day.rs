//! A UTC day and its file.

use crate::error::{Error, Result};
use rusqlite::{Connection, OpenFlags};
use shipwatch_common::time::UnixNs;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Nanoseconds in a day.
pub(crate) const DAY_NS: i64 = 86_400_000_000_000;
/// Format of the day files that this program writes. 2: blocks of typed fields; files that can shrink.
pub(crate) const FORMAT: i64 = 2;
/// `shpL`, so that a file that is not ours is noticed.
pub(crate) const APPLICATION: i64 = 0x7368_704c;

/// A UTC day, in days since 1970-01-01.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Day(pub(crate) i32);

impl Day {
    pub(crate) const fn of(ts_ns: UnixNs) -> Self {
        Self(ts_ns.div_euclid(DAY_NS) as i32)
    }

    /// First nanosecond; the first and the last day that nanoseconds can name are cut short.
    pub(crate) const fn start_ns(self) -> UnixNs {
        clamp(self.0 as i128 * DAY_NS as i128)
    }

    /// Last nanosecond.
    pub(crate) const fn last_ns(self) -> UnixNs {
        clamp((self.0 as i128 + 1) * DAY_NS as i128 - 1)
    }

    /// The file in the store's directory.
    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{self}.db"))
    }

    /// The day of a file's name, `YYYY-MM-DD.db`.
    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        let date = name.strip_suffix(".db")?;
        let mut parts = date.split('-');
        let mut number = || parts.next()?.parse::<i64>().ok();
        let day = Self::from_date(number()?, number()?, number()?)?;
        // Only the one spelling that we write.
        (day.to_string() == date).then_some(day)
    }

    /// Gregorian calendar, counted in 400-year cycles from 1 March 0000.
    fn from_date(year: i64, month: i64, date: i64) -> Option<Self> {
        if !(0..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&date) {
            return None;
        }
        let year = if month <= 2 { year - 1 } else { year };
        let cycle = year.div_euclid(400);
        let of_cycle = year.rem_euclid(400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + date - 1;
        let day = of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year;
        i32::try_from(cycle * 146_097 + day - 719_468).ok().map(Self)
    }
}

const fn clamp(ns: i128) -> UnixNs {
    if ns < UnixNs::MIN as i128 {
        UnixNs::MIN
    } else if ns > UnixNs::MAX as i128 {
        UnixNs::MAX
    } else {
        ns as UnixNs
    }
}

/// `YYYY-MM-DD`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = i64::from(self.0) + 719_468;
        let cycle = days.div_euclid(146_097);
        let of_cycle = days.rem_euclid(146_097);
        let year = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
        let of_year = of_cycle - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let date = of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year + cycle * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{date:02}")
    }
}

// `bodies` and `blooms` are apart so that a walk over the blocks of a day touches small rows only.
const SCHEMA: &str = "
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    labels TEXT NOT NULL UNIQUE,
    sealed_upto INTEGER NOT NULL,
    blocks INTEGER NOT NULL DEFAULT 0,
    lines INTEGER NOT NULL DEFAULT 0,
    raw_bytes INTEGER NOT NULL DEFAULT 0,
    stored_bytes INTEGER NOT NULL DEFAULT 0,
    lost_lines INTEGER NOT NULL DEFAULT 0);
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    t0 INTEGER NOT NULL,
    t1 INTEGER NOT NULL,
    b0 INTEGER NOT NULL,
    b1 INTEGER NOT NULL,
    n INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL,
    severities INTEGER NOT NULL,
    counts BLOB NOT NULL);
CREATE INDEX blocks_by_stream ON blocks (stream, t1, t0);
CREATE INDEX blocks_by_time ON blocks (t1, t0);
CREATE TABLE bodies (block INTEGER PRIMARY KEY, cols BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE blooms (block INTEGER PRIMARY KEY, bits BLOB NOT NULL);
";

/// Opens a day's file for writing, or makes it. All small reads that tell damage are done.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    let sql = |error: rusqlite::Error| Error::sql(path, &error);
    let conn = Connection::open(path).map_err(sql)?;
    prepare(&conn, path, SCHEMA, FORMAT)?;
    // Little is ever deleted here, and what is shall be gone.
    conn.execute_batch("PRAGMA secure_delete = ON").map_err(sql)?;
    conn.query_row("SELECT total(lines) + total(sealed_upto) FROM streams", [], |row| row.get::<_, f64>(0)).map_err(sql)?;
    // The newest blocks only: a start must not read all headers of all days.
    let newest = "SELECT total(n) + total(length(counts)) FROM (SELECT * FROM blocks ORDER BY id DESC LIMIT 100)";
    conn.query_row(newest, [], |row| row.get::<_, f64>(0)).map_err(sql)?;
    Ok(conn)
}

/// Opens a day's file for reading, within one transaction that sees one state.
pub(crate) fn open_reader(path: &Path) -> Result<Connection> {
    reader(path, "SELECT count(*) FROM streams")
}

/// Opens a database for reading, and takes the snapshot by a first read.
pub(crate) fn reader(path: &Path, first_read: &str) -> Result<Connection> {
    let sql = |error: rusqlite::Error| Error::sql(path, &error);
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(sql)?;
    conn.busy_timeout(std::time::Duration::from_secs(10)).map_err(sql)?;
    conn.execute_batch("BEGIN").map_err(sql)?;
    conn.query_row(first_read, [], |row| row.get::<_, i64>(0)).map_err(sql)?;
    Ok(conn)
}

/// Sets durability, and makes or checks the schema.
pub(crate) fn prepare(conn: &Connection, path: &Path, schema: &str, format: i64) -> Result<()> {
    let sql = |error: rusqlite::Error| Error::sql(path, &error);
    conn.busy_timeout(std::time::Duration::from_secs(10)).map_err(sql)?;
    conn.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;",
    )
    .map_err(sql)?;
    let number = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql);
    let (application, found) = (number("application_id")?, number("user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sql)?;
    if tables == 0 && found == 0 {
        let make = format!("BEGIN IMMEDIATE; {schema} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {format}; COMMIT;");
        return conn.execute_batch(&make).map_err(sql);
    }
    if application != APPLICATION {
        return Err(Error::Corrupt { path: path.display().to_string(), what: "it is not a log store's file".to_owned() });
    }
    if found > format {
        return Err(Error::NewerFormat { path: path.display().to_string(), found, known: format });
    }
    if found < 1 {
        return Err(Error::Corrupt { path: path.display().to_string(), what: format!("format {found} does not exist") });
    }
    if found < format {
        // What is there stays readable; an older program must not meet what is added.
        conn.pragma_update(None, "user_version", format).map_err(sql)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_names() {
        for (day, name) in [(0, "1970-01-01"), (-1, "1969-12-31"), (19_675, "2023-11-14"), (11_016, "2000-02-29"), (106_751, "2262-04-11")]
        {
            assert_eq!(Day(day).to_string(), name);
            assert_eq!(Day::from_file_name(&format!("{name}.db")), Some(Day(day)));
        }
        for day in (-106_752..=106_751).step_by(97) {
            assert_eq!(Day::from_file_name(&format!("{}.db", Day(day))), Some(Day(day)));
        }
        for other in ["head.db", "2023-11-14.db-wal", "2023-11-31.db", "2023-1-14.db", "2023-11-14.db.corrupt-1", "+2023-11-14.db", ".db"] {
            assert_eq!(Day::from_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn the_ends_of_time_are_days_too() {
        for ts in [i64::MIN, -1, 0, i64::MAX] {
            let day = Day::of(ts);
            assert!(day.start_ns() <= ts && ts <= day.last_ns(), "{ts}");
        }
    }
}
