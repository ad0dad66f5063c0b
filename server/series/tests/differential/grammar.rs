//! Random queries that both sides understand.
//!
//! The generator is a grammar of types: instant vectors, ranges, scalars. It keeps to what makes an answer that says something:
//! operators mostly get sides that match, `topk` gets values without ties.

use crate::{
    data::{LENGTH_MS, START_MS},
    random::Random,
};

/// Around an operation whose result keeps the metric's name in 2.42: there a factor takes the name away.
pub(crate) const OPEN: char = '⟦';
pub(crate) const CLOSE: char = '⟧';

/// Around `stddev|by (job)|x`: in 2.42 a group of one infinity has no deviation, in 3.x it has NaN.
pub(crate) const OPEN_DEVIATION: char = '⦃';
pub(crate) const CLOSE_DEVIATION: char = '⦄';

/// A second that ends in 7, from a little before the data to a little after.
pub(crate) fn moment(random: &mut Random) -> i64 {
    let tens = (LENGTH_MS / 10_000) as u64;
    START_MS / 1_000 + 10 * (random.below(tens + 30) as i64 - 10) + 7
}

/// One query in the making.
pub(crate) struct Grammar<'a> {
    pub(crate) random: &'a mut Random,
    pub(crate) set: &'a str,
    pub(crate) in_subquery: bool,
    /// 2.42 moves the window of `predict_linear(x[5m] @ 0, 1)` from step to step, 3.x does not.
    pub(crate) fixed: bool,
}

const MATH: [&str; 22] = [
    "abs", "ceil", "floor", "exp", "sqrt", "ln", "log2", "log10", "sgn", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
    "tanh", "asinh", "acosh", "atanh", "deg",
];
const CALENDAR: [&str; 8] = ["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"];
const OVER_TIME: [&str; 11] = [
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "changes",
    "resets",
];
const OF_COUNTERS: [&str; 3] = ["rate", "increase", "irate"];
const OF_GAUGES: [&str; 3] = ["delta", "idelta", "deriv"];
const REDUCE: [&str; 6] = ["sum", "avg", "min", "max", "count", "group"];
const ARITHMETIC: [&str; 7] = ["+", "-", "*", "/", "%", "^", "atan2"];
const COMPARE: [&str; 6] = ["==", "!=", ">", "<", ">=", "<="];

