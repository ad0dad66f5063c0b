//! Days since 1970-01-01 and dates: UTC, proleptic Gregorian. Pure.

/// A calendar day.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Date {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
}

/// The date of a day since 1970-01-01. Years are counted from March, so that the leap day ends them.
pub(crate) const fn civil(days: i64) -> Date {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    Date { year: year_of_era + era * 400 + (month <= 2) as i64, month, day }
}

/// Days since 1970-01-01 of a date.
pub(crate) const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - (month <= 2) as i64;
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of a month.
pub(crate) const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + is_leap(year) as i64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_round_trips_over_centuries() {
        let mut before = civil(-800_001);
        for days in -800_000..800_000 {
            let date = civil(days);
            assert_eq!(days_from_civil(date.year, date.month, date.day), days);
            let next = if before.day < days_in_month(before.year, before.month) {
                Date { day: before.day + 1, ..before }
            } else if before.month < 12 {
                Date { month: before.month + 1, day: 1, ..before }
            } else {
                Date { year: before.year + 1, month: 1, day: 1 }
            };
            assert_eq!(date, next);
            before = date;
        }
    }
}