impl Grammar<'_> {
    fn metric(&mut self) -> String {
        let set = self.set;
        match self.random.below(10) {
            0..=3 => format!("g{set}"),
            4..=6 => format!("c{set}_total"),
            7 => format!("n{set}"),
            8 => format!("h{set}_bucket"),
            _ => match self.random.below(3) {
                0 => format!("i{set}_info"),
                1 => format!("t{set}"),
                _ => format!("none{set}"),
            },
        }
    }

    fn matchers(&mut self) -> String {
        self.random
            .pick(&[
                "",
                "",
                "",
                "",
                "{job=\"api\"}",
                "{job!=\"api\"}",
                "{job=~\"a.*\"}",
                "{job!~\"d.+\"}",
                "{instance=~\"x:[12]\"}",
                "{instance=\"x:1\",job=\"db\"}",
                "{zone=\"\"}",
                "{zone!=\"\"}",
                "{job=~\"api|db\",instance!=\"y:1\"}",
                "{job=\"none\"}",
            ])
            .to_owned()
    }

    /// `offset` and `@`, in either order.
    fn moved(&mut self) -> String {
        let offset = match self.random.below(12) {
            0 => " offset 1m",
            1 => " offset -30s",
            2 => " offset 10m",
            _ => "",
        };
        let at = match self.random.below(14) {
            0 => format!(" @ {}", moment(self.random)),
            1 => " @ start()".to_owned(),
            2 => " @ end()".to_owned(),
            _ => String::new(),
        };
        let at = if self.fixed { String::new() } else { at };
        if self.random.one_in(2) { format!("{offset}{at}") } else { format!("{at}{offset}") }
    }

    fn selector(&mut self) -> String {
        let (metric, matchers, moved) = (self.metric(), self.matchers(), self.moved());
        if self.random.one_in(15) && !metric.is_empty() {
            return format!("{{__name__=\"{metric}\"}}{moved}");
        }
        format!("{metric}{matchers}{moved}")
    }

    fn of(&mut self, metric: &str) -> String {
        let (matchers, moved) = (self.matchers(), self.moved());
        format!("{metric}{matchers}{moved}")
    }

    fn duration(&mut self) -> &'static str {
        self.random.pick(&["30s", "1m", "2m", "5m", "5m", "10m", "20m", "40s", "1h", "150"])
    }

    /// A range of a metric of one kind, or of anything that is computed.
    fn range_of(&mut self, metric: &str, depth: u64) -> String {
        if depth > 0 && self.random.one_in(4) {
            return self.subquery(depth);
        }
        let (matchers, duration, moved) = (self.matchers(), self.duration(), self.moved());
        format!("{metric}{matchers}[{duration}]{moved}")
    }

    pub(crate) fn range(&mut self, depth: u64) -> String {
        let metric = self.metric();
        self.range_of(&metric, depth)
    }

    fn subquery_of(&mut self, metric: &str) -> String {
        let range = self.random.pick(&["2m", "5m", "10m"]);
        let step = self.random.pick(&["30s", "", "20s"]);
        let moved = if self.in_subquery { " offset 3s".to_owned() } else { self.moved() };
        format!("{metric}[{range}:{step}]{moved}")
    }

    fn subquery(&mut self, depth: u64) -> String {
        let nested = std::mem::replace(&mut self.in_subquery, true);
        let fixed = std::mem::take(&mut self.fixed);
        let inner = if self.random.one_in(3) {
            let metric = self.metric();
            self.of(&metric)
        } else {
            self.vector(depth.clamp(1, 3) - 1)
        };
        (self.in_subquery, self.fixed) = (nested, fixed);
        let range = self.random.pick(&["2m", "5m", "10m", "15m"]);
        let step = self.random.pick(&["30s", "1m", "", "20s", "90s"]);
        // Between the steps of an outer subquery, so that no inner step lies on a border.
        let moved = if nested { " offset 3s".to_owned() } else { self.moved() };
        format!("({inner})[{range}:{step}]{moved}")
    }

    pub(crate) fn scalar(&mut self, depth: u64) -> String {
        if depth > 0 && self.random.one_in(4) {
            let inner = depth - 1;
            return match self.random.below(4) {
                0 => format!("scalar({})", self.vector(inner)),
                1 => {
                    let op = self.random.pick(&ARITHMETIC);
                    format!("{OPEN}{} {op} {}{CLOSE}", self.scalar(inner), self.scalar(inner))
                }
                2 => {
                    let op = self.random.pick(&COMPARE);
                    format!("({} {op} bool {})", self.scalar(inner), self.scalar(inner))
                }
                _ => format!("-{}", self.scalar(inner)),
            };
        }
        self.random
            .pick(&["0", "1", "2", "-1", "0.5", "10", "3.25", "-7", "1e3", "0x1f", "NaN", "Inf", "-Inf", "pi()", "time()", "100"])
            .to_owned()
    }

    fn quantile(&mut self) -> &'static str {
        self.random.pick(&["0.5", "0.9", "0", "1", "0.25", "-1", "1.5", "NaN", "0.99"])
    }

    fn grouping(&mut self) -> &'static str {
        self.random.pick(&[
            "",
            "by (job)",
            "by (instance)",
            "by (job, instance)",
            "without (instance)",
            "without (job)",
            "by ()",
            "without ()",
            "by (le)",
            "by (__name__)",
            "by (zone, none)",
        ])
    }

    pub(crate) fn vector(&mut self, depth: u64) -> String {
        if depth == 0 {
            return self.selector();
        }
        let inner = depth - 1;
        let set = self.set;
        match self.random.below(34) {
            0 => self.selector(),
            1..=2 => format!("{}({})", self.random.pick(&MATH), self.vector(inner)),
            3 => match self.random.below(3) {
                0 => format!("{}()", self.random.pick(&CALENDAR)),
                1 => format!("{}(t{set})", self.random.pick(&CALENDAR)),
                _ => format!("{}({})", self.random.pick(&CALENDAR), self.vector(inner)),
            },
            4..=6 => format!("{}({})", self.random.pick(&OVER_TIME), self.range(inner)),
            7..=9 => {
                let metric =
                    [format!("c{set}_total"), format!("c{set}_total"), format!("h{set}_bucket")][self.random.below(3) as usize].clone();
                // Over a subquery only of the counter: values near zero would meet 2.42's other rule for the zero point.
                let range = if self.random.one_in(5) { self.subquery_of(&metric) } else { self.range_of(&metric, 0) };
                format!("{}({range})", self.random.pick(&OF_COUNTERS))
            }
            10 => format!("{}({})", self.random.pick(&OF_GAUGES), self.range_of(&format!("g{set}"), inner)),
            11..=15 => self.aggregation(inner),
            16..=22 => self.binary(inner),
            23 => format!("-({})", self.vector(inner)),
            24 => format!("({})", self.vector(inner)),
            25 => self.histogram(inner),
            26 => self.relabel(inner),
            27 => self.bounded(inner),
            28 => match self.random.below(4) {
                0 => format!("absent({})", self.vector(inner)),
                1 => format!("absent_over_time({})", self.range(inner)),
                2 => format!("absent({{job=\"a\",job!=\"b\",x=\"y\",z=~\"q.*\",__name__=\"none{set}\"}})"),
                _ => format!("vector({})", self.scalar(inner)),
            },
            29 => {
                let inner = self.vector(inner);
                // Of `x @ 0 offset 1m` Prometheus reads the times without the offset, but only the samples with it.
                let is_moved_twice = inner.contains('@') && inner.contains("offset");
                if is_moved_twice { format!("timestamp(({inner}) * 1)") } else { format!("timestamp({inner})") }
            }
            30 => format!("{}({})", self.random.pick(&["sort", "sort_desc"]), self.vector(inner)),
            31 => {
                self.fixed = true;
                let range = self.range_of(&format!("g{set}"), inner);
                self.fixed = false;
                format!("predict_linear({range}, {})", self.scalar(inner))
            }
            32 => format!("quantile_over_time({}, {})", self.quantile(), self.range(inner)),
            _ => {
                let (sf, tf) = (self.random.pick(&["0.1", "0.5", "0.9"]), self.random.pick(&["0.2", "0.5", "0.8"]));
                format!("double_exponential_smoothing({}, {sf}, {tf})", self.range_of(&format!("g{set}"), inner))
            }
        }
    }

    fn aggregation(&mut self, depth: u64) -> String {
        let grouping = self.grouping();
        let set = self.set;
        let (name, args) = match self.random.below(12) {
            0 => {
                let rank = self.random.pick(&["topk", "bottomk"]);
                let distinct = match self.random.below(3) {
                    0 => format!("g{set}"),
                    1 => format!("c{set}_total"),
                    _ => format!("rate(c{set}_total[5m])"),
                };
                (rank, format!("{}, {distinct}", self.random.pick(&["1", "2", "3", "0", "-1", "100", "2.7"])))
            }
            1 => ("quantile", format!("{}, {}", self.quantile(), self.vector(depth))),
            2 => {
                let label = self.random.pick(&["value", "job", "new_label"]);
                let counted = if self.random.one_in(2) { format!("n{set}") } else { format!("sgn(g{set})") };
                ("count_values", format!("\"{label}\", {counted}"))
            }
            3 => {
                // The name would be lost in what 2.42 is asked.
                let grouping = grouping.replace("by (__name__)", "");
                return format!(
                    "{OPEN_DEVIATION}{}|{grouping}|{}{CLOSE_DEVIATION}",
                    self.random.pick(&["stddev", "stdvar"]),
                    self.vector(depth)
                );
            }
            _ => (self.random.pick(&REDUCE), self.vector(depth)),
        };
        if self.random.one_in(2) { format!("{name} {grouping} ({args})") } else { format!("{name}({args}) {grouping}") }
    }

    fn binary(&mut self, depth: u64) -> String {
        let operation = self.operation(depth);
        let mut depth = 0;
        let own: String = operation
            .chars()
            .filter(|c| {
                depth += i32::from(*c == OPEN) - i32::from(*c == CLOSE);
                depth == 0
            })
            .collect();
        if own.contains("atan2") { format!("{OPEN}{operation}{CLOSE}") } else { operation }
    }

    fn operation(&mut self, depth: u64) -> String {
        let set = self.set;
        match self.random.below(10) {
            0..=1 => {
                let op = self.random.pick(&ARITHMETIC);
                format!("{} {op} {}", self.operand(depth), self.scalar(depth))
            }
            2 => {
                let op = self.random.pick(&ARITHMETIC);
                format!("{} {op} {}", self.scalar(depth), self.operand(depth))
            }
            3 => {
                let (op, as_bool) = (self.random.pick(&COMPARE), self.random.pick(&["", "bool "]));
                if self.random.one_in(2) {
                    format!("{} {op} {as_bool}{}", self.operand(depth), self.scalar(depth))
                } else {
                    format!("{} {op} {as_bool}{}", self.scalar(depth), self.operand(depth))
                }
            }
            4 => {
                let (op, matching) = (self.random.pick(&["and", "or", "unless"]), self.matching());
                format!("{} {op} {matching}{}", self.operand(depth), self.operand(depth))
            }
            5..=6 => {
                let op = self.any_operator();
                let (left, right) = (self.random.pick(&REDUCE), self.random.pick(&REDUCE));
                let by = self.random.pick(&["by (job)", "by (job, instance)", "without (instance)"]);
                format!("{left} {by} ({}) {op} {right} {by} ({})", self.vector(depth), self.vector(depth))
            }
            7 => {
                let op = self.any_operator();
                let include = self.random.pick(&["", "(version)", "(version, none)"]);
                if self.random.one_in(2) {
                    format!("g{set} {op} on(instance) group_left{include} i{set}_info")
                } else {
                    format!("i{set}_info {op} on(instance) group_right{include} c{set}_total")
                }
            }
            8 => {
                let op = self.any_operator();
                format!("g{set} {op} ignoring(zone) n{set}")
            }
            _ => {
                let (op, matching) = (self.any_operator(), self.matching());
                format!("{} {op} {matching}{}", self.operand(depth), self.operand(depth))
            }
        }
    }

    /// A side of an operator; parentheses keep the operators inside together.
    fn operand(&mut self, depth: u64) -> String {
        let inner = self.vector(depth);
        if self.random.one_in(5) { inner } else { format!("({inner})") }
    }

    fn any_operator(&mut self) -> String {
        if self.random.one_in(3) {
            let (op, as_bool) = (self.random.pick(&COMPARE), self.random.pick(&["", " bool"]));
            return format!("{op}{as_bool}");
        }
        self.random.pick(&ARITHMETIC).to_owned()
    }

    fn matching(&mut self) -> &'static str {
        self.random.pick(&["", "", "on(job) ", "on(instance, job) ", "ignoring(zone) ", "ignoring(instance) ", "on() "])
    }

    fn histogram(&mut self, depth: u64) -> String {
        let set = self.set;
        let buckets = match self.random.below(5) {
            0 => format!("h{set}_bucket"),
            1 => format!("rate(h{set}_bucket[5m])"),
            2 => format!("sum by (le) (rate(h{set}_bucket[{}]))", self.duration()),
            3 => format!("sum by (le, job) (h{set}_bucket)"),
            _ => self.vector(depth),
        };
        format!("histogram_quantile({}, {buckets})", self.quantile())
    }

    fn relabel(&mut self, depth: u64) -> String {
        let inner = self.vector(depth);
        match self.random.below(5) {
            0 => format!("label_replace({inner}, \"host\", \"$1-$2\", \"instance\", \"(.*):(.*)\")"),
            1 => format!("label_replace({inner}, \"job\", \"\", \"job\", \"a.*\")"),
            2 => format!("label_replace({inner}, \"name\", \"${{1}}x\", \"__name__\", \"(.).*\")"),
            3 => format!("label_join({inner}, \"both\", \"/\", \"job\", \"instance\", \"none\")"),
            _ => format!("label_join({inner}, \"job\", \"\")"),
        }
    }

    fn bounded(&mut self, depth: u64) -> String {
        let inner = self.vector(depth);
        match self.random.below(5) {
            0 => format!("clamp({inner}, {}, {})", self.scalar(0), self.scalar(0)),
            1 => format!("clamp_min({inner}, {})", self.scalar(0)),
            2 => format!("clamp_max({inner}, {})", self.scalar(0)),
            3 => format!("round({inner}, {})", self.random.pick(&["1", "0.5", "10", "0.25"])),
            _ => format!("round({inner})"),
        }
    }
}
